# The onnxruntime backend reads configs as NVIDIA's does: completes them when asked, honours parameters, refuses misfits.
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from controlplane.triton.runtime import processes
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.onnx_graphs import graph
from tests.live.runtime.models import (
    ask,
    assert_same,
    config_text,
    expected,
    load,
    put,
    rows_as_columns,
    serve,
)
from tests.live.servers import LiveTriton, MakeTriton, launch

SOFTMAX = graph("softmax")


@pytest.fixture(scope="module")
def completing(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTriton]:
    """A server that completes configs."""
    server = launch(runtime, tmp_path_factory.mktemp("completing"), auto_complete_config=True)
    yield server
    server.process.stop(0)


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (parameter("intra_op_thread_count", "many"), "parameter 'intra_op_thread_count' has the invalid value 'many'"),
        (parameter("inter_op_thread_count", "1.5"), "parameter 'inter_op_thread_count' has the invalid value '1.5'"),
        (parameter("execution_mode", "2"), "Expected values for execution_mode are 0 or 1 but got 2"),
        (parameter("enable_mem_arena", "maybe"), "parameter 'enable_mem_arena' has the invalid value 'maybe'"),
        (parameter("enable_mem_pattern", ""), "parameter 'enable_mem_pattern' has the invalid value ''"),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }\n',
            "unknown Execution Accelerator 'openvino' is requested",
        ),
        (
            'model_operations { op_library_filename: "no_such_library.so" }\n',
            "Failed to load library no_such_library.so",
        ),
        ("model_transaction_policy { decoupled: true }\n", "the decoupled transaction policy is not supported"),
        (
            'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" }\n',
            "batch_input is not supported by this backend",
        ),
    ],
    ids=lambda value: re.sub(r"\W+", "_", value)[:40],
)
def test_what_cannot_be_honoured_is_refused_at_load_by_name(triton: LiveTriton, extra: str, reason: str) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        serve(triton, SOFTMAX, "refused", max_batch_size=4, extra=extra)
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert reason in str(refusal.value.message())


@pytest.mark.parametrize(
    "extra",
    [
        parameter("execution_mode", "1") + parameter("inter_op_thread_count", "2"),
        parameter("enable_mem_arena", "0") + parameter("enable_mem_pattern", "false"),
        parameter("memory.enable_memory_arena_shrinkage", "cpu:0"),
        parameter("session.disable_prepacking", "1"),
        *(f"optimization {{ graph {{ level: {level} }} }}\n" for level in (-1, 1, 2)),
    ],
    ids=lambda value: re.sub(r"\W+", "_", value)[:40],
)
def test_a_model_answers_the_same_under_each_setting(triton: LiveTriton, tmp_path: Path, extra: str) -> None:
    one = graph("convolution")
    serve(triton, one, "settings", max_batch_size=4, extra=extra)
    found = ask(triton, "settings", one.inputs, ["y"])
    np.testing.assert_allclose(found["y"], expected(one, one.inputs, tmp_path)["y"], rtol=1e-5)


def test_the_number_of_threads_is_the_one_asked_for(make_triton: MakeTriton) -> None:
    server = make_triton()
    threads = {}
    for count in (1, 7):
        serve(server, SOFTMAX, f"threads_{count}", extra=parameter("intra_op_thread_count", str(count)))
        (stub,) = [
            pid
            for pid in processes.stubs(server.process.state.shm_prefix)
            if f"/threads_{count}/" in " ".join(psutil.Process(pid).cmdline())
        ]
        threads[count] = psutil.Process(stub).num_threads()
    assert threads[7] - threads[1] == 6  # the caller's own thread is one of them


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "TYPE_FP32",
            "TYPE_INT64",
            "configuration expects datatype TYPE_INT64 for input 'x', model provides TYPE_FP32",
        ),
        ('name: "x"', 'name: "z"', "unexpected inference input 'z', allowed inputs are: x"),
        ('name: "y"', 'name: "z"', "unexpected inference output 'z', allowed outputs are: y"),
        ("dims: 4", "dims: 5", "the model expects 2 dimensions (shape [-1, 4]) but the model configuration specifies"),
        ("dims: 4", "dims: 4 dims: 1", "configuration specifies 3 dimensions (shape [-1, 4, 1])"),
    ],
)
def test_a_config_that_does_not_fit_the_graph_is_refused(triton: LiveTriton, old: str, new: str, reason: str) -> None:
    text = config_text(SOFTMAX, max_batch_size=4)
    assert old in text
    put(triton, SOFTMAX, "misfit", text.replace(old, new))
    with pytest.raises(InferenceServerException) as refusal:
        load(triton, "misfit")
    assert reason in str(refusal.value.message())


def test_one_input_too_many_or_too_few_is_refused(triton: LiveTriton) -> None:
    more = 'input { name: "more" data_type: TYPE_FP32 dims: [ 1 ] }\n'
    with pytest.raises(InferenceServerException, match="configuration expects 2 inputs, model provides 1"):
        serve(triton, SOFTMAX, "too_many", extra=more)


def test_a_graph_without_a_free_first_dimension_cannot_be_batched(triton: LiveTriton) -> None:
    with pytest.raises(InferenceServerException, match="the first dimension must be -1"):
        serve(triton, graph("fixed_batch_of_four"), "fixed", max_batch_size=4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "unable to find '.*/broken/1/model.onnx' for model instance 'broken'"),
        (b"", "onnx runtime error"),
        (b"not a model", "onnx runtime error 7: .*Protobuf parsing failed"),
    ],
    ids=["missing", "empty", "other bytes"],
)
def test_a_file_that_is_no_model_is_refused_as_such(triton: LiveTriton, content: bytes | None, reason: str) -> None:
    directory = put(triton, SOFTMAX, "broken", config_text(SOFTMAX))
    if content is None:
        (directory / "1" / "model.onnx").unlink()
    else:
        (directory / "1" / "model.onnx").write_bytes(content)
    with pytest.raises(InferenceServerException, match=reason):
        load(triton, "broken")


def test_the_file_may_have_another_name(triton: LiveTriton) -> None:
    directory = put(triton, SOFTMAX, "renamed", config_text(SOFTMAX, extra='default_model_filename: "net.onnx"\n'))
    (directory / "1" / "model.onnx").rename(directory / "1" / "net.onnx")
    load(triton, "renamed")
    assert ask(triton, "renamed", SOFTMAX.inputs, ["y"])["y"].shape == (3, 4)


def test_a_platform_does_for_a_backend(triton: LiveTriton) -> None:
    text = config_text(SOFTMAX).replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"')
    put(triton, SOFTMAX, "by_platform", text)
    load(triton, "by_platform")
    assert ask(triton, "by_platform", SOFTMAX.inputs, ["y"])["y"].shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("no_config", None),
        ("platform_only", 'platform: "onnxruntime_onnx"'),
        ("backend_only", 'backend: "onnxruntime"'),
    ],
)
def test_a_config_is_completed_from_the_graph(
    completing: LiveTriton, tmp_path: Path, name: str, config: str | None
) -> None:
    put(completing, SOFTMAX, name, config)
    load(completing, name)
    found = read_config(completing, name)
    assert found["maxBatchSize"] == 4
    assert "dynamicBatching" in found
    assert found["input"] == [{"name": "x", "dataType": "TYPE_FP32", "dims": ["4"]}]
    assert found["output"] == [{"name": "y", "dataType": "TYPE_FP32", "dims": ["4"]}]
    assert_same(ask(completing, name, SOFTMAX.inputs, ["y"]), expected(SOFTMAX, SOFTMAX.inputs, tmp_path))


@pytest.mark.parametrize("name", ["scalar", "vector_of_rows", "scalar_state", "fixed_batch_of_four", "strings"])
def test_each_shape_of_graph_is_completed_and_served(completing: LiveTriton, tmp_path: Path, name: str) -> None:
    one = graph(name)
    put(completing, one, f"completed_{name}", None)
    load(completing, f"completed_{name}")
    batched = read_config(completing, f"completed_{name}").get("maxBatchSize", 0) > 0
    assert batched == (name in {"vector_of_rows", "strings"})
    shape = rows_as_columns if batched else dict
    wanted = shape(expected(one, one.inputs, tmp_path))
    assert_same(ask(completing, f"completed_{name}", shape(one.inputs), list(wanted)), wanted)


def test_a_config_that_is_complete_is_left_alone(completing: LiveTriton) -> None:
    put(completing, SOFTMAX, "complete", config_text(SOFTMAX))
    load(completing, "complete")
    assert "maxBatchSize" not in read_config(completing, "complete")


def test_completing_does_not_make_a_fixed_graph_batch(completing: LiveTriton) -> None:
    put(completing, graph("fixed_batch_of_four"), "asks_too_much", "max_batch_size: 4")
    with pytest.raises(InferenceServerException, match="model does not support batching while non-zero max_batch_size"):
        load(completing, "asks_too_much")


def test_without_completing_a_config_is_required(triton: LiveTriton) -> None:
    put(triton, SOFTMAX, "bare", None)
    with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
        load(triton, "bare")


def test_a_gpu_is_refused_by_name(triton: LiveTriton) -> None:
    put(triton, SOFTMAX, "on_gpu", config_text(SOFTMAX).replace("KIND_CPU", "KIND_GPU"))
    with pytest.raises(InferenceServerException, match="has kind KIND_GPU but no GPUs are available"):
        load(triton, "on_gpu")


def read_config(server: LiveTriton, name: str) -> dict[str, Any]:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        return json_format.MessageToDict(client.get_model_config(name).config)
