# How much of its time a sweep has used, by its rows: on one host, on several at once, and by two workers in turn.
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.sweep_plan import Costs
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweep_time import overhead_seconds, spent_seconds
from controlplane.domain.sweeps import Taken

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def row(began: float, ended: float, *, claim: int = 1, asked: float = 1.0) -> Taken:
    order = BlockOrder(0, 0, "sha256:" + "a" * 64, Step(Shape.CONCURRENCY, "4"), asked, 1)
    begins, ends = NOON + timedelta(seconds=began), NOON + timedelta(seconds=ended)
    return Taken(Measurement(1, 1, Stage.RACE, order, Verdict.VALID, (), started_at=begins, finished_at=ends), claim)


ONE_HOST = [row(3, 4.2), row(4.5, 5.7), row(6, 7.2), row(7.5, 8.7)]


def test_a_sweep_on_one_host_spends_from_its_beginning_to_its_last_block() -> None:
    assert spent_seconds(ONE_HOST, NOON) == pytest.approx(8.7)
    assert spent_seconds(ONE_HOST, None) == pytest.approx(5.7)
    assert spent_seconds([], NOON) == 0
    assert overhead_seconds(ONE_HOST, Costs()) == pytest.approx(0.5)


def test_what_several_hosts_measure_at_once_counts_once() -> None:
    other = [row(3.4, 4.6), row(4.9, 6.1), row(6.4, 7.6), row(7.9, 9.1)]
    assert spent_seconds([*other, *ONE_HOST], NOON) == pytest.approx(9.1)
    assert overhead_seconds([*other, *ONE_HOST], Costs(block=0.7)) == 0.7


def test_the_time_in_which_nobody_was_at_work_is_not_spent() -> None:
    later = [row(1000, 1001.2, claim=2), row(1001.5, 1002.7, claim=2)]
    assert spent_seconds([*ONE_HOST, *later], NOON) == pytest.approx(8.7 + 2.7)
    started_late = [row(1000, 1001)]
    assert spent_seconds(started_late, NOON) == pytest.approx(120 + 1)
