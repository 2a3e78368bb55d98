# The onnxruntime backend answers a bad request with an error of its own and never hurts the others or the server.
from __future__ import annotations

import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from controlplane.triton.probe_counts import counted_probes
from controlplane.triton.runtime.launch import PROBES
from tests.live.onnx_graphs import Graph, graph, parse
from tests.live.runtime.models import ask, ask_together, serve
from tests.live.servers import LiveTriton

# A row that looks up a place beyond the table's four fails; the others are answered.
LOOKUP = Graph(
    "lookup",
    parse(
        "g (int64[n,1] x) => (float[n,1] y) { t = Constant<value = float[4] {0.0, 10.0, 20.0, 30.0}>() y = Gather(t, x) }"
    ),
    {"x": np.array([[0], [3], [1]], dtype=np.int64)},
    batchable=True,
)
TEN = "dynamic_batching { preferred_batch_size: 10 max_queue_delay_microseconds: 20000000 }\n"


def place(number: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {"x": np.array([[number]], dtype=np.int64)}


def test_one_bad_request_of_ten_does_not_hurt_the_other_nine(triton: LiveTriton) -> None:
    serve(triton, LOOKUP, "one_of_ten", max_batch_size=10, extra=TEN)
    answers = ask_together(triton, "one_of_ten", [place(99 if n == 6 else n % 4) for n in range(10)], ["y"])
    for n, answer in enumerate(answers):
        if n == 6:
            assert isinstance(answer, InferenceServerException)
            assert answer.status() == "StatusCode.INTERNAL"
            assert "onnx runtime error 2: Non-zero status code returned while running Gather node" in str(
                answer.message()
            )
        else:
            assert not isinstance(answer, Exception)
            assert answer["y"].tolist() == [[10.0 * (n % 4)]]


def test_text_that_is_not_utf_8_is_refused_and_its_batch_mates_are_answered(triton: LiveTriton) -> None:
    two = TEN.replace("10", "2", 1)
    serve(triton, graph("strings"), "not_text", max_batch_size=2, extra=two)
    requests = [{"x": np.array([[text, b"ok"]], dtype=np.object_)} for text in (b"\xff\xfe", "gr\u00fcn".encode())]
    bad, good = ask_together(triton, "not_text", requests, ["y"])
    assert isinstance(bad, InferenceServerException)
    assert bad.status() == "StatusCode.INVALID_ARGUMENT"
    assert str(bad.message()) == "input 'x': this backend takes only UTF-8 strings"
    assert not isinstance(good, Exception)
    assert good["y"].tolist() == [["gr\u00fcn".encode(), b"ok"]]


def test_a_graph_that_does_not_give_a_row_for_a_row_is_an_error_and_no_wrong_answer(triton: LiveTriton) -> None:
    one = graph("total_of_rows")
    body = "g (float[n,2] x) => (float[m,2] y) { c = Constant<value = bool[1] {1}>() y = Compress<axis = 0>(x, c) }"
    model = parse(body)
    serve(triton, one._replace(model=model), "rows_lost", max_batch_size=8)
    with pytest.raises(InferenceServerException, match=r"output 'y' has shape \[1, 2\] for a batch of 3"):
        ask(triton, "rows_lost", one.inputs, ["y"])
    assert ask(triton, "rows_lost", {"x": one.inputs["x"][:1]}, ["y"])["y"].shape == (1, 2)


def test_a_model_with_failed_requests_behind_it_unloads(triton: LiveTriton) -> None:
    serve(triton, LOOKUP, "unloads", max_batch_size=10, instances=2, extra="dynamic_batching { }\n")
    for _ in range(20):
        answers = ask_together(triton, "unloads", [place(99 if n % 10 == 3 else n % 4) for n in range(50)], ["y"])
        assert sum(isinstance(answer, Exception) for answer in answers) == 5
    with grpcclient.InferenceServerClient(triton.grpc) as client:
        client.unload_model("unloads", headers=triton.headers)
        end = time.monotonic() + 90
        while _state(client, triton, "unloads") != "UNAVAILABLE":
            assert time.monotonic() < end
            time.sleep(0.1)


def _state(client: grpcclient.InferenceServerClient, server: LiveTriton, name: str) -> str:
    index = client.get_model_repository_index(headers=server.headers).models
    return next(str(model.state) for model in index if model.name == name)


def test_probes_are_counted_for_every_instance_and_other_requests_are_not(triton: LiveTriton) -> None:
    one = graph("softmax")
    serve(triton, one, "probed", max_batch_size=4, instances=3)
    for n in range(6):
        ask(triton, "probed", one.inputs, ["y"], request_id=f"ordinary/{n}")
    assert counted_probes(triton.home / PROBES, "probed", 1) is None
    sent = 0
    while len(found := counted_probes(triton.home / PROBES, "probed", 1) or {}) < 3:
        assert sent < 300
        ask(triton, "probed", one.inputs, ["y"], request_id=f"probe/{sent}")
        sent += 1
    assert {instance.partition(":")[0] for instance in found} == {"probed_0_0", "probed_0_1", "probed_0_2"}
    assert sum(found.values()) == sent


def test_a_probe_that_fails_is_an_error_and_no_probe(triton: LiveTriton) -> None:
    serve(triton, LOOKUP, "probe_fails", max_batch_size=4)
    with pytest.raises(InferenceServerException, match="Gather node"):
        ask(triton, "probe_fails", place(99), ["y"], request_id="probe/1")
    assert counted_probes(triton.home / PROBES, "probe_fails", 1) is None
