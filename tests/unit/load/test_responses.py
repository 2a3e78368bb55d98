# What is shown of requests with several responses: counts, first and further responses, by requests that count.
from __future__ import annotations

from array import array

import numpy as np
import pytest

from clients.load.calls import Call
from clients.load.grpc_status import INTERNAL, OK, Status
from clients.load.responses import Heard, rows_of, summarize_responses

MS = 1_000_000


def call(due: int, sent: int, *times: int, status: int = OK) -> tuple[list[int], list[int]]:
    """A call's rows and its record, times in ms; it ends a millisecond after its last response."""
    end = (times[-1] if times else sent) + 1
    ended = Call(0, due * MS, sent * MS, b"", status=Status(status), times=array("q", [at * MS for at in times]))
    return list(rows_of(ended, end * MS)), [due * MS, sent * MS, end * MS, status, 0]


def summed(*calls: tuple[list[int], list[int]], window: slice = slice(None)) -> tuple[object, ...]:
    rows = Heard(array("q", [value for some, _ in calls for value in some]).tobytes()).rows
    records = np.array([record for _, record in calls], np.int64).reshape(-1, 5)
    records = records[np.argsort(records[:, 2], kind="stable")][window]
    seen = summarize_responses([rows], records, 99.0)
    medians = (seen.first_scheduled[50.0].value, seen.first_sent[50.0].value, seen.between[50.0].value)
    return (seen.responses, seen.fewest, seen.mean, seen.most, *(round(1000 * seconds, 6) for seconds in medians))


def test_first_responses_count_from_the_request_and_further_ones_from_the_one_before() -> None:
    assert summed(call(0, 2, 12, 15, 19), call(10, 10, 20)) == (4, 1, 2.0, 3, 10, 10, 3)


def test_requests_without_a_response_count_among_the_fewest() -> None:
    assert summed(call(0, 0, 5), call(1, 1))[:4] == (1, 0, 0.5, 1)


def test_what_failed_and_what_was_warm_up_is_not_shown() -> None:
    warm, failed = call(0, 0, 1, 90), call(30, 30, 31, 32, 33, 34, status=INTERNAL)
    assert summed(warm, failed, call(20, 20, 25, 26), window=slice(0, 2))[:4] == (2, 2, 2.0, 2)
    assert summed(call(0, 0, 5, 6), call(10, 10, 15), window=slice(1, None))[:4] == (1, 1, 1.0, 1)


def test_nothing_at_all_is_shown_as_nothing() -> None:
    assert summed()[:4] == (0, 0, 0.0, 0)
    assert summed()[4:] == pytest.approx((np.nan,) * 3, nan_ok=True)
