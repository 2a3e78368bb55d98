# Each thing that Triton refuses or a user regrets is found, with its place and its cure.
from __future__ import annotations

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Batching, Signature, TensorSpec
from controlplane.domain.config_findings import Finding, Severity
from controlplane.domain.config_lint import lint, refuse
from controlplane.domain.servers import HostFacts
from controlplane.errors import ConfigInvalid
from controlplane.triton.pbtxt import PbtxtCodec

CPU = HostFacts(cpu_cores=4, gpus=0, memory_bytes=8 << 30)
GPU = HostFacts(cpu_cores=4, gpus=2, memory_bytes=8 << 30)
X: JsonObject = {"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}
Y: JsonObject = {"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}
GROUP: JsonObject = {"name": "g", "count": 1, "kind": "KIND_CPU"}
BASE: JsonObject = {
    "name": "m",
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "input": [X],
    "output": [Y],
    "instance_group": [GROUP],
    "parameters": {"intra_op_thread_count": {"string_value": "4"}},
}
EVIL = "g$(touch /tmp/x)"


def signature(batching: Batching = Batching.BATCHABLE, *, rows: int | str = "n") -> Signature:
    return Signature(
        (TensorSpec("x", "TYPE_FP32", (rows, 4)),), (TensorSpec("y", "TYPE_FP32", (rows, 4)),), batching, 17, 8, "test"
    )


def found(
    changes: JsonObject,
    *,
    host: HostFacts | None = CPU,
    embedded: bool = False,
    signatures: dict[int, Signature] | None = None,
) -> list[tuple[str, str, str]]:
    config = PbtxtCodec().check({**BASE, **changes})
    findings = lint(
        config,
        model="m",
        signatures={1: signature()} if signatures is None else signatures,
        host=host,
        embedded=embedded,
        beside=["beside.txt"],
    )
    assert all(finding.message and finding.hint for finding in findings)
    return [(finding.severity.value, finding.code, finding.path) for finding in findings]


def test_a_sound_config_has_no_findings() -> None:
    assert found({}) == []
    assert found({}, embedded=True) == []


def test_a_gpu_for_the_embedded_server_is_one_finding_on_a_host_without() -> None:
    group: JsonObject = {"name": "g", "count": 1, "kind": "KIND_GPU"}
    assert found({"instance_group": [group]}, embedded=True) == [
        ("refused", "embedded.unsupported", "instance_group[0].kind")
    ]


def test_a_finding_says_what_which_value_and_what_instead() -> None:
    config: JsonObject = {**BASE, "dynamic_batching": {"preferred_batch_size": [16]}}
    assert lint(config, model="m", signatures={1: signature()}, host=CPU) == (
        Finding(
            Severity.REFUSED,
            "batching.preferred",
            "dynamic_batching.preferred_batch_size",
            "the preferred batch size 16 is over max_batch_size 8",
            "use at most 8, or unset preferred_batch_size",
        ),
    )


THREADS = 'parameters["intra_op_thread_count"].string_value'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version_policy": {"all": {}}}, [("refused", "version_policy.present", "version_policy")]),
        ({"name": "other"}, [("refused", "name.differs", "name")]),
        ({"instance_group": [{**GROUP, "name": EVIL}]}, [("refused", "name.unsafe", "instance_group[0].name")]),
        ({"instance_group": [{**GROUP, "host_policy": EVIL}]}, [("refused", "name.unsafe", "instance_group[0].host_policy")]),
        ({"default_model_filename": "../m.onnx"}, [("refused", "name.unsafe", "default_model_filename")]),
        ({"default_model_filename": "a b.onnx"}, [("refused", "name.unsafe", "default_model_filename")]),
        ({"cc_model_filenames": {"8.0": "a;b"}}, [("refused", "name.unsafe", 'cc_model_filenames["8.0"]')]),
        ({"runtime": "../evil.so"}, [("refused", "name.unsafe", "runtime")]),
        ({"model_repository_agents": {"agents": [{"name": "../a"}]}}, [("refused", "name.unsafe", "model_repository_agents.agents[0].name")]),
        ({"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/a/../b"}, **BASE["parameters"]}}, [("refused", "path.unsafe", 'parameters["EXECUTION_ENV_PATH"].string_value')]),  # type: ignore[dict-item]
        ({"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/a;b"}, **BASE["parameters"]}}, [("refused", "path.unsafe", 'parameters["EXECUTION_ENV_PATH"].string_value')]),  # type: ignore[dict-item]
        ({"parameters": {"EXECUTION_ENV_PATH": {"string_value": "$$TRITON_MODEL_DIRECTORY/env.tar.gz"}, **BASE["parameters"]}}, [("regret", "path.foreign_code", 'parameters["EXECUTION_ENV_PATH"].string_value')]),  # type: ignore[dict-item]
        ({"model_operations": {"op_library_filename": ["$(x).so"]}}, [("refused", "path.unsafe", "model_operations.op_library_filename[0]")]),
        ({"output": [{**Y, "label_filename": "labels.txt"}]}, [("refused", "file.absent", "output[0].label_filename")]),
        ({"output": [{**Y, "label_filename": "1/labels.txt"}]}, []),
        ({"output": [{**Y, "label_filename": "beside.txt"}]}, []),
        ({"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"x": {"data_type": "TYPE_FP32", "dims": ["4"], "input_data_file": "f"}}}]}, [("refused", "file.absent", 'model_warmup[0].inputs["x"].input_data_file')]),
        ({"max_batch_size": -1}, [("refused", "batch.negative", "max_batch_size")]),
        ({"max_batch_size": -1, "dynamic_batching": {"preferred_batch_size": [4], "priority_levels": 1, "default_priority_level": 1}}, [("refused", "batch.negative", "max_batch_size")]),
        ({"input": []}, [("refused", "input.missing", "input")]),
        ({"input": [X, X]}, [("refused", "tensor.name", "input")]),
        ({"input": [{**X, "name": "z"}]}, [("refused", "input.unlisted", "input"), ("refused", "input.unknown", 'input["z"]')]),
        ({"input": [{**X, "data_type": "TYPE_INT8"}]}, [("refused", "tensor.datatype", 'input["x"].data_type')]),
        ({"input": [{**X, "dims": ["5"]}]}, [("refused", "tensor.dims", 'input["x"].dims')]),
        ({"input": [{**X, "dims": ["0"]}]}, [("refused", "tensor.dims", 'input["x"].dims')]),
        ({"input": [{**X, "dims": ["2", "2"], "reshape": {"shape": ["4"]}}]}, []),
        ({"input": [{**X, "dims": ["2", "3"], "reshape": {"shape": ["4"]}}]}, [("refused", "tensor.reshape", 'input["x"].reshape')]),
        ({"input": [{**X, "format": "FORMAT_NHWC"}]}, [("refused", "tensor.format", 'input["x"].format')]),
        ({"input": [{**X, "optional": True}]}, [("refused", "tensor.optional", 'input["x"].optional')]),
        ({"output": [{**Y, "dims": ["-1"]}]}, [("refused", "tensor.dims", 'output["y"].dims')]),
        ({"output": [{**Y, "name": "z"}]}, [("refused", "output.unknown", 'output["z"]'), ("regret", "output.unlisted", "output")]),
        ({"max_batch_size": 0, "input": [{**X, "dims": ["-1", "4"]}], "output": [{**Y, "dims": ["-1", "4"]}]}, []),
        ({"dynamic_batching": {"preferred_batch_size": [0]}}, [("refused", "batching.preferred", "dynamic_batching.preferred_batch_size")]),
        ({"max_batch_size": 1, "dynamic_batching": {"max_queue_delay_microseconds": "9"}}, [("regret", "batching.without_batch", "dynamic_batching"), ("regret", "batching.delay_for_nothing", "dynamic_batching.max_queue_delay_microseconds")]),
        ({"dynamic_batching": {"priority_levels": "2"}}, [("refused", "priority.default", "dynamic_batching.default_priority_level")]),
        ({"dynamic_batching": {"priority_levels": "2", "default_priority_level": "1", "priority_queue_policy": {"3": {}}}}, [("refused", "priority.level", 'dynamic_batching.priority_queue_policy["3"]')]),
        ({"dynamic_batching": {"priority_levels": "2", "default_priority_level": "1", "preserve_ordering": True}}, [("refused", "priority.ordering", "dynamic_batching.preserve_ordering")]),
        ({"dynamic_batching": {"default_priority_level": "1"}}, [("regret", "priority.without_levels", "dynamic_batching.default_priority_level")]),
        ({"dynamic_batching": {"default_queue_policy": {"timeout_action": "DELAY"}}}, [("regret", "queue.no_timeout", "dynamic_batching.default_queue_policy.timeout_action")]),
        ({"dynamic_batching": {"max_queue_delay_microseconds": "9", "default_queue_policy": {"default_timeout_microseconds": "5"}}}, [("regret", "queue.timeout_in_delay", "dynamic_batching.default_queue_policy.default_timeout_microseconds")]),
        ({"response_cache": {"enable": True}}, [("regret", "cache.stale", "response_cache.enable")]),
        ({"instance_group": []}, [("regret", "instances.unsaid", "instance_group")]),
        ({"backend": ""}, [("regret", "backend.unsaid", "backend")]),
        ({"instance_group": [{**GROUP, "count": 0}]}, [("regret", "instances.count", "instance_group[0].count")]),
        ({"instance_group": [GROUP, GROUP]}, [("regret", "instances.same_name", "instance_group[1].name"), ("regret", "threads.too_many", THREADS)]),
        ({"instance_group": [{**GROUP, "count": 2}], "parameters": {}}, [("regret", "threads.unsaid", THREADS)]),
        ({"instance_group": [{**GROUP, "kind": "KIND_GPU"}]}, [("refused", "instances.no_gpu", "instance_group[0].kind")]),
        ({"instance_group": [{**GROUP, "gpus": [0]}]}, [("refused", "instances.gpus", "instance_group[0].gpus")]),
        ({"optimization": {"cuda": {"graphs": True}}}, [("regret", "accelerator.no_gpu", "optimization.cuda.graphs")]),
        ({"parameters": {"execution_mode": {"string_value": "3"}}}, [("refused", "parameter.value", 'parameters["execution_mode"].string_value')]),
        ({"model_warmup": [{"name": "w", "batch_size": 9, "inputs": {"x": {"data_type": "TYPE_FP32", "dims": ["-1"]}}}]}, [("refused", "warmup.batch_size", "model_warmup[0].batch_size"), ("refused", "warmup.sample", 'model_warmup[0].inputs["x"]')]),
        ({"model_warmup": [{"name": "w", "batch_size": 1}]}, [("refused", "warmup.inputs", "model_warmup[0].inputs")]),
    ],
)  # fmt: skip
def test_lint_finds(changes: JsonObject, expected: list[tuple[str, str, str]]) -> None:
    assert found(changes) == expected


@pytest.mark.parametrize(
    ("batching", "severity", "code"),
    [
        (Batching.FIXED, "refused", "batch.fixed"),
        (Batching.MIXES_ROWS, "regret", "batch.mixes_rows"),
        (Batching.UNKNOWN, "regret", "batch.unknown"),
    ],
)
def test_a_batch_for_a_graph_that_cannot_is_found(batching: Batching, severity: str, code: str) -> None:
    rows = 1 if batching is Batching.FIXED else "n"
    assert found({}, signatures={2: signature(batching, rows=rows)}) == [(severity, code, "max_batch_size")]


def test_a_gpu_that_the_host_lacks_is_refused_and_one_that_it_has_is_not() -> None:
    group: JsonObject = {**GROUP, "kind": "KIND_GPU"}
    assert found({"instance_group": [{**group, "gpus": [1]}]}, host=GPU) == []
    assert found({"instance_group": [{**group, "gpus": [2]}]}, host=GPU) == [
        ("refused", "instances.gpus", "instance_group[0].gpus")
    ]
    assert found({"instance_group": [group]}, host=None) == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"input": [{**X, "allow_ragged_batch": True}]}, 'input["x"].allow_ragged_batch'),
        ({"batch_input": [{"target_name": ["x"]}]}, "batch_input"),
        ({"model_metrics": {}}, "model_metrics"),
        ({"sequence_batching": {"state": [{"input_name": "x"}]}}, "sequence_batching.state"),
        ({"model_transaction_policy": {"decoupled": True}}, "model_transaction_policy.decoupled"),
        (
            {"optimization": {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}},
            "optimization.execution_accelerators.cpu_execution_accelerator",
        ),
        ({"instance_group": [{**GROUP, "kind": "KIND_GPU"}]}, "instance_group[0].kind"),
    ],
)
def test_what_only_nvidias_server_can_is_refused_for_the_embedded_one(changes: JsonObject, path: str) -> None:
    assert [place for severity, _, place in found(changes, host=GPU, embedded=True) if severity == "refused"] == [path]
    assert [place for severity, _, place in found(changes, host=GPU) if severity == "refused"] == []


def test_an_opaque_version_is_checked_without_a_signature() -> None:
    assert found({"backend": "python"}, signatures={}) == []
    assert found({"backend": "python", "input": []}, signatures={}) == [("regret", "input.missing", "input")]


def test_refusals_are_raised_together_and_regrets_pass() -> None:
    regrets = lint({**BASE, "instance_group": []}, model="m", signatures={}, host=None)
    assert len(regrets) == 1
    refuse(regrets)
    with pytest.raises(ConfigInvalid) as caught:
        refuse(lint({**BASE, "name": "n", "max_batch_size": -1}, model="m", signatures={}, host=None))
    assert caught.value.message == "max_batch_size is -1; the config is for 'n', the model is 'm'"
    assert caught.value.hint == "use 0 or more; unset name"
