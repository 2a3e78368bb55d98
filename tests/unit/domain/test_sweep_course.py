# What a sweep makes of rows that were there before it, and of candidates that do not fit beside each other.
from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_rounds import BlockOrder
from controlplane.domain.sweeps import Taken
from controlplane.errors import Conflict
from tests.unit.services.test_sweep_next import Simulated


def ordered(one: Taken, order: BlockOrder) -> Taken:
    return replace(one, measurement=replace(one.measurement, order=order))


def test_rows_of_other_blocks_than_are_ordered_now_count_for_nothing_and_the_place_is_named() -> None:
    sweep = Simulated({"space": {"instances": [1, 2]}})
    sweep.run()
    rows, (first, second) = sweep.taken, sweep.taken[:2]
    was, now = (one.measurement.order.candidate[:19] for one in (second, first))
    sweep.taken = [
        ordered(first, replace(first.measurement.order, candidate=second.measurement.order.candidate)),
        *rows[1:],
    ]
    with pytest.raises(Conflict, match="block 0 of round 1 of sweep 1 was") as caught:
        sweep.where()
    assert caught.value.message.startswith(
        f"block 0 of round 1 of sweep 1 was {was} at find_rate in turn 0, and now would be {now} at find_rate in turn 0"
    )
    assert str(caught.value.hint).endswith("run the sweep anew: tritonctl sweep run m")
    sweep.taken = [ordered(first, replace(first.measurement.order, turn=1)), *rows[1:]]
    with pytest.raises(Conflict, match="in turn 1, and now would be"):
        sweep.where()
    sweep.taken = [*rows, ordered(first, replace(first.measurement.order, place=99))]
    with pytest.raises(Conflict, match=r"block 99 of round 1 .* now would be none"):
        sweep.where()


def test_a_batch_of_optuna_is_filled_before_it_is_measured_and_one_that_was_not_is_the_last() -> None:
    """Otherwise who is asked for later would be laid out in a round that is over."""
    space: Json = {"instances": [1, 2, 3, 4], "max_batch_size": [1, 2, 4, 8], "threads": 1}
    sweep = Simulated({"space": space, "search": {"method": "optuna", "candidates": 12, "seconds": 700}})
    every = sweep.trials[:7]
    sweep.trials = every[:1]
    sweep.measure()
    sweep.trials = every[:4]
    assert sweep.where().asks == 1
    ahead = sweep.where(exhausted=True).ahead
    assert ahead is not None
    assert len(ahead.candidates) == 4
    sweep.measure(exhausted=True)
    assert (sweep.where().asks, sweep.where().ahead is None) == (0, False)
