# What blocks of a sweep are asked for, and what is read from their measurements.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_compare import figures_seen, rates_beside
from controlplane.domain.sweep_figures import Asked, asked, block_of, bound_of, look_of
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict

WHEN = datetime(2026, 11, 22, tzinfo=UTC)
P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
MANY = Objective("m", "many", "throughput", "", "at_least", "400", "product", None)
LADDER: JsonObject = {"concurrency": "1,4", "process": "poisson", "rows": 1, "finds_rate": False}


def load(**shape: str) -> JsonObject:
    return {**shape, "process": "poisson", "rows": 1, "finds_rate": False}


def measured(step: Step, place: int = 0, **more: object) -> Measurement:
    order = BlockOrder(place, 0, "sha256:a", step, 1.0, 7)
    plain = Measurement(1, 1, Stage.RACE, order, Verdict.VALID, (), WHEN, WHEN, seconds=1.0, completed=100)
    return replace(plain, **more)  # type: ignore[arg-type]


def steps(which: Asked) -> list[str]:
    return [step.label for step in which.steps]


def test_the_highest_percentile_is_the_bound_that_a_rate_is_to_hold() -> None:
    half = replace(P99, name="usual", qualifier="p50", bound="2")
    tight = replace(P99, name="tight", bound="8")
    assert bound_of([half, P99, tight]) == bound_of([tight])
    assert bound_of([replace(P99, weight="1"), replace(P99, direction="at_least"), MANY]) is None


@pytest.mark.parametrize(
    ("kept", "objectives", "first", "figures"),
    [
        ({"concurrency": "16", "finds_rate": True}, [P99], "find_rate", ["sustainable_rate"]),
        ({"find_rate": "5:500", "finds_rate": True}, [P99], "find_rate 5:500", ["sustainable_rate"]),
        ({"rate": "400", "finds_rate": True}, [P99, MANY], "rate 400", ["latency_ms p99"]),
        ({"concurrency": "8", "finds_rate": False}, [], "concurrency 8", ["throughput"]),
        ({"bursts": "400:2:8", "finds_rate": False}, [], "bursts 400:2:8", ["latency_ms p50", "latency_ms p99"]),
    ],
)
def test_the_load_and_the_objectives_decide_what_is_compared(
    kept: JsonObject, objectives: list[Objective], first: str, figures: list[str]
) -> None:
    which = asked({"process": "poisson", "rows": 1, **kept}, objectives, 0.05, 1.0)
    assert (steps(which), [figure.name for figure in which.figures]) == ([first], figures)
    assert all(figure.margin == 0.05 for figure in which.figures)


def test_a_race_compares_by_the_highest_percentile_that_its_short_blocks_show() -> None:
    names = {}
    for seconds in (0.05, 0.25, 0.5, 2.0):
        which = asked(load(rate="400"), [P99], 0.05, seconds)
        names[seconds] = [figure.name for figure in which.race] + [one.qualifier for one in which.race_hard]
    assert names == {
        0.05: ["latency_ms p50", "p50"],
        0.25: ["latency_ms p90", "p90"],
        0.5: ["latency_ms p95", "p95"],
        2.0: ["latency_ms p99", "p99"],
    }


def test_of_a_ladder_each_step_is_a_figure_and_objectives_have_their_own_places() -> None:
    which = asked(LADDER, [P99, MANY], 0.05, 1.0)
    rows = [
        measured(which.steps[0], 0, figures={"throughput": 90.0, "latency_ms p99": 4.0}),
        measured(which.steps[1], 1, figures={"throughput": 300.0, "latency_ms p99": 12.0}, completed=300),
    ]
    block = block_of(which, rows)
    assert block is not None
    assert block.figures == {
        "throughput at concurrency 1": 90.0,
        "throughput at concurrency 4": 300.0,
        "latency_ms p99 at concurrency 1": 4.0,
        "latency_ms p99 at concurrency 4": 12.0,
        "latency_ms p99": 12.0,
        "throughput": 300.0,
    }
    assert (block.seconds, block.answers) == (2.0, 300)


def test_a_throughput_and_a_latency_that_are_required_are_judged_at_one_step_of_a_ladder() -> None:
    """Few calls at once answer fast, many bring much: both together nobody has shown by that."""
    which = asked({**LADDER, "concurrency": "1,4,16"}, [P99, MANY], 0.05, 1.0)
    rows = [
        measured(step, place, figures={"throughput": brings, "latency_ms p99": waits})
        for place, (step, brings, waits) in enumerate(
            zip(which.steps, (90.0, 402.0, 800.0), (4.0, 9.0, 40.0), strict=True)
        )
    ]
    block = block_of(which, rows)
    assert block is not None
    assert (block.figures["throughput"], block.figures["latency_ms p99"]) == (402.0, 9.0)
    assert [one.bound for one in which.hard] == ["10", "400"]


def test_without_a_required_throughput_latencies_are_those_of_the_ladders_first_step_alone() -> None:
    which = asked(LADDER, [P99], 0.05, 1.0)
    rows = [
        measured(step, place, figures={"throughput": 90.0 + place, "latency_ms p99": 4.0 + place})
        for place, step in enumerate(which.steps)
    ]
    both = block_of(which, rows, everything=True)
    assert both is not None
    assert (both.figures["latency_ms p99"], both.figures["throughput"]) == (4.0, 91.0)
    gone = block_of(which, [replace(rows[0], verdict=Verdict.NOT_MEASURED), rows[1]], everything=True)
    assert gone is not None
    assert "latency_ms p99" not in gone.figures
    alone = block_of(which, rows[1:], everything=True)
    assert alone is not None
    assert alone.figures["latency_ms p99"] == 5.0


def test_a_block_with_failing_requests_counts_with_what_failed_as_beyond_any_latency() -> None:
    which = asked(load(rate="100"), [P99], 0.05, 1.0)
    step = which.steps[0]
    good: Mapping[str, float] = {"throughput": 100.0, "latency_ms p99": 5.0, "latency_ms p95": 4.0}
    turns = [measured(step, 0, figures=good, completed=1000)]
    few, many = (
        measured(step, figures=figures, verdict=Verdict.ERRORS, completed=1000 - failed, failed=failed)
        for failed, figures in ((1, good), (30, {"throughput": 97.0, "latency_ms p95": 4.0}))
    )
    for turn, one in enumerate((few, many), 1):
        turns.append(replace(one, order=replace(one.order, turn=turn)))
    turns += [replace(turns[0], order=replace(turns[0].order, turn=turn)) for turn in (3, 4)]
    look = look_of(which, turns)
    assert not look.failed
    assert [block.figures["latency_ms p99"] for block in look.blocks] == [5.0, 5.0, 30_000.0, 5.0, 5.0]
    assert block_of(which, [many], everything=True) is None


def test_what_a_trial_is_judged_by_counts_blocks_with_failures_and_what_it_shows_does_not() -> None:
    """As evidence of a trial that was not measured again it counts what failed."""
    which = asked(load(rate="100"), [P99], 0.05, 1.0)
    rows = [measured(which.steps[0], figures={"latency_ms p99": 5.0}, completed=1000) for _ in range(4)]
    rows[1] = replace(rows[1], verdict=Verdict.ERRORS, figures={}, failed=30)
    rows = [replace(one, order=replace(one.order, turn=turn)) for turn, one in enumerate(rows)]
    shown, judged = (figures_seen(which, rows, everything=everything)["sha256:a"] for everything in (True, False))
    assert shown["latency_ms p99"].value == pytest.approx(5.0)
    assert judged["latency_ms p99"].high > 1000


def test_how_rates_are_to_each_other_is_told_by_the_turns_that_both_were_in() -> None:
    """The machine is twice as fast in each turn as in the one before; c is in too few turns to tell."""
    which = asked({**LADDER, "concurrency": "16", "finds_rate": True}, [P99], 0.05, 1.0)
    rows = [
        replace(one, order=replace(one.order, turn=turn, candidate=name))
        for turn in range(4)
        for name, rate in (("a", 100.0), ("b", 120.0), ("c", 300.0))
        if {"a": turn < 3, "b": True, "c": turn > 1}[name]
        for one in (measured(which.steps[0], figures={"sustainable_rate": rate * 2**turn}, completed=1000),)
    ]
    assert rates_beside(which, ["a", "b", "c"], rows) == pytest.approx({"a": 1.0, "b": 1.2})
    assert rates_beside(which, ["a", "b"], [replace(one, figures={"throughput": 90.0}) for one in rows]) == {}


def test_a_block_of_which_nothing_came_back_is_the_slowest_and_not_missing() -> None:
    gone = {"verdict": Verdict.ERRORS, "completed": 0, "failed": 200}
    closed: JsonObject = {**LADDER, "concurrency": "16", "finds_rate": True}
    for kept, name in ((closed, "sustainable_rate"), (LADDER, "throughput at concurrency 4")):
        which = asked(kept, [P99], 0.05, 1.0)
        block = block_of(which, [measured(step, place, **gone) for place, step in enumerate(which.steps)])
        assert block is not None
        assert block.figures[name] == 1.0


def test_what_is_only_wished_is_measured_on_a_ladder_too() -> None:
    which = asked(LADDER, [replace(MANY, weight="1")], 0.05, 1.0)
    rows = [measured(step, place, figures={"throughput": 90.0}) for place, step in enumerate(which.steps)]
    block = block_of(which, rows)
    assert block is not None
    assert block.figures["throughput"] == 90.0


def test_a_rate_that_was_kept_up_is_the_throughput_however_many_arrivals_were_drawn() -> None:
    which = asked(load(rate="400"), [P99, MANY], 0.05, 2.0)
    drawn: Mapping[str, float] = {"throughput": 391.5, "latency_ms p99": 5.0}
    kept, lost = (
        block_of(which, [measured(which.steps[0], figures=drawn, verdict=verdict)])
        for verdict in (Verdict.VALID, Verdict.UNSTABLE)
    )
    assert kept is not None
    assert lost is not None
    assert (kept.figures["throughput"], lost.figures["throughput"]) == (400.0, 391.5)
    assert [one.bound for one in which.hard if one.name == "many"] == ["396"]


@pytest.mark.parametrize(
    ("seconds", "throughput", "shown"), [(8.0, 300.0, 300.0), (8.0, 378.0, 400.0), (60.0, 378.0, 378.0)]
)
def test_a_rate_that_was_not_kept_up_is_not_the_throughput_though_its_block_is_valid(
    seconds: float, throughput: float, shown: float
) -> None:
    which = asked(load(rate="400"), [MANY], 0.05, 2.0)
    block = block_of(which, [measured(which.steps[0], figures={"throughput": throughput}, seconds=seconds)])
    assert block is not None
    assert block.figures["throughput"] == shown


def test_candidates_that_could_not_be_measured_or_mostly_failed_are_told_with_why() -> None:
    which = asked(LADDER, [], 0.05, 1.0)
    step = which.steps[0]

    def of(name: str, place: int, **more: object) -> Measurement:
        one = measured(step, place, **more)
        return replace(one, order=replace(one.order, candidate=name, turn=place))

    look = look_of(
        which,
        [
            of("gone", 0, verdict=Verdict.NOT_MEASURED, reasons=("no such backend",)),
            of("broken", 0, verdict=Verdict.ERRORS, reasons=("every request failed",)),
            of("broken", 1, figures={"throughput": 3.0}),
            of("good", 0, figures={"throughput": 3.0}),
            of("good", 1, verdict=Verdict.ERRORS),
            of("good", 2, figures={"throughput": 4.0}, verdict=Verdict.CLIENT_LIMITED),
        ],
    )
    assert look.failed == {
        "gone": "no such backend",
        "broken": "1 of 2 blocks had failing requests: every request failed",
    }
    assert [(block.candidate, block.turn) for block in look.blocks] == [("good", 0), ("good", 1), ("good", 2)]
