# Candidates that are the same are called so, slower ones worse, on simulated hosts that drift and have bad moments.
from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from clients.load.comparison import Block, Comparison, latency, order, throughput
from clients.load.errors import LoadInputError
from tests.unit.load.candidates import Host, Simulation, correlated, identical, independent, slower

SEEDS = 100  # more of them, more servers and worse hosts are in tests/bench/comparison.py
ROUNDS = 100
CALLS = 1000
SLOWER = 1.1


def figures(a: list[Block], b: list[Block], margin: float) -> dict[str, Comparison]:
    return {
        "throughput": throughput(a, b, margin),
        "p50": latency(a, b, 50.0, margin),
        "p99": latency(a, b, 99.0, margin),
    }


def steady(rates: list[float], times: float = 1.0) -> list[Block]:
    return [Block(rate * times, np.full(500, 1 / rate / times)) for rate in rates]


@pytest.mark.parametrize("simulate", [independent, correlated])
def test_sweep_acceptance_3_identical_candidates_are_not_called_different_and_slower_ones_are_called_worse(
    simulate: Simulation,
) -> None:
    different, worse = Counter[str](), Counter[str]()
    for seed in range(SEEDS):
        a, b = identical(simulate, seed, rounds=ROUNDS, calls=CALLS)
        different.update(name for name, found in figures(a, b, 0).items() if found.outcome != "inconclusive")
        worse.update(name for name, found in figures(a, slower(b, SLOWER), 0.05).items() if found.outcome == "worse")
    assert {name: count for name, count in different.items() if count > 0.1 * SEEDS} == {}
    assert {name for name, count in worse.items() if count >= 0.9 * SEEDS} == {"throughput", "p50", "p99"}


def test_sweep_acceptance_3_what_a_candidate_remembers_over_some_rounds_is_no_difference() -> None:
    """Most of the memory is in the candidates here, which order and pairs do not cancel."""
    host, different = Host(own=0.05, noisy=0), 0
    for seed in range(SEEDS):
        a, b = identical(independent, seed, rounds=2 * ROUNDS, calls=20, host=host)
        different += throughput(a, b, 0).outcome != "inconclusive"
    assert different <= 0.1 * SEEDS


@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_and_its_rival_change_places_and_the_outcome_turns_with_them(seed: int) -> None:
    a, b = identical(independent, seed, rounds=ROUNDS, calls=CALLS)
    there, back = figures(a, slower(b, 1.2), 0.05), figures(slower(b, 1.2), a, 0.05)
    assert {name: (there[name].outcome, back[name].outcome) for name in there} == dict.fromkeys(
        there, ("worse", "better")
    )
    for name in there:
        assert there[name].ratio.low == pytest.approx(1 / back[name].ratio.high)
        assert there[name].ratio.value == pytest.approx(1 / back[name].ratio.value)


@pytest.mark.parametrize(
    ("times", "spread", "margin", "of_rate", "of_latency"),
    [
        (1.1, 0.001, 0.05, "better", "better"),
        (0.9, 0.001, 0.05, "worse", "worse"),
        (1.02, 0.001, 0.05, "no difference shown", "no difference shown"),
        (1.02, 0.001, 0.0, "better", "better"),
        (1.05, 0.05, 0.05, "inconclusive", "inconclusive"),
        (1.1, 0.3, 0.05, "inconclusive", "inconclusive"),
        (1.0, 0.0, 0.0, "no difference shown", "no difference shown"),
    ],
)
def test_the_outcome_says_where_the_whole_interval_lies(
    times: float, spread: float, margin: float, of_rate: str, of_latency: str
) -> None:
    rates = [100 * (1 + spread * (-1) ** number) for number in range(12)]
    a, b = steady([100.0] * 12), steady(rates, times)
    assert throughput(a, b, margin).outcome == of_rate
    assert latency(a, b, 50.0, margin).outcome == of_latency


def test_the_ratio_is_that_of_b_to_a_and_the_hosts_drift_is_not_in_it() -> None:
    drifting = [100 * 1.1**number for number in range(10)]
    found = throughput(steady(drifting), steady(drifting, 1.25))
    assert [found.ratio.value, found.ratio.low, found.ratio.high] == pytest.approx([1.25] * 3)
    assert (found.outcome, found.margin, found.pairs) == ("better", 0.05, 10)
    assert latency(steady(drifting), steady(drifting, 1.25), 99.0).ratio.value == pytest.approx(0.8)


def test_blocks_too_short_for_a_percentile_are_pooled_with_their_neighbours() -> None:
    a, b = identical(independent, 0, rounds=26, calls=100)
    assert latency(a, b, 50.0).pairs == 26
    assert latency(a, b, 99.0).pairs == 5  # of five or six rounds each: 459 calls are needed
    assert latency(a[:4], b[:4], 99.0).pairs == 1


def test_too_few_rounds_say_a_ratio_and_nothing_of_its_truth() -> None:
    found = throughput(steady([100.0] * 3), steady([200.0] * 3))
    assert (found.ratio.low, found.ratio.high, found.outcome) == (0.0, np.inf, "inconclusive")
    assert found.ratio.value == pytest.approx(2)


@pytest.mark.parametrize("empty", [[], [Block(100.0, np.ones(500))] * 9 + [Block(0.0, np.zeros(0))]])
def test_a_block_without_answers_leaves_it_open(empty: list[Block]) -> None:
    other = steady([100.0] * len(empty))
    for found in (throughput(other, empty), throughput(empty, other), latency(other, empty, 99.0)):
        assert (found.ratio.low, found.ratio.high, found.outcome) == (0.0, np.inf, "inconclusive")


def test_unequal_numbers_of_blocks_and_senseless_margins_are_refused() -> None:
    with pytest.raises(LoadInputError, match="3 blocks of one candidate, 2 of the other"):
        throughput(steady([1.0] * 3), steady([1.0] * 2))
    for margin in (-0.1, np.nan, np.inf):
        with pytest.raises(LoadInputError, match="a margin of"):
            latency([], [], 50.0, margin)


def test_a_block_counts_the_calls_that_succeeded_from_when_they_were_due() -> None:
    calls = np.arange(1000)
    due = calls * 1_000_000
    records = np.column_stack(
        (due, due + 100_000, due + 500_000, np.where(calls % 4 == 0, 14, 0), np.zeros(1000))
    ).astype(np.int64)
    block = Block.of(records)
    assert block.rate == pytest.approx(750, rel=0.01)
    assert block.latencies == pytest.approx(np.full(750, 0.0005))


def test_sweep_acceptance_4_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    assert order("abc", 20, 7) == order("abc", 20, 7)
    assert order("abc", 20, 7) != order("abc", 20, 8)


@pytest.mark.parametrize("candidates", ["a", "ab", "abcde"])
def test_each_candidate_has_one_turn_in_each_round_and_every_second_round_is_turned_round(candidates: str) -> None:
    turns = order(candidates, 41, 3)
    assert len(turns) == 41
    assert {tuple(sorted(turn)) for turn in turns} == {tuple(candidates)}
    assert all(second == first[::-1] for first, second in list(pairwise(turns))[::2])


def test_every_order_of_a_round_is_as_likely() -> None:
    seen = Counter(order("abc", 1, seed)[0] for seed in range(1200))
    assert len(seen) == 6
    assert min(seen.values()) > 150
