# What may be said of a measurement: whose fault lateness is, and which verdict is the gravest.
from __future__ import annotations

import math

import numpy as np
import pytest

from clients.load.processes import Records
from clients.load.statistics import Interval
from clients.load.verdicts import Lateness, Limits, broken, judged, lateness, sendable

MS = 1_000_000
SURE = Interval(100.0, 99.0, 101.0)
UNSURE = Interval(100.0, 50.0, 150.0)
UNKNOWN = Interval(100.0, 50.0, math.inf)


def calls(*times: tuple[float, float, float]) -> Records:
    """Of (due, sent, answered) in ms."""
    return np.array([(due * MS, sent * MS, answered * MS, 0, 0) for due, sent, answered in times]).astype(np.int64)


def test_load_acceptance_4_waiting_for_a_place_in_flight_is_not_the_clients_lateness() -> None:
    """Two places: the third call could be sent at 10 ms and was at 10.5, the fourth at 12 and was at 20; the last was late by
    itself."""
    records = calls((0, 0, 10), (1, 1, 12), (2, 10.5, 30), (3, 20, 40), (100, 105, 106))
    moments = sendable(records, places=2)
    assert (moments / MS).tolist() == [0, 1, 10, 12, 100]
    found = lateness(records, moments, places=2)
    assert (found.late, found.held, found.places) == (3, 2, 2)
    assert found.own_p99 == pytest.approx(0.008, rel=0.05)


def test_nothing_that_was_sent_is_not_late() -> None:
    assert lateness(calls()[:0].reshape(0, 5), np.zeros(0, np.int64), places=3) == Lateness(places=3)


@pytest.mark.parametrize(
    ("completed", "sent", "watched", "late", "ceiling", "verdict"),
    [
        (1000, 1000, SURE, Lateness(), math.inf, "valid"),
        (999, 1000, SURE, Lateness(own_p99=1), 1, "errors"),
        (1000, 1000, UNSURE, Lateness(own_p99=0.0011), math.inf, "client_limited"),
        (1000, 1000, SURE, Lateness(), 124.0, "client_limited"),
        (1000, 1000, SURE, Lateness(), 126.0, "valid"),
        (458, 458, SURE, Lateness(), math.inf, "too_few_samples"),
        (459, 459, SURE, Lateness(), math.inf, "valid"),
        (1000, 1000, UNKNOWN, Lateness(), math.inf, "too_few_samples"),
        (1000, 1000, UNSURE, Lateness(), math.inf, "unstable"),
        (0, 0, UNKNOWN, Lateness(), math.inf, "too_few_samples"),
    ],
)
def test_load_acceptance_4_and_5_the_gravest_verdict_wins(  # noqa: PLR0917  # of the parametrization
    completed: int, sent: int, watched: Interval, late: Lateness, ceiling: float, verdict: str
) -> None:
    """A p99 below 459 samples is refused; lateness and a rate near the ceiling are the client's."""
    found, reasons = judged(completed, sent, SURE, watched, Limits(), late=late, ceiling=ceiling, differing="")
    assert found == verdict
    assert bool(reasons) == (verdict != "valid")


def test_calls_that_waited_for_a_place_are_named_whatever_the_verdict() -> None:
    late = Lateness(late=5, held=4, places=1000)
    _, reasons = judged(1000, 1000, SURE, SURE, Limits(), late=late, ceiling=math.inf, differing="")
    assert reasons == ("4 calls waited because 1,000 were in flight: the server does not keep up with the rate",)


def test_answers_that_differ_are_errors() -> None:
    verdict, reasons = judged(
        1000, 1000, SURE, SURE, Limits(), late=Lateness(), ceiling=math.inf, differing="2 answers differ"
    )
    assert (verdict, reasons) == ("errors", ("2 answers differ",))


def test_a_bound_is_broken_when_the_whole_interval_lies_above_it() -> None:
    latency = {50.0: Interval(1.0, 0.9, 1.1), 99.0: Interval(2.0, 1.5, math.inf)}
    assert not broken([(50.0, 1.0), (99.0, 1.5)], latency)
    assert broken([(50.0, 1.0), (99.0, 1.49)], latency)
