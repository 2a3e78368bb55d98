# The onnxruntime backend answers as onnxruntime does: every type, shape and name, alone and joined with other requests.
from __future__ import annotations

import queue
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from tests.live.onnx_graphs import Graph, graph, graphs
from tests.live.runtime.models import (
    as_inputs,
    ask,
    ask_together,
    assert_same,
    config_text,
    expected,
    load,
    put,
    rows_as_columns,
    serve,
)
from tests.live.servers import LiveTriton

JOINING = "dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 20000000 }\n"


@pytest.mark.parametrize("one", graphs(), ids=lambda one: one.name)
def test_an_unbatched_model_answers_as_onnxruntime_does(triton: LiveTriton, tmp_path: Path, one: Graph) -> None:
    name = f"unbatched_{one.name}"
    serve(triton, one, name)
    wanted = expected(one, one.inputs, tmp_path)
    assert_same(ask(triton, name, one.inputs, list(wanted)), wanted)


@pytest.mark.parametrize("one", [one for one in graphs() if one.batchable], ids=lambda one: one.name)
def test_a_batched_model_answers_as_onnxruntime_does(triton: LiveTriton, tmp_path: Path, one: Graph) -> None:
    name = f"batched_{one.name}"
    serve(triton, one, name, max_batch_size=8)
    wanted = rows_as_columns(expected(one, one.inputs, tmp_path))
    assert_same(ask(triton, name, rows_as_columns(one.inputs), list(wanted)), wanted)


@pytest.mark.parametrize("name", ["softmax", "several_inputs", "strings", "two_outputs", "dynamic_inner_dims"])
def test_joined_requests_get_the_answers_they_would_get_alone(triton: LiveTriton, tmp_path: Path, name: str) -> None:
    one = graph(name)
    model = f"joined_{name}"
    serve(triton, one, model, max_batch_size=8, extra=JOINING)
    parts = [slice(0, 1), slice(1, 3), slice(0, 3), slice(2, 3), slice(0, 1)]  # eight rows: exactly one execution
    requests = [{key: value[part] for key, value in one.inputs.items()} for part in parts]
    outputs = [output.name for output in one.model.graph.output]
    answers = ask_together(triton, model, requests, outputs)
    for inputs, answer in zip(requests, answers, strict=True):
        assert not isinstance(answer, Exception)
        assert_same(answer, expected(one, inputs, tmp_path))
    assert executions(triton, model, of=5) == 1


def test_requests_that_want_different_outputs_are_joined(triton: LiveTriton, tmp_path: Path) -> None:
    one = graph("two_outputs")
    serve(triton, one, "joined_choosy", max_batch_size=2, extra=JOINING.replace("8", "2"))
    wanted = expected(one, {"x": one.inputs["x"][:1]}, tmp_path)
    answers: queue.Queue[Any] = queue.Queue()
    with grpcclient.InferenceServerClient(triton.grpc) as client:
        for output in ("best", "place"):
            client.async_infer(
                "joined_choosy",
                as_inputs({"x": one.inputs["x"][:1]}),
                lambda result, error, output=output: answers.put((output, result, error)),
                outputs=[grpcclient.InferRequestedOutput(output)],
            )
        found = {}
        for _ in range(2):
            output, result, error = answers.get(timeout=90)
            assert error is None
            assert [tensor.name for tensor in result.get_response().outputs] == [output]
            found[output] = result.as_numpy(output)
    assert_same({key: found[key] for key in wanted}, wanted)


def test_a_string_keeps_its_nul_and_its_emptiness(triton: LiveTriton) -> None:
    serve(triton, graph("strings"), "nul", max_batch_size=4)
    value = np.array([["a\0b", ""]], dtype=np.object_)
    assert ask(triton, "nul", {"x": value}, ["y"])["y"].tolist() == [[b"a\0b", b""]]


def test_an_input_without_elements_is_answered(triton: LiveTriton) -> None:
    serve(triton, graph("dynamic_inner_dims"), "empty_rows")
    answer = ask(triton, "empty_rows", {"x": np.empty((0, 3, 2), dtype=np.float32)}, ["y"])["y"]
    assert answer.shape == (0, 2)


def test_a_default_of_the_graph_can_be_given_another_value(triton: LiveTriton) -> None:
    one = graph("input_with_a_default")
    optional = 'input { name: "w" data_type: TYPE_FP32 dims: [ 4, 3 ] optional: true }\n'
    put(triton, one, "optional_input", config_text(one, extra=optional))
    load(triton, "optional_input")
    x = one.inputs["x"]
    ones = np.ones((4, 3), dtype=np.float32)
    given = ask(triton, "optional_input", {"x": x, "w": ones}, ["y"])["y"]
    np.testing.assert_allclose(given, x @ ones, rtol=1e-6)
    left_out = ask(triton, "optional_input", {"x": x}, ["y"])["y"]
    default = np.frombuffer(one.model.graph.initializer[0].raw_data, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(left_out, x @ default, rtol=1e-6)


def executions(server: LiveTriton, model: str, *, of: int) -> int:
    """How many executions `of` requests took; Triton counts a little after it answers."""
    end = time.monotonic() + 60
    with grpcclient.InferenceServerClient(server.grpc) as client:
        while True:
            statistics = client.get_inference_statistics(model).model_stats[0]
            if statistics.inference_stats.success.count == of:
                return int(statistics.execution_count)
            assert time.monotonic() < end
            time.sleep(0.02)
