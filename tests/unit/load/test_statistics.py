# Intervals that hold what they promise, on simulated servers whose truth is known.
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal, stats

from clients.load.statistics import (
    FEWEST_FOR_P99,
    Samples,
    clusters,
    effective_count,
    fewest,
    mean,
    percentile,
    warm_up,
)

Simulation = Callable[[np.random.Generator, int], Samples]
SEEDS = 100  # five hundred of them, and more servers, are in tests/bench/coverage.py


def independent(random: np.random.Generator, count: int) -> Samples:
    return random.lognormal(0, 0.5, count)


def correlated(random: np.random.Generator, count: int) -> Samples:
    """Lognormal again, but each value hangs on the one before (0.9)."""
    noise = random.standard_normal(count + 500) * np.sqrt(1 - 0.9**2)
    return np.asarray(np.exp(0.5 * signal.lfilter([1], [1, -0.9], noise)[500:]))


def lognormal(share: float) -> float:
    return float(np.exp(0.5 * stats.norm.ppf(share)))


@pytest.mark.parametrize("simulate", [independent, correlated])
@pytest.mark.parametrize("percent", [50.0, 99.0])
def test_load_acceptance_5_intervals_hold_the_truth_as_often_as_they_say(simulate: Simulation, percent: float) -> None:
    held = 0
    for seed in range(SEEDS):
        interval = percentile(simulate(np.random.default_rng(seed), 5000), percent)
        held += interval.low <= lognormal(percent / 100) <= interval.high
    assert held >= 0.92 * SEEDS


def test_load_acceptance_5_a_rates_interval_holds_the_truth_though_its_batches_hang_together() -> None:
    held = 0
    for seed in range(SEEDS):
        noise = np.random.default_rng(seed).standard_normal(248)
        rates = 100 + signal.lfilter([1], [1, -0.5], noise)[200:]
        interval = mean(rates)
        held += interval.low <= 100 <= interval.high
    assert held >= 0.92 * SEEDS


def test_load_acceptance_5_a_p99_needs_459_samples() -> None:
    assert fewest(99) == FEWEST_FOR_P99 == 459
    assert fewest(90) == 44
    assert fewest(99.9) == 4603


def test_a_percentile_is_the_nearest_rank() -> None:
    samples = np.arange(1.0, 101.0)
    assert [percentile(samples, p).value for p in (1, 50, 90, 99, 99.5)] == [1, 50, 90, 99, 100]


def test_few_samples_say_that_they_cannot_tell() -> None:
    assert percentile(np.arange(50.0), 99).high == np.inf
    assert percentile(np.zeros(0), 50).precision != percentile(np.zeros(0), 50).precision  # not a number
    assert mean(np.array([3.0])).high == np.inf


def test_correlation_makes_samples_count_less() -> None:
    random = np.random.default_rng(0)
    counts = []
    for simulate in (independent, correlated):
        values = simulate(random, 20_000)
        counts.append(effective_count((values <= np.median(values)).astype(float), 0.5)[0])
    assert counts[0] > 10_000
    assert counts[1] < 4_000


def places(*where: int) -> NDArray[np.bool_]:
    exceeds = np.zeros(10_000, dtype=bool)
    exceeds[list(where)] = True
    return exceeds


def test_exceedances_in_one_heap_count_as_one_and_lonely_ones_each() -> None:
    lonely = np.random.default_rng(1).integers(0, 10_000, 40)
    assert clusters(places(*lonely.tolist())) > 25
    heaps = [start + k for start in (100, 2500, 5200, 9000) for k in range(10)]
    assert clusters(places(*heaps)) == pytest.approx(4, abs=1)
    assert clusters(places(5, 6)) == 2


@pytest.mark.parametrize("extra", [0.0, 5.0])
def test_a_warm_up_is_found_and_nothing_is_cut_without_one(extra: float) -> None:
    random = np.random.default_rng(2)
    values = 1 + 0.1 * random.standard_normal(4000)
    values[:400] += extra * np.exp(-np.arange(400) / 100)
    cut = warm_up(values)
    assert (200 <= cut <= 1200) if extra else cut < 1200
    assert warm_up(np.ones(7)) == 0


@pytest.mark.parametrize(
    ("begins", "warm"), [(0.05, 0), (0.2, 0), (0.4, 0), (0.49, 0), (0.1, 200), (0.2, 200), (0.38, 200)]
)
def test_load_acceptance_3_a_stall_in_the_first_half_is_not_taken_for_warm_up(begins: float, warm: int) -> None:
    """Ten seconds at 300 a second, of which the server stands still for one."""
    random = np.random.default_rng(1)
    values = random.lognormal(np.log(0.002), 0.3, 3000)
    values[:warm] += 0.1
    stalled = int(begins * 3000)
    values[stalled : stalled + 300] += np.linspace(1, 0, 300)
    cut = warm_up(values)
    assert warm <= cut <= warm + 75  # a fortieth, where two batches look like one
    assert percentile(values[cut:], 99).value > 0.8


def test_load_acceptance_5_what_is_taken_for_warm_up_does_not_take_the_slow_calls_away() -> None:
    """Of a queue at 70 % load, whose busy periods look like warm-up."""
    truth, held, seen = -np.log(0.01) / 0.3, 0, []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        steps = random.exponential(1, 7000) - random.exponential(1 / 0.7, 7000)
        walk = np.cumsum(steps)
        values = (walk - np.minimum.accumulate(np.minimum(walk, 0)) + random.exponential(1, 7000))[5000:]
        interval = percentile(values[warm_up(values) :], 99)
        held += interval.low <= truth <= interval.high
        seen.append(interval.value / percentile(values, 99).value)
    assert held >= 0.92 * SEEDS
    assert np.mean(seen) > 0.98


@pytest.mark.parametrize(("calls", "extra"), [(5, 1.0), (7, 1.0), (100, 0.05), (1000, 0.002), (1000, -0.001)])
def test_a_warm_up_of_any_length_is_found(calls: int, extra: float) -> None:
    values = np.random.default_rng(3).lognormal(np.log(0.002), 0.1, 4000)
    values[:calls] += extra
    assert calls <= warm_up(values) <= calls + 100
