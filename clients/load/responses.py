# Several responses to one request, as decoupled models give: what is recorded of each, and what is shown of all.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clients.load.calls import Call
from clients.load.statistics import Interval, percentile

WIDTH = 7
"""Columns of a row: when the request was due and sent, when the response before came (for the first: when the request was sent),
when this one came, its number from 0, and how the request ended: its status code and when."""
_DUE, _SENT, _BEFORE, _AT, _NUMBER, _STATUS, _ENDED = range(WIDTH)
_OF_CALL_DUE, _OF_CALL_ANSWERED, _OF_CALL_STATUS = 0, 2, 3  # columns of the calls' own records
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heard:
    """A block of rows on its way between processes."""

    data: bytes

    @property
    def rows(self) -> Rows:
        return np.frombuffer(self.data, np.int64).reshape(-1, WIDTH)


@dataclass(frozen=True, slots=True, eq=False)
class Streaming:
    """Of the requests that count and did not fail: how many responses they had, and when these came, in seconds by percentile:
    the first from when the request was due and from when it was sent, each further one after the one before. An empty last
    response is none."""

    responses: int
    fewest: int
    mean: float
    most: int
    first_scheduled: dict[float, Interval]
    first_sent: dict[float, Interval]
    between: dict[float, Interval]
    rows: Rows = field(repr=False)
    """Of all requests, those of the warm-up and those that failed too."""


def rows_of(call: Call, ended: int) -> Iterator[int]:
    """What is recorded of a call that has ended."""
    before, status = call.sent, call.status
    assert status is not None
    for number, at in enumerate(call.times or ()):
        yield from (call.scheduled, call.sent, before, at, number, status.code, ended)
        before = at


def summarize_responses(blocks: Sequence[Rows], window: Rows, watched: float) -> Streaming:
    """`window` are the records of the requests that count, by the time of their end."""
    rows = np.concatenate([*blocks, np.zeros((0, WIDTH), np.int64)])
    good = window[window[:, _OF_CALL_STATUS] == 0]
    # A window is all that was due after the warm-up and ended after a moment, so its first of each tell what lies in it.
    due, ended = (int(window[:, column].min()) if len(window) else 0 for column in (_OF_CALL_DUE, _OF_CALL_ANSWERED))
    counted = rows[(rows[:, _DUE] >= due) & (rows[:, _ENDED] >= ended) & (rows[:, _STATUS] == 0)]
    counted = counted[np.argsort(counted[:, _AT], kind="stable")]
    first, later = counted[counted[:, _NUMBER] == 0], counted[counted[:, _NUMBER] > 0]
    reached = np.bincount(counted[:, _NUMBER])  # how many requests had more than 0, 1, 2 ... responses
    percents = sorted({*PERCENTILES, watched})

    def shown(seconds: NDArray[np.float64]) -> dict[float, Interval]:
        return {p: percentile(seconds, p) for p in percents}

    return Streaming(
        responses=len(counted),
        fewest=int((reached == len(good)).sum()) if len(good) else 0,
        mean=len(counted) / len(good) if len(good) else 0.0,
        most=len(reached),
        first_scheduled=shown((first[:, _AT] - first[:, _DUE]) / 1e9),
        first_sent=shown((first[:, _AT] - first[:, _SENT]) / 1e9),
        between=shown((later[:, _AT] - later[:, _BEFORE]) / 1e9),
        rows=rows,
    )
