# The highest rate at which limits hold, on servers whose truth is a formula.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.load.measure import Latency, Measurement
from clients.load.processes import NOTHING
from clients.load.search import highest_rate, holds
from clients.load.statistics import Interval


def measured(low: float, high: float, verdict: str = "valid") -> Measurement:
    p99 = {99.0: Interval((low + high) / 2, low, high)}
    rate = Interval(1.0, 1.0, 1.0)
    return Measurement(verdict, (), 1.0, 459, 459, 459, {}, {}, 0, 0.0, rate, Latency(p99, p99), 0.0, 0, NOTHING)


def queue(capacity: float, spread: float = 0.02) -> object:
    """A server whose p99 grows as 1 / (capacity - rate), known to that share."""

    def at(rate: float) -> Measurement:
        seconds = 1 / (capacity - rate) if rate < capacity else np.inf
        return measured(seconds * (1 - spread), seconds * (1 + spread))

    return at


def test_a_limit_holds_or_does_not_or_cannot_be_told() -> None:
    limits = [(99.0, 0.010)]
    assert holds(measured(0.008, 0.009), limits) is True
    assert holds(measured(0.011, 0.012), limits) is False
    assert holds(measured(0.009, 0.011), limits) is None
    assert holds(measured(0.001, 0.002, "client_limited"), limits) is None
    assert holds(measured(0.001, 0.002, "errors"), limits) is False
    assert holds(replace(measured(0.001, 0.002), completed=458), limits) is None
    assert holds(replace(measured(0.011, 0.012), completed=458), limits) is False
    assert holds(replace(measured(0, 0), latency=Latency({}, {})), []) is True


@pytest.mark.parametrize("capacity", [150.0, 777.0, 3000.0])
def test_the_highest_rate_is_found_to_the_precision_asked_for_and_never_over(capacity: float) -> None:
    good, bad, done = highest_rate(queue(capacity), [(99.0, 0.010)], low=10, high=10_000, within=0.03)  # type: ignore[arg-type]
    truth = capacity - 100 * 1.02
    assert good <= truth < bad
    assert bad / good <= 1.03
    assert len(done) < 20


def test_a_server_that_is_never_or_always_good_enough_ends_the_search() -> None:
    assert highest_rate(queue(50), [(99.0, 0.010)], low=10, high=100)[:2] == (0.0, 10)  # type: ignore[arg-type]
    assert highest_rate(queue(1e9), [(99.0, 0.010)], low=10, high=100)[:2] == (100, float("inf"))  # type: ignore[arg-type]
