# What a live Triton reports for configs of every kind is what `config_readback` says it will.
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_diff import FieldChange, diff
from controlplane.domain.config_readback import mismatches, normalise
from controlplane.domain.config_revision import revision_config
from controlplane.triton.config_fields import tree_of
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.onnx_graphs import graph, write
from tests.live.runtime.models import load
from tests.live.servers import LiveTriton

codec = PbtxtCodec()

X: JsonObject = {"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}
Y: JsonObject = {"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}
GROUP: JsonObject = {"name": "g", "count": 1, "kind": "KIND_CPU"}
IO: JsonObject = {"max_batch_size": 8, "input": [X], "output": [Y]}
BASE: JsonObject = {**IO, "backend": "onnxruntime", "instance_group": [GROUP]}
WARM: JsonObject = {"data_type": "TYPE_FP32", "dims": ["4"]}
UNBATCHED: JsonObject = {
    "max_batch_size": 0,
    "input": [{**X, "dims": ["-1", "4"]}],
    "output": [{**Y, "dims": ["-1", "4"]}],
}


def _groups(*groups: JsonObject) -> JsonObject:
    return {"instance_group": list(groups)}


def _batching(**fields: Json) -> JsonObject:
    return {"dynamic_batching": fields}


CASES: Mapping[str, JsonObject] = {
    "plain": {},
    "no_group": {"instance_group": []},
    "unnamed_groups": _groups({"count": 1, "kind": "KIND_CPU"}, {"count": 2, "kind": "KIND_CPU"}),
    "half_named_groups": _groups(GROUP, {"count": 1, "kind": "KIND_CPU"}),
    "kind_auto": _groups({"name": "g"}),
    "no_count": _groups({"name": "g", "kind": "KIND_CPU"}),
    "negative_count": _groups({**GROUP, "count": -1}),
    "kind_model": _groups({"name": "g", "kind": "KIND_MODEL"}),
    "host_policy": _groups({**GROUP, "host_policy": "p"}),
    "passive": _groups(GROUP, {"name": "p", "count": 1, "kind": "KIND_CPU", "passive": True}),
    "rate_limiter": _groups({**GROUP, "rate_limiter": {"resources": [{"name": "R", "count": 1}], "priority": 2}}),
    "rate_limiter_empty": _groups({**GROUP, "rate_limiter": {}}),
    "batching": _batching(),
    "batching_preferred": _batching(preferred_batch_size=[4, 8], max_queue_delay_microseconds="100"),
    "batching_delay": _batching(max_queue_delay_microseconds="100"),
    "batching_one_row": {"max_batch_size": 1, **_batching()},
    "batching_unbatched": {**UNBATCHED, **_batching(max_queue_delay_microseconds="100")},
    "priorities": _batching(
        priority_levels="3",
        default_priority_level="2",
        priority_queue_policy={"1": {"max_queue_size": 4}, "3": {}},
    ),
    "priority_policy_alone": _batching(priority_queue_policy={"5": {"max_queue_size": 4}}),
    "queue_policy": _batching(
        default_queue_policy={
            "timeout_action": "DELAY",
            "default_timeout_microseconds": "5",
            "allow_timeout_override": True,
            "max_queue_size": 9,
        }
    ),
    "queue_policy_empty": _batching(default_queue_policy={}),
    "preserve_ordering": _batching(preserve_ordering=True),
    "sequence_direct": {"sequence_batching": {"direct": {}}},
    "sequence": {"sequence_batching": {}},
    "sequence_oldest": {"sequence_batching": {"oldest": {"max_candidate_sequences": 4}}},
    "sequence_idle": {
        "sequence_batching": {
            "max_sequence_idle_microseconds": "5",
            "direct": {"minimum_slot_utilization": "0.1"},
        }
    },
    "parameters": {
        "parameters": {
            "intra_op_thread_count": {"string_value": "1"},
            "session.x": {"string_value": 'a "b"\n'},
            "e": {},
        }
    },
    "cache": {"response_cache": {"enable": True}},
    "cache_off": {"response_cache": {}},
    "warm_zero": {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"x": {**WARM, "zero_data": True}}}]},
    "warm_random": {
        "model_warmup": [{"name": "w", "batch_size": 8, "count": 3, "inputs": {"x": {**WARM, "random_data": True}}}]
    },
    "pinned": {"optimization": {"input_pinned_memory": {}, "output_pinned_memory": {"enable": True}}},
    "optimization_empty": {"optimization": {}},
    "optimization": {
        "optimization": {
            "graph": {"level": -1},
            "priority": "PRIORITY_MAX",
            "eager_batching": True,
            "gather_kernel_buffer_threshold": 3,
        }
    },
    "cuda_graphs": {
        "optimization": {"cuda": {"graphs": True, "graph_spec": [{"batch_size": 1, "input": {"x": {"dim": ["4"]}}}]}}
    },
    "accelerator": {
        "optimization": {
            "execution_accelerators": {
                "gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}]
            }
        }
    },
    "file_name": {"default_model_filename": "model.onnx"},
    "compute_capability": {"cc_model_filenames": {"8.0": "model.onnx"}},
    "metric_tags": {"metric_tags": {"a": "b"}},
    "platform": {"backend": "", "platform": "onnxruntime_onnx"},
    "platform_too": {"platform": "onnxruntime_onnx"},
    "neither": {"backend": ""},
    "no_name": {"name": ""},
    "decoupled_empty": {"model_transaction_policy": {}},
    "reshape": {"input": [{**X, "dims": ["2", "2"], "reshape": {"shape": ["4"]}}]},
}


def _serve(
    server: LiveTriton,
    name: str,
    config: JsonObject,
    write_version: Callable[[Path], object],
    versions: tuple[int, ...] = (1,),
) -> tuple[JsonObject, JsonObject]:
    """Load `config` as model `name`; return it as it was written and as Triton reports it."""
    written = codec.check({"name": name, **config})
    written = revision_config(written, versions) if versions else written
    write_version(server.repository / name / "1")
    (server.repository / name / "config.pbtxt").write_text(codec.render(written))
    load(server, name)
    return written, _reported(server, name)


def _reported(server: LiveTriton, name: str) -> JsonObject:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        return tree_of(client.get_model_config(name).config)


def _unload(server: LiveTriton, name: str) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.unload_model(name, headers=server.headers)


def _softmax(directory: Path) -> None:
    write(graph("softmax"), directory)


@pytest.mark.parametrize("case", CASES)
def test_what_triton_reports_is_what_was_foretold(triton: LiveTriton, case: str) -> None:
    name = f"readback_{case}"
    written, reported = _serve(triton, name, {**BASE, **CASES[case]}, _softmax)
    assert mismatches(written, reported) == ()
    _unload(triton, name)


def test_only_these_fields_are_added_to_a_complete_config(triton: LiveTriton) -> None:
    written, reported = _serve(triton, "readback_golden", {**BASE, **_batching()}, _softmax)
    assert reported == {
        "name": "readback_golden",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "runtime": "model.py",
        "version_policy": {"specific": {"versions": ["1"]}},
        "max_batch_size": 8,
        "input": [X],
        "output": [Y],
        "instance_group": [GROUP],
        "default_model_filename": "model.onnx",
        "optimization": {"input_pinned_memory": {"enable": True}, "output_pinned_memory": {"enable": True}},
        "dynamic_batching": {"preferred_batch_size": [8]},
    }
    assert {change.path for change in diff(normalise(written), reported)} == {"platform", "runtime"}


def test_a_config_without_version_policy_gets_the_latest_version(triton: LiveTriton) -> None:
    written, reported = _serve(triton, "readback_latest", BASE, _softmax, versions=())
    assert reported["version_policy"] == {"latest": {"num_versions": 1}}
    assert mismatches(written, reported) == ()


def test_what_triton_reports_after_an_update_in_place_is_foretold_too(triton: LiveTriton) -> None:
    name = "readback_in_place"
    _serve(triton, name, BASE, _softmax)
    time.sleep(0.01)
    written, reported = _serve(
        triton, name, {**BASE, **_groups({**GROUP, "count": 2}, {"kind": "KIND_CPU"})}, lambda _: None
    )
    assert mismatches(written, reported) == ()


def test_a_python_model_and_an_ensemble_are_foretold(triton: LiveTriton) -> None:
    def echo(directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "model.py").write_text(
            "import triton_python_backend_utils as pb\n"
            "class TritonPythonModel:\n"
            "    def execute(self, requests):\n"
            "        return [pb.InferenceResponse([pb.Tensor('y', r.inputs()[0].as_numpy())]) for r in requests]\n"
        )

    written, reported = _serve(triton, "readback_python", {**IO, "backend": "python"}, echo)
    assert mismatches(written, reported) == ()
    step: JsonObject = {
        "model_name": "readback_python",
        "model_version": "-1",
        "input_map": {"x": "x"},
        "output_map": {"y": "y"},
    }
    ensemble: JsonObject = {**IO, "platform": "ensemble", "ensemble_scheduling": {"step": [step]}}
    written, reported = _serve(triton, "readback_ensemble", ensemble, lambda path: path.mkdir(parents=True))
    assert mismatches(written, reported) == ()


def test_an_override_is_seen_as_a_mismatch(triton: LiveTriton) -> None:
    name = "readback_override"
    written, reported = _serve(triton, name, {**BASE, **_batching(max_queue_delay_microseconds="100")}, _softmax)
    assert mismatches(written, reported) == ()
    override = '{"name": "%s", "backend": "onnxruntime", "maxBatchSize": 4, "dynamicBatching": {}, "instanceGroup": [{"name": "g", "count": 2, "kind": "KIND_CPU"}], "input": [{"name": "x", "dataType": "TYPE_FP32", "dims": [4]}], "output": [{"name": "y", "dataType": "TYPE_FP32", "dims": [4]}]}'
    with grpcclient.InferenceServerClient(triton.grpc) as client:
        client.load_model(name, headers=triton.headers, config=override % name)
    assert mismatches(written, _reported(triton, name)) == (
        FieldChange("dynamic_batching.max_queue_delay_microseconds", "100", None),
        FieldChange("dynamic_batching.preferred_batch_size", [8], [4]),
        FieldChange('instance_group["g"].count', 1, 2),
        FieldChange("max_batch_size", 8, 4),
        FieldChange("version_policy.latest", None, {"num_versions": 1}),
        FieldChange("version_policy.specific", {"versions": ["1"]}, None),
    )
