# Races whose truth is known: who is dropped, who goes on, when it ends, and how often the best is lost.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_racing import Fate, Look, Round, Rules, Standing, race
from controlplane.domain.sweep_search import Figure, answer
from controlplane.errors import InvalidInput

RATE = Figure("rate", more_is_better=True, margin=0.03)
LATENCY = Figure("latency_ms p99", more_is_better=False, margin=0.03)
RULES = Rules((RATE,), seed=1)
SHORT = replace(RULES, looks=3)
EIGHT = {f"c{place}": rate for place, rate in enumerate((100.0, 97.0, 93.0, 88.0, 82.0, 75.0, 67.0, 58.0))}
Noise = Callable[[np.random.Generator], float]


def normal(random: np.random.Generator) -> float:
    return float(random.normal())


def heaped(random: np.random.Generator) -> float:
    """Now and then a block is far off."""
    return float(random.standard_t(3)) / 3**0.5


def skewed(random: np.random.Generator) -> float:
    """A block is sometimes much slower, never much faster."""
    return 1 - float(random.exponential())


def measured(
    ahead: Round, truth: Mapping[str, Mapping[str, float]], random: np.random.Generator, noise: Noise, spread: float
) -> Look:
    """Blocks of a round. The machine drifts from turn to turn by 20 %, and each block has its own noise, less the longer it is."""
    blocks = []
    for turn, order in enumerate(ahead.order):
        drift = random.normal(0, 0.2)
        for name in order:
            own = {
                figure: value * float(np.exp(drift + spread / ahead.seconds**0.5 * noise(random)))
                for figure, value in truth[name].items()
            }
            blocks.append(Block(name, turn, ahead.seconds, own, 1000))
    return Look(blocks)


def run(
    rules: Rules, truth: Mapping[str, Mapping[str, float]], seed: int, noise: Noise = normal, spread: float = 0.06
) -> tuple[Standing, list[Look]]:
    random = np.random.default_rng(seed)
    looks: list[Look] = []
    standing = race(rules, list(truth), looks)
    while standing.next is not None:
        looks.append(measured(standing.next, truth, random, noise, spread))
        standing = race(rules, list(truth), looks)
    return standing, looks


def rates(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"rate": value} for name, value in values.items()}


def fates(standing: Standing, name: str) -> list[Fate]:
    return [one.fate for one in standing.decisions if one.candidate == name]


def fixed(name: str, rate: float, turns: int = 4, p99: float | None = None) -> list[Block]:
    """With a noise of 1 % that is the same in every run, and another for each candidate."""
    wobble = np.random.default_rng(len(name) + ord(name[0])).normal(0, 0.01, turns)
    more = {} if p99 is None else {"latency_ms p99": p99}
    return [Block(name, turn, 1.0, {"rate": rate * float(np.exp(wobble[turn])), **more}, 1000) for turn in range(turns)]


@cache
def hundred(noise: Noise) -> list[tuple[Standing, list[Look]]]:
    return [run(RULES, rates(EIGHT), seed, noise) for seed in range(100)]


@pytest.mark.parametrize("noise", [normal, heaped, skewed])
def test_the_truly_best_of_eight_is_dropped_in_at_most_five_of_a_hundred_races(noise: Noise) -> None:
    lost = sum(Fate.DROPPED in fates(standing, "c0") for standing, _ in hundred(noise))

    assert lost <= 5


def test_of_eight_equal_ones_a_given_one_is_dropped_in_at_most_three_of_sixty_races() -> None:
    equal = rates(dict.fromkeys(EIGHT, 100.0))

    assert sum(Fate.DROPPED in fates(run(SHORT, equal, seed)[0], "c3") for seed in range(60)) <= 3


def test_what_wins_is_within_five_percent_of_the_best_in_nine_of_ten_races_and_the_worst_are_out_early() -> None:
    near, early, seconds = 0, 0, []
    for standing, looks in hundred(normal):
        near += EIGHT[standing.left[0]] >= 95
        early += sum(
            one.fate is Fate.DROPPED and one.look <= 3 for one in standing.decisions if EIGHT[one.candidate] < 80
        )
        seconds.append(sum(block.seconds for look in looks for block in look.blocks))

    assert near >= 90
    assert early >= 0.9 * 300
    assert np.median(seconds) < 0.6 * 8 * (4 * (1 + 2 + 4 + 8 + 8) + 6 * 8)  # everyone measured to the end


def test_the_pareto_front_of_eight_survives_in_nineteen_of_twenty_races() -> None:
    truth = {
        name: {"rate": rate, "latency_ms p99": latency}
        for (name, rate), latency in zip(EIGHT.items(), (20.0, 15, 25, 10, 12, 14, 18, 30), strict=True)
    }
    rules = replace(SHORT, figures=(RATE, LATENCY), finalists=3)
    standings = [run(rules, truth, seed)[0] for seed in range(40)]

    for name in ("c0", "c1", "c3"):
        assert sum(Fate.DROPPED in fates(standing, name) for standing in standings) <= 2
    assert sum(Fate.DROPPED in fates(standing, "c7") for standing in standings) >= 38


def test_the_same_rules_and_blocks_give_the_same_race_and_a_longer_look_back_changes_nothing() -> None:
    standing, looks = run(RULES, rates(EIGHT), 7)
    again = race(RULES, list(EIGHT), looks)
    first = race(RULES, list(EIGHT), looks[:1])

    assert (again.decisions, again.left, again.finalists) == (standing.decisions, standing.left, standing.finalists)
    assert [one for one in standing.decisions if one.look == 1] == list(first.decisions)


def test_the_order_is_drawn_by_the_seed_and_holds_everyone_once_a_turn() -> None:
    one, same, other = (race(replace(RULES, seed=seed), list(EIGHT), []).next for seed in (1, 1, 2))
    assert one is not None
    assert one == same != other
    assert [sorted(turn) for turn in one.order] == [sorted(EIGHT)] * 4
    assert len(set(one.order)) == 4
    assert (one.number, one.seconds, one.confirms, one.lasts_seconds) == (1, 1.0, False, 32.0)
    assert one.order[0] == ("c6", "c0", "c4", "c5", "c2", "c1", "c3", "c7")


def test_survivors_get_longer_blocks_and_finalists_are_measured_anew() -> None:
    blocks = [block for name, rate in {"a": 100, "b": 99, "c": 98, "d": 50}.items() for block in fixed(name, rate)]
    rules = replace(RULES, figures=(replace(RATE, margin=0.005),))
    standing = race(rules, ["a", "b", "c", "d"], [Look(blocks)])

    assert fates(standing, "d") == [Fate.DROPPED]
    assert standing.next is not None
    assert (standing.next.number, standing.next.seconds, standing.next.confirms) == (2, 2.0, False)
    assert [one.reason for one in standing.decisions if one.fate is Fate.GOES_ON] == [
        "not dominated with confidence; next 4 blocks of 2 s"
    ] * 3

    at_last = race(replace(rules, looks=1), ["a", "b", "c", "d"], [Look(blocks)])
    assert at_last.next is not None
    assert at_last.next.confirms
    assert (at_last.next.seconds, len(at_last.next.order), sorted(at_last.next.order[0])) == (
        8.0,
        6,
        sorted(at_last.left),
    )
    assert len(at_last.left) == 2
    aside = next(one for one in at_last.decisions if one.fate is Fate.SET_ASIDE)
    assert aside.reason.startswith("look 1 is the last; by its estimates not among the best: beside ")


def test_a_decision_says_by_whom_by_how_much_and_how_sure() -> None:
    standing = race(RULES, ["a", "b"], [Look([*fixed("a", 100), *fixed("b", 50)])])
    dropped, finalist = standing.decisions

    assert (dropped.look, dropped.candidate, dropped.fate) == (1, "b", Fate.DROPPED)
    assert dropped.reason == (
        "dominated by a: rate 1.99 times as good (1.97 to 2.02) (at look 1, each statement 97.5 % sure)"
    )
    assert (finalist.candidate, finalist.fate) == ("a", Fate.FINALIST)
    assert finalist.reason == "1 left, at most 2 are confirmed"


def test_the_last_round_alone_decides_what_is_confirmed() -> None:
    rules = replace(RULES, looks=1)
    lucky = Look([*fixed("a", 100), *fixed("b", 99.5)])
    end = race(rules, ["a", "b"], [lucky, Look([*fixed("a", 90, 6), *fixed("b", 99, 6)])])

    assert end.next is None
    assert end.advantage is not None
    assert [one.fate for one in end.decisions[-2:]] == [Fate.CONFIRMED] * 2
    assert end.left == ("b", "a")
    assert {one.name: round(one.figures["rate"].value) for one in end.finalists} == {"a": 90, "b": 99}
    ratio = end.advantage(RATE, "b", "a")
    assert ratio.low > 1.05
    assert ratio.value == pytest.approx(1.1, abs=0.03)
    with pytest.raises(InvalidInput, match="the race was over after look 1"):
        race(rules, ["a", "b"], [Look([], {"a": "x", "b": "y"}), lucky])
    with pytest.raises(InvalidInput, match="the race was over after look 2, and there are 3"):
        race(rules, ["a", "b"], [lucky, lucky, lucky])


def test_equal_ones_are_measured_no_longer_than_it_takes_to_know_them_equal() -> None:
    exact = [Block(name, turn, 1.0, {"rate": 100.0}, 1000) for name in ("a", "b", "c") for turn in range(4)]
    standing = race(RULES, ["a", "b", "c"], [Look(exact)])

    assert standing.next is not None
    assert standing.next.confirms
    assert standing.decisions[0].reason.startswith("no further look would tell more")
    assert Fate.DROPPED not in [one.fate for one in standing.decisions]


def bound(direction: str, value: str) -> Objective:
    return Objective("digits", "fast", "latency_ms", "p99", direction, value, "product", None)


def test_who_misses_a_hard_objective_leaves_and_drops_nobody() -> None:
    rules = replace(RULES, hard=(bound("at_most", "10"),))
    fast = fixed("fast", 200, p99=30.0)
    slow = fixed("slow", 100, p99=5.0)
    standing = race(rules, ["fast", "slow"], [Look([*fast, *slow])])

    assert fates(standing, "fast") == [Fate.MISSES]
    assert "fast: latency_ms p99 is 30 " in standing.decisions[0].reason
    assert "to be at most 10 ms" in standing.decisions[0].reason
    assert standing.left == ("slow",)


def test_who_may_miss_a_hard_objective_drops_nobody_who_may_meet_it() -> None:
    rules = replace(RULES, hard=(bound("at_most", "10"),))
    unsure = [
        replace(block, figures={**block.figures, "latency_ms p99": 9.0 + block.turn}) for block in fixed("unsure", 200)
    ]
    slow = fixed("slow", 100, p99=5.0)
    worse = fixed("worse", 100, p99=14.0)
    standing = race(rules, ["unsure", "slow"], [Look([*unsure, *slow])])
    assert sorted(standing.left) == ["slow", "unsure"]

    standing = race(replace(rules, hard=(bound("at_most", "20"),)), ["unsure", "worse"], [Look([*unsure, *worse])])
    assert fates(standing, "worse") == [Fate.DROPPED]


def test_the_best_that_meets_the_bound_is_lost_in_at_most_three_of_sixty_races() -> None:
    rules = replace(SHORT, hard=(bound("at_most", "20"),))
    truth = {
        name: {"rate": rate, "latency_ms p99": latency}
        for (name, rate), latency in zip(EIGHT.items(), (26.0, 16, 15, 10, 12, 19, 18, 30), strict=True)
    }
    standings = [run(rules, truth, seed)[0] for seed in range(60)]

    assert sum({Fate.DROPPED, Fate.MISSES} & set(fates(one, "c1")) != set() for one in standings) <= 3


def test_a_candidate_that_failed_is_out_with_its_reason_and_the_race_goes_on() -> None:
    standing = race(RULES, ["a", "b", "c"], [Look([*fixed("a", 100), *fixed("b", 99)], {"c": "out of memory"})])

    assert standing.decisions[0].reason == "out of memory"
    assert fates(standing, "c") == [Fate.FAILED]
    assert sorted(standing.left) == ["a", "b"]
    nobody = race(RULES, ["a"], [Look([], {"a": "it crashed"})])
    assert (nobody.left, nobody.next, nobody.finalists) == ((), None, ())


def test_who_was_dropped_by_one_that_fails_later_is_back_in_the_race() -> None:
    first = Look([*fixed("a", 100), *fixed("b", 50), *fixed("c", 20)])
    again = race(RULES, ["a", "b", "c"], [first, Look([], {"a": "out of memory"})])

    assert [(one.look, one.candidate, one.fate) for one in again.decisions] == [
        (1, "c", Fate.DROPPED),
        (1, "b", Fate.DROPPED),
        (1, "a", Fate.FINALIST),
        (2, "a", Fate.FAILED),
        (2, "c", Fate.BACK),
        (2, "b", Fate.BACK),
        (2, "c", Fate.DROPPED),
        (2, "b", Fate.FINALIST),
    ]
    assert again.decisions[5].reason == "a, which dominated it, is out"
    assert again.next is not None
    assert (again.next.number, again.next.confirms, set(again.next.order[0])) == (3, True, {"b"})
    end = race(RULES, ["a", "b", "c"], [first, Look([], {"a": "out of memory"}), Look(fixed("b", 50, 6))])
    assert (end.next, end.left) == (None, ("b",))


def test_who_misses_its_objective_when_it_is_measured_again_gives_way_and_who_cannot_tell_is_not_confirmed() -> None:
    rules = replace(RULES, looks=1, finalists=1, hard=(bound("at_most", "10"),))
    first = Look([*fixed("a", 100, p99=9), *fixed("b", 99.5, p99=9)])
    assert fates(race(rules, ["a", "b"], [first]), "b") == [Fate.SET_ASIDE]

    looks = [first, Look(fixed("a", 100, 6, p99=11))]
    missed = race(rules, ["a", "b"], looks)
    assert fates(missed, "a") == [Fate.FINALIST, Fate.MISSES]
    assert fates(missed, "b") == [Fate.SET_ASIDE, Fate.BACK, Fate.FINALIST]
    end = race(rules, ["a", "b"], [*looks, Look(fixed("b", 99.5, 6, p99=10))])
    assert fates(end, "b")[-1] is Fate.OPEN
    assert end.decisions[-1].reason.endswith("to be at most 10 ms: the interval holds the bound")
    sure = race(rules, ["a", "b"], [*looks, Look(fixed("b", 99.5, 6, p99=9))])
    assert fates(sure, "b")[-1] is Fate.CONFIRMED
    assert answer(sure.finalists, rules.figures, rules.hard, sure.advantage).chosen == "b"


def test_two_turns_are_too_few_for_anything_to_be_sure() -> None:
    standing = race(replace(RULES, turns=2, finalists=1), ["a", "b"], [Look([*fixed("a", 100, 2), *fixed("b", 1, 2)])])

    assert sorted(standing.left) == ["a", "b"]


def test_a_race_that_makes_no_sense_is_refused() -> None:
    block = Block("a", 0, 1.0, {"rate": 1.0}, 10)
    for wrong in (
        {"turns": 0},
        {"figures": ()},
        {"error": 0.5},
        {"seconds": 9.0},
        {"growth": 0.5},
        {"confirm_turns": 2},
    ):
        with pytest.raises(InvalidInput, match="a race with"):
            replace(RULES, **wrong)
    with pytest.raises(InvalidInput, match="each once"):
        race(RULES, ["a", "a"], [])
    with pytest.raises(InvalidInput, match="two blocks in turn 0 of look 1"):
        race(RULES, ["a"], [Look([block, block])])
    with pytest.raises(InvalidInput, match="a block of 0"):
        replace(block, seconds=0.0)


def test_the_first_round_may_have_fewer_turns_and_then_drops_nobody() -> None:
    rules = replace(RULES, first_turns=2)
    begin = race(rules, list(EIGHT), [])
    assert begin.next is not None
    assert len(begin.next.order) == 2
    truth = {name: {"rate": rate} for name, rate in EIGHT.items()}
    after = race(rules, list(EIGHT), [measured(begin.next, truth, np.random.default_rng(1), normal, 0.001)])
    assert sorted(after.left) == sorted(EIGHT)
    assert after.next is not None
    assert len(after.next.order) == rules.turns
