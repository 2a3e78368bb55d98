# Hard objectives, the Pareto front and what is chosen of it, on figures whose answer is plain.
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from clients.load.statistics import Interval
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_search import (
    UNKNOWN,
    Figure,
    Finding,
    Met,
    Trial,
    answer,
    apart,
    dominates,
    finding,
    ratio_words,
    sifted,
    words,
)
from controlplane.errors import InvalidInput

RATE = Figure("rate", more_is_better=True)
LATENCY = Figure("latency_ms p99", more_is_better=False)
ACCURACY = Figure("accuracy", more_is_better=True, of_artifact=True)


def about(value: float, share: float = 0.02) -> Interval:
    return Interval(value, value * (1 - share), value * (1 + share))


def made(name: str, *, answers: int = 1000, share: float = 0.02, **figures: float) -> Trial:
    names = {"rate": "rate", "p99": "latency_ms p99", "accuracy": "accuracy"}
    return Trial(name, {names[key]: about(value, share) for key, value in figures.items()}, answers)


def need(metric: str, qualifier: str, direction: str, bound: str, weight: str | None = None) -> Objective:
    return Objective("digits", f"{metric}-need", metric, qualifier, direction, bound, "product", weight)


P99 = need("latency_ms", "p99", "at_most", "10")


def test_a_hard_objective_is_met_missed_or_cannot_be_told() -> None:
    assert finding(P99, made("a", p99=9)) == Finding(
        "latency_ms-need", Met.MET, "latency_ms p99 is 9 (8.82 to 9.18) ms, to be at most 10 ms"
    )
    assert finding(P99, made("a", p99=11)).met is Met.MISSED
    assert finding(P99, made("a", p99=10)) == Finding(
        "latency_ms-need",
        Met.CANNOT_TELL,
        "latency_ms p99 is 10 (9.8 to 10.2) ms, to be at most 10 ms: the interval holds the bound",
    )
    assert finding(P99, made("a", rate=9)) == Finding(
        "latency_ms-need", Met.CANNOT_TELL, "latency_ms p99 was not measured; it is to be at most 10 ms"
    )
    accuracy = need("accuracy", "", "at_least", "0.9")
    assert [finding(accuracy, made("a", accuracy=value)).met for value in (0.95, 0.9, 0.8)] == [
        Met.MET,
        Met.CANNOT_TELL,
        Met.MISSED,
    ]


def test_a_bound_that_the_interval_only_touches_is_met_from_either_side() -> None:
    touching = Trial("a", {"latency_ms p99": Interval(9, 8, 10), "accuracy": Interval(0.95, 0.9, 0.97)}, 1000)

    assert finding(P99, touching).met is Met.MET
    assert finding(need("accuracy", "", "at_least", "0.9"), touching).met is Met.MET


def test_a_p99_of_few_answers_is_never_met_but_may_be_missed() -> None:
    few = finding(P99, made("a", p99=9, answers=458))
    assert few.met is Met.CANNOT_TELL
    assert few.reason.endswith(": 458 answers, and it takes 459")
    assert finding(P99, made("a", p99=9, answers=459)).met is Met.MET
    assert finding(P99, made("a", p99=20, answers=3)).met is Met.MISSED
    cohort = Trial("a", {"accuracy pictures": about(0.95)}, 0)
    assert finding(need("accuracy", "pictures", "at_least", "0.9"), cohort).met is Met.MET


def test_dominated_is_who_is_surely_no_better_in_anything_and_worse_in_something() -> None:
    trials = [
        made("a", rate=100, p99=5),
        made("b", rate=80, p99=8),
        made("c", rate=80, p99=4),
        made("d", rate=101, p99=5),
    ]
    advantage = apart(trials)

    assert dominates([RATE, LATENCY], advantage, "a", "b") == (
        "rate 1.25 times as good (1.2 to 1.3); latency_ms p99 1.6 times as good (1.54 to 1.67)"
    )
    assert dominates([RATE, LATENCY], advantage, "b", "a") is None
    assert dominates([RATE, LATENCY], advantage, "a", "c") is None
    assert dominates([RATE, LATENCY], advantage, "d", "a") is None  # better by estimate, not with confidence


def test_no_worse_within_the_margin_is_enough_where_another_figure_is_surely_better() -> None:
    advantage = apart([made("a", rate=100, p99=5), made("b", rate=100, p99=8)])

    assert dominates([RATE, LATENCY], advantage, "a", "b") is None
    assert dominates([Figure("rate", more_is_better=True, margin=0.05), LATENCY], advantage, "a", "b") is not None
    with pytest.raises(InvalidInput, match=r"the margin of rate is 1\.0"):
        Figure("rate", more_is_better=True, margin=1.0)


def test_one_evaluation_of_one_artifact_is_no_difference_and_what_is_missing_cannot_be_compared() -> None:
    wide = about(0.9, 0.1)
    one, same = (
        Trial("a", {"accuracy": wide, "rate": about(100)}, 1),
        Trial("b", {"accuracy": wide, "rate": about(50)}, 1),
    )
    missing = Trial("c", {"rate": about(10)}, 1)
    advantage = apart([one, same, missing])

    assert dominates([ACCURACY, RATE], advantage, "a", "b") is not None
    assert dominates([ACCURACY, RATE], advantage, "a", "c") is None
    assert advantage(ACCURACY, "a", "c").high == math.inf


def test_of_two_that_dominate_each_other_within_margins_the_better_stays() -> None:
    assert sifted(["a", "b", "c"], lambda one, other: "so") == {"c": ("a", "so"), "b": ("a", "so")}
    cycle = {("a", "c"), ("c", "b"), ("b", "a")}
    assert sifted(["a", "b", "c"], lambda one, other: "so" if (one, other) in cycle else None) == {
        "c": ("a", "so"),
        "a": ("b", "so"),
    }


def test_the_front_is_of_those_that_meet_all_and_who_misses_dominates_nobody() -> None:
    found = answer(
        [
            made("fast", rate=200, p99=20),
            made("good", rate=150, p99=9),
            made("calm", rate=100, p99=4),
            made("poor", rate=90, p99=9.5),
            made("edge", rate=180, p99=10),
        ],
        [RATE, LATENCY],
        [P99],
    )

    assert set(found.front) == {"good", "calm"}
    assert list(found.dominated) == ["poor"]
    assert found.dominated["poor"].startswith("dominated by ")
    assert {name: seen[0].met for name, seen in found.findings.items()} == {
        "fast": Met.MISSED,
        "good": Met.MET,
        "calm": Met.MET,
        "poor": Met.MET,
        "edge": Met.CANNOT_TELL,
    }


def test_weights_choose_among_the_front_and_the_reason_has_the_numbers() -> None:
    trials = [made("good", rate=150, p99=9), made("calm", rate=100, p99=3)]
    for_rate = [need("rate", "", "at_least", "200", "5"), need("latency_ms", "p99", "at_most", "2", "1")]
    for_calm = [need("rate", "", "at_least", "200", "1"), need("latency_ms", "p99", "at_most", "2", "5")]

    found = answer(trials, [RATE, LATENCY], for_rate)
    assert found.front == ("good", "calm")
    assert found.chosen == "good"
    assert found.reason == (
        "good comes nearest to what is wished: rate is 150 (147 to 153), wished at least 200 with weight 5; "
        "latency_ms p99 is 9 (8.82 to 9.18), wished at most 2 with weight 1. "
        "beside calm, the next: rate 1.5 times as good (1.44 to 1.56); latency_ms p99 0.333 times as good (0.32 to 0.347)"
    )
    assert answer(trials, [RATE, LATENCY], for_calm).chosen == "calm"


def test_who_meets_every_wish_comes_before_who_is_far_beyond_one_and_misses_another() -> None:
    trials = [made("beyond", rate=900, p99=12), made("within", rate=550, p99=9), made("barely", rate=510, p99=8.9)]
    wishes = [need("rate", "", "at_least", "500", "1"), need("latency_ms", "p99", "at_most", "10", "1")]

    assert answer(trials, [RATE, LATENCY], wishes).front == ("within", "barely", "beyond")


def test_without_wishes_each_figure_counts_alike() -> None:
    found = answer([made("a", rate=100, p99=5), made("b", rate=300, p99=10)], [RATE, LATENCY], [])

    assert found.chosen == "b"
    assert found.reason.startswith("b has the best product of its figures: rate 300 (294 to 306); latency_ms p99 10 ")
    alone = answer([made("a", rate=100)], [RATE], [])
    assert alone.reason.endswith("no other that meets the hard objectives is on the front")


def test_where_none_is_shown_to_meet_everything_none_is_chosen_and_each_says_why() -> None:
    found = answer([made("a", p99=20), made("b", p99=10)], [LATENCY], [P99])

    assert (found.front, found.chosen) == ((), None)
    assert found.reason.startswith(
        "no trial is shown to meet every hard objective. a: latency_ms-need missed, latency_ms p99 is 20 (19.6 to 20.4) ms"
    )
    assert "b: latency_ms-need cannot tell, " in found.reason
    assert answer([], [LATENCY], [P99]).reason == "no trial was left at the end: each has its reason"


def test_an_interval_that_tells_nothing_is_not_said_as_a_number_that_does() -> None:
    assert words(Interval(5.0, 4.0, 6.0)) == "5 (4 to 6)"
    assert words(Interval(5.0, 0.0, math.inf)) == "5 (too few blocks to know how surely)"
    assert ratio_words(Interval(1.5, 1.2, 1.9)) == "1.5 times as good (1.2 to 1.9)"
    assert ratio_words(Interval(1.5, 0.03, 60.0)) == "cannot be told apart (0.03 to 60 times as good)"
    assert ratio_words(Interval(9.0, 3.0, 90.0)) == "9 times as good (3 to 90)"  # by how much is open, not which
    assert ratio_words(Interval(1.5, 0.0, math.inf)) == "cannot be told apart (0 to inf times as good)"
    assert ratio_words(UNKNOWN) == "cannot be compared"


def test_the_order_in_which_trials_come_changes_nothing() -> None:
    random = np.random.default_rng(3)
    trials = [made(f"t{n}", rate=random.uniform(50, 200), p99=random.uniform(2, 12)) for n in range(20)]
    first = answer(trials, [RATE, LATENCY], [P99])

    assert len(first.front) > 1
    assert first.dominated
    for _ in range(5):
        random.shuffle(trials)
        again = answer(trials, [RATE, LATENCY], [P99])
        assert (again.front, again.dominated, again.chosen, again.reason) == (
            first.front,
            first.dominated,
            first.chosen,
            first.reason,
        )


def test_a_figure_that_not_all_show_parts_none_of_them() -> None:
    """Neither the order of names decides, nor who happened to have the answers for a percentile."""
    p50 = Figure("rate", more_is_better=False)
    slow, quick = made("a", rate=20, p99=5), made("b", rate=10)
    found = answer([slow, quick], [p50, LATENCY], [])
    assert found.chosen == "b"
    assert found.dominated == {"a": found.dominated["a"]}
    assert found.reason.endswith("Not all of them show latency_ms p99, so that decided nothing")
    wish = need("latency_ms", "p99", "at_most", "10", "1")
    assert answer([replace(slow, figures={"rate": about(20)}), quick], [p50], [wish]).chosen == "b"


def test_of_a_wish_for_nothing_at_all_the_least_comes_nearest() -> None:
    wish = need("latency_ms", "p99", "at_most", "0", "1")
    assert answer([made("a", p99=9), made("b", p99=5)], [RATE], [wish]).chosen == "b"
