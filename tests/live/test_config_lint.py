# What lint refuses is refused by a live Triton, and what lint lets pass is loaded.
from __future__ import annotations

from collections.abc import Mapping

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Signature, TensorSpec
from controlplane.domain.config_findings import Finding, Severity
from controlplane.domain.config_lint import lint
from controlplane.domain.config_revision import revision_config
from controlplane.domain.servers import HostFacts
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.onnx_graphs import graph, write
from tests.live.runtime.models import load
from tests.live.servers import LiveTriton, MakeTriton

HOST = HostFacts(cpu_cores=2, gpus=0, memory_bytes=4 << 30)
SOFTMAX = Signature(
    (TensorSpec("x", "TYPE_FP32", (None, 4)),),
    (TensorSpec("y", "TYPE_FP32", (None, 4)),),
    Batching.BATCHABLE,
    17,
    8,
    "",
)
X: JsonObject = {"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}
Y: JsonObject = {"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}
GROUP: JsonObject = {"name": "g", "count": 1, "kind": "KIND_CPU"}
BASE: JsonObject = {
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "input": [X],
    "output": [Y],
    "instance_group": [GROUP],
}
SAMPLE: JsonObject = {"data_type": "TYPE_FP32", "dims": ["4"], "zero_data": True}


def _x(**fields: Json) -> JsonObject:
    return {"input": [{**X, **fields}]}


def _batching(**fields: Json) -> JsonObject:
    return {"dynamic_batching": fields}


def _warmup(sample: JsonObject, rows: int = 1, name: str = "x") -> JsonObject:
    return {"model_warmup": [{"name": "w", "batch_size": rows, "inputs": {name: sample}}]}


def _parameter(key: str, value: str) -> JsonObject:
    return {"parameters": {key: {"string_value": value}}}


CASES: Mapping[str, JsonObject] = {
    "negative_batch": {"max_batch_size": -1},
    "no_input": {"input": []},
    "no_output": {"output": []},
    "no_datatype": {"input": [{"name": "x", "dims": ["4"]}]},
    "other_datatype": _x(data_type="TYPE_INT8"),
    "no_dims": _x(dims=[]),
    "zero_dim": _x(dims=["0"]),
    "negative_dim": _x(dims=["-2"]),
    "other_dims": _x(dims=["5"]),
    "open_dims": _x(dims=["-1"]),
    "more_dims": _x(dims=["1", "4"]),
    "open_output": {"output": [{**Y, "dims": ["-1"]}]},
    "unbatched_dims": {"max_batch_size": 0},
    "input_fixed_further": {
        "max_batch_size": 0,
        "input": [{**X, "dims": ["3", "4"]}],
        "output": [{**Y, "dims": ["-1", "4"]}],
    },
    "output_fixed_further": {
        "max_batch_size": 0,
        "input": [{**X, "dims": ["3", "4"]}],
        "output": [{**Y, "dims": ["3", "4"]}],
    },
    "unknown_input": _x(name="z"),
    "unknown_output": {"output": [{**Y, "name": "z"}]},
    "twice": {"input": [X, X]},
    "optional": _x(optional=True),
    "ragged": _x(allow_ragged_batch=True),
    "nhwc": _x(format="FORMAT_NHWC"),
    "reshape": _x(dims=["2", "2"], reshape={"shape": ["4"]}),
    "reshape_size": _x(dims=["2", "3"], reshape={"shape": ["4"]}),
    "reshape_open": _x(dims=["-1"], reshape={"shape": ["4"]}),
    "reshape_empty": {
        "max_batch_size": 0,
        "input": [{**X, "dims": ["1"], "reshape": {}}],
        "output": [{**Y, "dims": ["-1", "4"]}],
    },
    "label_file": {"output": [{**Y, "label_filename": "labels.txt"}]},
    "preferred_over": _batching(preferred_batch_size=[16]),
    "preferred_zero": _batching(preferred_batch_size=[0]),
    "preferred_oldest_over": {"sequence_batching": {"oldest": {"preferred_batch_size": [16]}}},
    "batching_one_row": {"max_batch_size": 1, **_batching(max_queue_delay_microseconds="9")},
    "priorities": _batching(priority_levels="2", default_priority_level="1"),
    "priorities_no_default": _batching(priority_levels="2"),
    "priorities_default_over": _batching(priority_levels="2", default_priority_level="3"),
    "priority_policy_over": _batching(priority_levels="2", default_priority_level="1", priority_queue_policy={"3": {}}),
    "priority_policy_zero": _batching(priority_levels="2", default_priority_level="1", priority_queue_policy={"0": {}}),
    "priority_ordering": _batching(priority_levels="2", default_priority_level="1", preserve_ordering=True),
    "priority_default_alone": _batching(default_priority_level="1"),
    "delay_without_timeout": _batching(default_queue_policy={"timeout_action": "DELAY"}),
    "cache": {"response_cache": {"enable": True}},
    "cache_decoupled": {"response_cache": {"enable": True}, "model_transaction_policy": {"decoupled": True}},
    "decoupled": {"model_transaction_policy": {"decoupled": True}},
    "state": {
        "sequence_batching": {
            "state": [{"input_name": "x", "output_name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}]
        }
    },
    "in_flight": {"ensemble_scheduling": {"max_inflight_requests": 1}},
    "metrics": {"model_metrics": {}},
    "gpu": {"instance_group": [{**GROUP, "kind": "KIND_GPU"}]},
    "auto_on_gpu": {"instance_group": [{"name": "g", "count": 1, "gpus": [0]}]},
    "cpu_on_gpu": {"instance_group": [{**GROUP, "gpus": [0]}]},
    "no_group": {"instance_group": []},
    "no_count": {"instance_group": [{"name": "g", "kind": "KIND_CPU"}]},
    "two_groups_one_name": {"instance_group": [GROUP, GROUP]},
    "openvino": {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}},
    "tensorrt_unused": {
        "optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}
    },
    "threads": _parameter("intra_op_thread_count", "2"),
    "threads_text": _parameter("intra_op_thread_count", "two"),
    "mode": _parameter("execution_mode", "3"),
    "arena": _parameter("enable_mem_arena", "yes"),
    "agent": {"model_repository_agents": {"agents": [{"name": "../none"}]}},
    "library": {"model_operations": {"op_library_filename": ["../x.so"]}},
    "warmup": _warmup(SAMPLE),
    "warmup_rows": _warmup(SAMPLE, rows=9),
    "warmup_other_input": _warmup(SAMPLE, name="z"),
    "warmup_nothing": {"model_warmup": [{"name": "w", "batch_size": 1}]},
    "warmup_dims": _warmup({**SAMPLE, "dims": ["5"]}),
    "warmup_open": _warmup({**SAMPLE, "dims": ["-1"]}),
    "warmup_datatype": _warmup({**SAMPLE, "data_type": "TYPE_INT8"}),
    "warmup_file": _warmup({"data_type": "TYPE_FP32", "dims": ["4"], "input_data_file": "f"}),
}


@pytest.mark.parametrize("case", [case for case in CASES if case != "warmup_rows"])
def test_lint_and_triton_refuse_the_same(triton: LiveTriton, case: str) -> None:
    assert _loads(triton, case) is (_refusals(case) == []), _refusals(case)


def test_a_warmup_of_too_many_rows_is_refused_here_because_triton_may_die_of_it(make_triton: MakeTriton) -> None:
    # Triton 24.10 refuses the load, or in about one of ten dies in freeing the requests of the warm-up.
    assert _refusals("warmup_rows")
    assert not _loads(make_triton(), "warmup_rows")


def _config(case: str) -> JsonObject:
    return PbtxtCodec().check({**BASE, **CASES[case], "name": f"lint_{case}"})


def _refusals(case: str) -> list[Finding]:
    found = lint(_config(case), model=f"lint_{case}", signatures={1: SOFTMAX}, host=HOST, embedded=True)
    return [finding for finding in found if finding.severity is Severity.REFUSED]


def _loads(triton: LiveTriton, case: str) -> bool:
    model = f"lint_{case}"
    directory = triton.repository / model
    write(graph("softmax"), directory / "1")
    (directory / "config.pbtxt").write_text(PbtxtCodec().render(revision_config(_config(case), [1])))
    try:
        load(triton, model)
    except InferenceServerException:
        return False
    with grpcclient.InferenceServerClient(triton.grpc) as client:
        client.unload_model(model, headers=triton.headers)
    return True
