# What the time of a sweep is enough for: a plan that is read back, overheads as they were seen, and how many go on.
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.sweep_plan import Costs, LoadChoice, plan
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Load, Search, Shape
from controlplane.domain.sweep_time import Budget, overhead_seconds, spent_seconds, stages_of
from controlplane.domain.sweeps import Taken

WHEN = datetime(2026, 11, 22, tzinfo=UTC)
CHOICE = LoadChoice(Load(Shape.CONCURRENCY, "16"), finds_rate=True, reason="")


def row(began: float, ended: float, claim: int = 1, number: int = 1) -> Taken:
    order = BlockOrder(0, 0, "a", Step(Shape.RATE, "1"), 1.0, 1)
    first, last = (WHEN + timedelta(seconds=at) for at in (began, ended))
    return Taken(Measurement(1, number, Stage.RACE, order, Verdict.VALID, (), first, last), claim)


def test_time_counts_from_the_beginning_without_what_lies_between_two_claims() -> None:
    rows = [row(10, 11), row(11.5, 12.5), row(500, 501, claim=2), row(502, 503, claim=2)]
    assert spent_seconds(rows, WHEN) == 10 + 2.5 + 3
    assert spent_seconds(rows[::-1], WHEN) == 15.5
    assert spent_seconds([], WHEN) == 0
    assert spent_seconds([row(3600, 3601)], WHEN) == 121  # nobody starts a bench for an hour


def test_the_overhead_of_a_block_is_what_was_seen_within_rounds() -> None:
    costs = Costs(block=0.3)
    assert overhead_seconds([row(0, 1), row(1.5, 2.5)], costs) == 0.3
    rows = [row(at * 1.5, at * 1.5 + 1) for at in range(4)]
    assert overhead_seconds([*rows, row(100, 101, number=2)], costs) == pytest.approx(0.5)


def test_a_plan_is_read_back_as_it_was_kept() -> None:
    made = plan(Search(), CHOICE, 20, beside=20)
    stages = stages_of(made.to_json())
    assert stages.all == made.stages
    assert [one.name for one in stages.all][-2:] == ["finalists", "highest rate"]
    assert stages.rate is not None
    assert stages.seconds_at(10_000, 459) == stages.rate.seconds
    assert stages.seconds_at(100, 459) == pytest.approx(5.723)
    assert stages.seconds_at(0.1, 459) == 60


def test_the_time_that_is_left_says_how_many_go_on() -> None:
    stages = stages_of(plan(Search(), CHOICE, 20, beside=20).to_json())
    rich, poor = Budget(3600, 60, 0.3), Budget(180, 120, 0.3)
    assert rich.room(stages, 2, reserve=20) > 20
    assert poor.room(stages, 2, reserve=20) < 10
    assert poor.room(stages, len(stages.race) + 1, reserve=0) == 0
    assert rich.seconds_each(12, 2.0) == 2.0
    assert poor.seconds_each(20, 4.0) == pytest.approx(2.7)
    assert poor.seconds_each(20, 4.0, reserve=50) is None
