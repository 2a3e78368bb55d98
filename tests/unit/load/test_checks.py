# Answers compared with what was expected: what is near enough, what differs, and where.
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from clients.inference import Tensor, decode_response
from clients.load.calls import Call
from clients.load.checks import Checker, Difference, Expected, Tolerance, compare
from clients.load.grpc_status import SUCCESS, UNAVAILABLE, Status

TYPES = {"f2": "FP16", "f4": "FP32", "f8": "FP64", "i8": "INT64", "u1": "UINT8", "b1": "BOOL"}


def answer(**outputs: Tensor) -> bytes:
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    for name, array in outputs.items():
        if array.dtype.kind in "OSU":
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in array.ravel().tolist())
            response.outputs.add(name=name, datatype="BYTES", shape=array.shape)
        else:
            raw = array.tobytes()
            response.outputs.add(name=name, datatype=TYPES[array.dtype.str[1:]], shape=array.shape)
        response.raw_output_contents.append(raw)
    return bytes(response.SerializeToString())


def floats(*values: float, dtype: str = "f4") -> Tensor:
    return np.array(values, dtype)


def differs(expected: Tensor, got: Tensor, **tolerance: Any) -> tuple[Any, ...] | None:
    found = compare(0, {"Y": expected}, answer(Y=got), Tolerance(**tolerance))
    return None if found is None else (found.index, found.expected, found.got)


@pytest.mark.parametrize(
    ("dtype", "off", "far"),
    [("f2", 5e-3, 5e-2), ("f4", 5e-5, 5e-4), ("f8", 5e-8, 5e-7)],
)
def test_floats_are_near_enough_by_what_their_type_can_hold(dtype: str, off: float, far: float) -> None:
    assert differs(floats(10, 20, dtype=dtype), floats(10, 20 * (1 + off), dtype=dtype)) is None
    found = differs(floats(10, 20, dtype=dtype), floats(10, 20 * (1 + far), dtype=dtype))
    assert found is not None
    assert found[0] == (1,)


def test_a_tolerance_that_is_given_counts() -> None:
    assert differs(floats(1, 2), floats(1, 2.3), rtol=0.2, atol=0) is None
    assert differs(floats(1, 2), floats(1, 2.4), rtol=0, atol=0.5) is None
    assert differs(floats(1, 2), floats(1, 2.5), rtol=0, atol=0.25) == ((1,), "2.0", "2.5")
    assert differs(floats(1, 2), floats(1, np.nextafter(np.float32(2), np.float32(3))), rtol=0, atol=0) is not None
    assert differs(floats(np.nan, np.inf), floats(np.nan, np.inf), rtol=0, atol=0) is None


def test_what_is_no_number_equals_only_itself() -> None:
    odd = floats(np.nan, np.inf, -np.inf)
    assert differs(odd, odd) is None
    assert differs(odd, floats(np.nan, np.inf, np.inf)) == ((2,), "-inf", "inf")
    assert differs(odd, floats(0, np.inf, -np.inf)) == ((0,), "nan", "0.0")


def test_integers_booleans_and_strings_are_exact_whatever_the_tolerance() -> None:
    near = {"rtol": 1.0, "atol": 10.0}
    large = np.array([[2**62, 2**62 + 1]], "i8")
    assert differs(large, large, **near) is None
    assert differs(large, large + np.array([[0, 1]]), **near) == ((0, 1), str(2**62 + 1), str(2**62 + 2))
    assert differs(np.array([True]), np.array([False]), **near) == ((0,), "True", "False")
    words = np.array([b"one", b"two"], object)
    assert differs(np.array(["one", "two"]), words, **near) is None
    assert differs(np.array([b"one", b"tow"]), words, **near) == ((1,), "b'tow'", "b'two'")


def test_shapes_kinds_and_missing_outputs_are_told() -> None:
    assert differs(floats(1, 2), floats(1, 2, 3)) == (None, "float of shape [2]", "float of shape [3]")
    assert differs(floats(1), np.array([1], "i8")) == (None, "float of shape [1]", "integer of shape [1]")
    found = compare(3, {"Z": floats(1)}, answer(Y=floats(1)), Tolerance())
    assert found == Difference(3, "Z", None, "float of shape [1]", "outputs Y")
    assert compare(3, {"Y": floats(1)}, answer(Y=floats(1), more=floats(2)), Tolerance()) is None


def test_an_answer_that_is_none_is_a_difference_and_no_crash() -> None:
    for body in (b"\xff" * 9, answer(Y=floats(1))[:-1], b"\x32\xff\xff"):
        found = compare(0, {"Y": floats(1)}, body, Tolerance())
        assert found is not None
        assert found.expected in ("an answer", "float of shape [1]")


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_whatever_bytes_come_are_a_difference_or_the_answer(noise: bytes, at: int, end: int) -> None:
    good = answer(Y=floats(1, 2), W=np.array([b"one", b"two"], object))
    expected = {"Y": floats(1, 2), "W": np.array(["one", "two"])}
    body = good[:at] + noise + good[end:]
    found = compare(0, expected, body, Tolerance())
    assert found is not None or decode_response(body).outputs["Y"].tolist() == [1, 2]


def test_a_checker_counts_by_request_and_keeps_the_first_few() -> None:
    expected = Expected(({"Y": floats(1)}, {"Y": floats(2)}, None))
    checker = Checker(expected)

    def ended(tag: int, value: float, status: Status = SUCCESS) -> Call:
        body = answer(Y=floats(value))
        return Call(tag, 0, 0, b"", status=status, body=bytearray(bytes(5) + body))

    for call in [ended(0, 1), ended(0, 1), ended(1, 2), ended(2, 9), ended(1, 9, Status(UNAVAILABLE))]:
        checker.look(call)
    assert (checker.checked, dict(checker.differing), checker.kept) == (3, {}, [])
    checker.look(Call(0, 0, 0, b"", status=SUCCESS))
    assert checker.checked == 3, "an answer without a body was not wanted"
    for number in range(10):
        checker.look(ended(1, 10 + number))
    assert (checker.checked, dict(checker.differing)) == (13, {1: 10})
    assert [found.got for found in checker.kept] == ["10.0", "11.0", "12.0", "13.0", "14.0"]
    assert replace(checker.kept[0], answered=0) == Difference(1, "Y", (0,), "2.0", "10.0")


def test_an_answer_after_a_wrong_one_is_right_again() -> None:
    checker = Checker(Expected(({"Y": floats(1)},)))
    for value in (1, 5, 1, 1 + 1e-6, 1):
        checker.look(Call(0, 0, 0, b"", status=SUCCESS, body=bytearray(bytes(5) + answer(Y=floats(value)))))
    assert (checker.checked, dict(checker.differing)) == (5, {0: 1})
