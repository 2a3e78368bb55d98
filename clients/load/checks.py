# Answers compared with what was expected of them, within a tolerance; what differs is counted, the first few are kept.
"""Checking happens in the sending process and costs its time: while an answer is compared, the next ones wait unread. An answer
with the same bytes as one that was found good costs a comparison of memory; another one is decoded and compared number
by number. Without expectations nothing of an answer but its length is kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from clients.inference import InferenceError, Tensor, decode_response
from clients.load.calls import Call

Answers = Mapping[str, Tensor]
"""Arrays by the name of the output; outputs that are not named may hold anything. Of several responses to one request the first
is compared."""

_PREFIX = 5
_KEPT = 5
_TOLERANCES = {2: (1e-2, 1e-3), 4: (1e-4, 1e-5), 8: (1e-7, 1e-7)}
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Floats may differ by `atol + rtol * abs(expected)`; integers, booleans and strings not at all. None takes what the type
    can hold: 1e-2 and 1e-3 for FP16, 1e-4 and 1e-5 for FP32, 1e-7 twice for FP64, for batches of different sizes are summed in
    different orders. BF16 arrives as FP32: give its tolerance, of about 1e-2."""

    rtol: float | None = None
    atol: float | None = None

    def of(self, dtype: np.dtype[np.generic]) -> tuple[float, float]:
        rtol, atol = _TOLERANCES.get(dtype.itemsize, (0.0, 0.0))
        return rtol if self.rtol is None else self.rtol, atol if self.atol is None else self.atol


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """By tag of the message; None is any answer."""

    answers: tuple[Answers | None, ...]
    tolerance: Tolerance = Tolerance()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element that is wrong in one answer, or what is wrong with a whole output: then `index` is None.

    `part` and `request` say which request it was, by the label of its part and its number among the part's steps.
    """

    tag: int
    output: str
    index: tuple[int, ...] | None
    expected: str
    got: str
    part: str = ""
    request: int = 0
    answered: int = 0
    """When, in ns of the monotonic clock."""


class Checker:
    """Counts over a run, in one process."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._good: dict[int, bytes] = {}
        self.checked = 0
        self.differing: Counter[int] = Counter()
        """Answers that differ, by tag."""
        self.kept: list[Difference] = []

    def look(self, call: Call) -> None:
        """At an answer whose body was collected; what failed has none."""
        body, tag = call.body, call.tag
        expected = self._expected.answers[tag]
        if body is None or expected is None or call.status is None or call.status.code:
            return
        self.checked += 1
        good = self._good.get(tag)
        if good is not None and body == good:
            return
        found = compare(tag, expected, bytes(body[_PREFIX:]), self._expected.tolerance)
        if found is None:
            self._good[tag] = bytes(body)
            return
        self.differing[tag] += 1
        if len(self.kept) < _KEPT:
            self.kept.append(replace(found, answered=time.monotonic_ns()))


def compare(tag: int, expected: Answers, body: bytes, tolerance: Tolerance) -> Difference | None:
    """None when the answer is as expected."""
    try:
        outputs = decode_response(body).outputs
    except (InferenceError, DecodeError, IndexError) as error:
        return Difference(tag, "", None, "an answer", f"{error}"[:_LONGEST])
    for name, wanted in expected.items():
        if name not in outputs:
            return Difference(tag, name, None, _described(wanted), f"outputs {', '.join(sorted(outputs)) or 'none'}")
        got = outputs[name]
        if got.shape != wanted.shape or _family(got) != _family(wanted):
            return Difference(tag, name, None, _described(wanted), _described(got))
        wrong = _wrong(wanted, got, tolerance)
        if wrong.any():
            index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            return Difference(
                tag, name, tuple(int(n) for n in index), _shown(_texts(wanted)[index]), _shown(_texts(got)[index])
            )
    return None


def _wrong(wanted: Tensor, got: Tensor, tolerance: Tolerance) -> NDArray[np.bool_]:
    if _family(wanted) != "float":
        return np.asarray(_texts(wanted) != _texts(got), np.bool_).reshape(wanted.shape)
    rtol, atol = tolerance.of(min(wanted.dtype, got.dtype, key=lambda dtype: dtype.itemsize))
    if rtol == 0 and atol == 0:
        same = (wanted == got) | (np.isnan(wanted.astype(float)) & np.isnan(got.astype(float)))
        return np.asarray(~same)
    near = np.isclose(got.astype(np.float64), wanted.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True)
    return np.asarray(~near)


def _texts(array: Tensor) -> Tensor:
    """Strings as bytes, as they arrive; other arrays as they are."""
    if array.dtype.kind not in "OSU":
        return array
    found = np.empty(array.shape, np.object_)
    found.ravel()[:] = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return found


def _family(array: Tensor) -> str:
    kind = array.dtype.kind
    return {"f": "float", "i": "integer", "u": "integer", "b": "boolean"}.get(
        kind, "strings" if kind in "OSU" else kind
    )


def _described(array: Tensor) -> str:
    return f"{_family(array)} of shape {list(array.shape)}"


def _shown(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)[:_LONGEST]
