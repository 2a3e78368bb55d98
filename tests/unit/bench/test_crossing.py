# The rate at which a bound breaks: on simulated servers whose capacity is known, with stalls, and where it cannot be told.
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clients.load.schedule import Curve, arrivals
from controlplane.bench.crossing import Crossing, Where, crossing
from tests.unit.bench.queues import Stalls, Times, in_batches, one_by_one

Server = Callable[[Times, int, Stalls], Times]
LOWEST, HIGHEST = 0.2, 1.8
SEEDS = 60


def steady(seconds: float) -> Server:
    return lambda due, _seed, stalls: one_by_one(due, np.full(len(due), seconds), stalls=stalls)


def varied(seconds: float, instances: int) -> Server:
    def serve(due: Times, seed: int, stalls: Stalls) -> Times:
        drawn = np.random.default_rng(seed + 1_000_000).lognormal(-0.125, 0.5, len(due))
        return one_by_one(due, seconds * drawn, instances=instances, stalls=stalls)

    return serve


def batching(due: Times, _seed: int, stalls: Stalls) -> Times:
    return in_batches(due, fixed=0.002, each=0.0005, most=16, stalls=stalls)


SERVERS: dict[str, tuple[Server, float, float]] = {
    "one instance, 1 ms": (steady(0.001), 1000, 0.010),
    "one instance, 5 ms": (steady(0.005), 200, 0.050),
    "two instances, about 5 ms": (varied(0.005, 2), 400, 0.040),
    "batches of 16": (batching, 1600, 0.020),
}
"""What serves, what it does at the most in requests a second, and the bound in seconds."""


def seen(
    server: Server,
    capacity: float,
    bound: float,
    *,
    seconds: float,
    seed: int,
    stall: float = 0.0,
    high: float = HIGHEST,
) -> Crossing:
    low, top = LOWEST * capacity, high * capacity
    due = arrivals(Curve.ramp(low, top, seconds), seconds, process="poisson", seed=seed) / 1e9
    begin = np.random.default_rng(seed).uniform(0, seconds)
    answered = server(due, seed, ((begin, begin + stall),) if stall else ())
    slope = (top - low) / seconds
    return crossing(low + slope * due, answered - due > bound, allowed=0.01, slope=slope, bound=bound)


def spread(name: str, *, seconds: float, stall: float = 0.0) -> tuple[float, float, int]:
    """Mean, as a share of the capacity; standard deviation, as a share of the mean; and how many were not told."""
    server, capacity, bound = SERVERS[name]
    found = [seen(server, capacity, bound, seconds=seconds, seed=seed, stall=stall) for seed in range(SEEDS)]
    rates = np.array([one.rate for one in found if one.rate is not None]) / capacity
    return float(rates.mean()), float(rates.std() / rates.mean()), SEEDS - len(rates)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_the_figure_lies_near_what_the_server_does_at_the_most(name: str, seconds: float) -> None:
    mean, deviation, untold = spread(name, seconds=seconds)
    assert 0.8 < mean < 1.1
    assert deviation < (0.16 if seconds < 2 else 0.12)
    assert untold <= 3


@pytest.mark.parametrize("name", SERVERS)
def test_blocks_of_different_length_agree(name: str) -> None:
    assert spread(name, seconds=1.0)[0] == pytest.approx(spread(name, seconds=8.0)[0], rel=0.08)


@pytest.mark.parametrize("name", SERVERS)
def test_a_single_stall_does_not_decide(name: str) -> None:
    calm, stalled = spread(name, seconds=4.0), spread(name, seconds=4.0, stall=0.05)
    assert stalled[0] == pytest.approx(calm[0], rel=0.06)
    assert stalled[1] < 0.15


def test_twice_the_capacity_is_seen_as_twice_the_rate() -> None:
    one, other = (
        np.mean([seen(steady(each), 1 / each, 0.02, seconds=2.0, seed=seed).rate or np.nan for seed in range(SEEDS)])
        for each in (0.002, 0.001)
    )
    assert other / one == pytest.approx(2.0, rel=0.1)


def test_a_bound_that_holds_to_the_end_is_said_to_lie_above() -> None:
    found = seen(steady(0.001), 1000, 0.010, seconds=2.0, seed=1, high=0.6)
    assert (found.where, found.rate) == (Where.ABOVE, None)


def test_a_stall_at_the_very_end_is_no_crossing() -> None:
    late = np.zeros(1000, bool)
    late[-8:] = True
    found = crossing(np.linspace(100, 200, 1000), late, allowed=0.01, slope=100, bound=0.01)
    assert found == Crossing(Where.ABOVE, None, 992)


def test_a_bound_that_never_holds_is_said_to_lie_below() -> None:
    found = seen(steady(0.020), 50, 0.010, seconds=4.0, seed=1)
    assert (found.where, found.rate) == (Where.BELOW, None)


def test_no_answers_tell_nothing() -> None:
    found = crossing(np.zeros(0), np.zeros(0, bool), allowed=0.01, slope=10, bound=0.01)
    assert (found.where, found.rate) == (Where.ABOVE, None)


def test_the_fit_is_that_of_isotonic_regression() -> None:
    """Pool adjacent violators, done the plain way."""
    random = np.random.default_rng(5)
    for _ in range(200):
        late = random.random(60) < np.linspace(0, 1, 60)
        blocks: list[list[float]] = []
        for one in late:
            blocks.append([float(one), 1.0])
            while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
                total, count = blocks.pop()
                blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
        fit = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
        found = crossing(np.arange(60.0), late, allowed=0.01, slope=1.0, bound=0.0)
        if found.where is Where.WITHIN:
            assert found.place == int(np.argmax(fit > 0.01 + 0.25 * 0.99))
