# What a sweep makes of rows that were there before it, and of candidates that do not fit beside each other.
from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_candidates import Candidate
from controlplane.domain.sweep_plan import memory_of
from controlplane.domain.sweep_racing import Fate
from controlplane.domain.sweep_rounds import BlockOrder, Stage
from controlplane.domain.sweep_time import stages_of
from controlplane.domain.sweeps import Taken
from controlplane.errors import Conflict
from tests.simulated_bench import SimulatedBench
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


def test_candidates_that_the_memory_does_not_hold_at_once_race_in_groups_with_one_in_each() -> None:
    space: Json = {"instances": [1, 2, 4], "max_batch_size": [1, 8], "threads": 1}
    memory = 7 * (81 << 20)
    sweep = Simulated({"space": space, "search": {"seconds": 600}}, memory_bytes=memory)
    planned = sweep.sweep.plan["stages"]
    assert isinstance(planned, list)
    assert isinstance(planned[0], dict)
    assert planned[0]["candidates"] == len(sweep.trials) + 2
    end = sweep.run()
    first = [order for order in sweep.bench.orders if order.stage is Stage.RACE][:3]
    loaded = [{model.candidate for model in order.models} for order in first]
    assert set.union(*loaded) == {one.candidate for one in sweep.trials}
    (link,) = set.intersection(*loaded)
    assert sum(map(len, loaded)) == len(sweep.trials) + 2
    for order in sweep.bench.orders:
        listed = [Candidate(one.version, one.config, one.candidate, ()) for one in order.models]
        assert sum(memory_of(one, 1 << 20) for one in listed) <= memory
    look = sweep.where().raced.looks[0]
    assert {block.turn for block in look.blocks} == {block.turn for block in look.blocks if block.candidate == link}
    assert end.answer["chosen"] is not None


def test_candidates_that_lie_in_memory_one_at_a_time_are_never_called_worse_by_their_turns() -> None:
    """They were measured minutes apart, and nothing links them."""
    sweep = Simulated(
        {"space": {"instances": [2, 4], "max_batch_size": [1, 8], "threads": 1}, "search": {"seconds": 600}},
        memory_bytes=2 * (81 << 20),
    )
    end = sweep.run()
    assert all(len(order.models) == 1 for order in sweep.bench.orders)
    assert {one.fate for one in sweep.where().raced.standing.decisions}.isdisjoint({Fate.DROPPED, Fate.MISSES})
    assert end.answer["chosen"] is not None


def test_an_optuna_search_keeps_to_the_memory() -> None:
    space: Json = {"instances": [1, 2, 3, 4], "max_batch_size": [1, 2, 4, 8], "threads": 1}
    memory = 6 * (81 << 20)
    sweep = Simulated(
        {"space": space, "search": {"method": "optuna", "candidates": 9, "seconds": 700}}, memory_bytes=memory
    )
    end = sweep.run()
    assert len(sweep.trials) == 9
    for order in sweep.bench.orders:
        listed = [Candidate(one.version, one.config, one.candidate, ()) for one in order.models]
        assert sum(memory_of(one, 1 << 20) for one in listed) <= memory or len(listed) == 1
    assert end.answer["chosen"] is not None


def test_finalists_under_a_shaped_load_have_whole_periods_of_it_however_short_the_time() -> None:
    """Loading takes a part of the time that nobody planned."""
    sweep = Simulated(
        {"load": {"ramp": "10:100:3"}, "search": {"seconds": 200}}, objectives=(), bench=SimulatedBench(load_seconds=8)
    )
    sweep.run()
    confirm = [block.seconds for order in sweep.bench.orders if order.stage is Stage.CONFIRM for block in order.blocks]
    planned = stages_of(sweep.sweep.plan).confirm.seconds
    assert confirm
    assert set(confirm) < {3.0 * n for n in range(1, 100)}
    assert max(confirm) < planned
