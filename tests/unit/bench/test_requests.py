# What is sent to a candidate: rows of the recorded inferences in a circle, whatever the shapes.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients.inference import TensorSpec
from clients.load.server import ModelFacts
from clients.load.traffic import Traffic
from controlplane.bench import requests
from controlplane.bench.requests import traffic
from controlplane.domain.golden import GoldenCase, strings
from controlplane.domain.sweep_rounds import Requests
from controlplane.domain.tensors import Tensors
from controlplane.errors import InvalidInput

BATCHED = ModelFacts((TensorSpec("x", "FP32", (-1, 2)),), (), (1,), most_rows=4, decoupled=False, sequences=None)
WHOLE = replace(BATCHED, most_rows=0)
ASKED = Requests("sha256:" + "0" * 64)


def case(inputs: Tensors) -> GoldenCase:
    rows = [len(array) if array.ndim else 1 for array in inputs.values()]
    return GoldenCase(inputs, {"y": np.zeros((rows[0], 1), np.float32)})


def rows(*numbers: int, width: int = 2) -> GoldenCase:
    return case({"x": np.array([[number] * width for number in numbers], np.float32)})


def sent(found: Traffic) -> list[list[float]]:
    """The first column of each request's rows."""
    parsed = [service_pb2.ModelInferRequest.FromString(message[5:]) for message in found.parts[0].messages]
    return [
        np.frombuffer(one.raw_input_contents[0], np.float32).reshape(tuple(one.inputs[0].shape))[:, 0].tolist()
        for one in parsed
    ]


def test_each_row_is_a_request() -> None:
    assert sent(traffic([rows(1, 2), rows(3)], ASKED, BATCHED, "m", 1)) == [[1], [2], [3]]


def test_requests_of_several_rows_go_round_until_each_row_began_one() -> None:
    found = traffic([rows(1, 2), rows(3)], replace(ASKED, rows=2), BATCHED, "m", 1)
    assert sent(found) == [[1, 2], [3, 1], [2, 3]]


def test_few_rows_are_repeated_within_a_request() -> None:
    assert sent(traffic([rows(1)], replace(ASKED, rows=4), BATCHED, "m", 1)) == [[1, 1, 1, 1]]


def test_rows_of_other_shapes_are_not_joined() -> None:
    found = traffic([rows(1), rows(2, width=3), rows(3)], replace(ASKED, rows=2), BATCHED, "m", 1)
    assert sent(found) == [[1, 3], [2, 2]]


def test_rows_of_single_values_travel_as_a_column() -> None:
    served = replace(BATCHED, inputs=(TensorSpec("x", "FP32", (-1, 1)),))
    (message, *_) = traffic([case({"x": np.array([5, 6], np.float32)})], ASKED, served, "m", 1).parts[0].messages
    assert list(service_pb2.ModelInferRequest.FromString(message[5:]).inputs[0].shape) == [1, 1]


def test_a_scalar_travels_as_the_one_value_of_a_vector() -> None:
    served = replace(WHOLE, inputs=(TensorSpec("x", "FP32", (1,)),))
    (message,) = traffic([case({"x": np.array(5, np.float32)})], ASKED, served, "m", 1).parts[0].messages
    assert list(service_pb2.ModelInferRequest.FromString(message[5:]).inputs[0].shape) == [1]


def test_without_a_batch_dimension_cases_are_sent_as_they_were_recorded() -> None:
    assert sent(traffic([rows(1, 2), rows(3)], replace(ASKED, rows=8), WHOLE, "m", 1)) == [[1, 2], [3]]


def test_tensors_that_have_no_rows_in_common_are_sent_as_they_were_recorded() -> None:
    odd = case({"x": np.ones((2, 2), np.float32), "step": np.array(3, np.int64)})
    (message,) = traffic([odd], ASKED, BATCHED, "m", 1).parts[0].messages
    parsed = service_pb2.ModelInferRequest.FromString(message[5:])
    assert {one.name: list(one.shape) for one in parsed.inputs} == {"x": [2, 2], "step": []}


def test_strings_are_sent() -> None:
    (message,) = traffic([case({"x": strings([b"one", b""], (1, 2))})], ASKED, BATCHED, "m", 1).parts[0].messages
    parsed = service_pb2.ModelInferRequest.FromString(message[5:])
    assert (parsed.inputs[0].datatype, parsed.raw_input_contents[0]) == ("BYTES", b"\3\0\0\0one\0\0\0\0")


def test_a_sequence_is_one_request_with_an_id_of_its_own() -> None:
    found = traffic([rows(1), rows(2)], replace(ASKED, sequences=True), replace(BATCHED, sequences="int32"), "m", 1)
    (part,) = found.parts
    assert (part.lengths, part.ids, found.live) == ((1, 1), "int32", 256)


def test_no_more_different_requests_are_made_than_travel_well(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [rows(*range(500))]
    assert len(sent(traffic(many, ASKED, BATCHED, "m", 1))) == requests.MOST
    monkeypatch.setattr(requests, "MOST_BYTES", 40)
    assert len(sent(traffic(many, ASKED, BATCHED, "m", 1))) == 1


def test_more_rows_than_a_batch_may_have_are_refused() -> None:
    with pytest.raises(InvalidInput, match="requests of 5 rows are more than its max_batch_size, 4"):
        traffic([rows(1)], replace(ASKED, rows=5), BATCHED, "m", 1)


def test_nothing_recorded_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nothing is recorded"):
        traffic([], ASKED, BATCHED, "m", 1)
