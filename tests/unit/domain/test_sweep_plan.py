# The load that objectives ask for, and a plan that keeps to its time or says why it cannot.
from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_candidates import Candidate
from controlplane.domain.sweep_plan import Costs, LoadChoice, Stage, groups, load_of, memory_of, plan, shown_at
from controlplane.domain.sweep_spec import Load, Method, Search, Shape
from controlplane.errors import SweepInvalid

P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
RATE = Objective("m", "many", "throughput", "", "at_least", "400.50", "product", None)
SIDE = Objective("m", "wide", "concurrency", "", "at_least", "7.5", "product", None)
ONE = LoadChoice(Load(Shape.RATE, "400"), finds_rate=False, reason="")


@pytest.mark.parametrize(
    ("objectives", "load", "finds_rate"),
    [
        ([], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
        ([P99], Load(Shape.CONCURRENCY, "16"), True),
        ([replace(P99, metric="ttft_ms")], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
        ([replace(P99, qualifier="pictures")], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
        ([RATE], Load(Shape.RATE, "400.5"), False),
        ([P99, RATE], Load(Shape.RATE, "400.5"), True),
        ([RATE, replace(RATE, name="more", bound="900")], Load(Shape.RATE, "900"), False),
        ([SIDE, P99], Load(Shape.CONCURRENCY, "8"), True),
        ([replace(RATE, weight="1")], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
        ([replace(RATE, direction="at_most")], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
        ([replace(RATE, bound="0")], Load(Shape.CONCURRENCY, "1,4,16,64"), False),
    ],
)
def test_hard_objectives_decide_the_load(objectives: list[Objective], load: Load, finds_rate: bool) -> None:
    choice = load_of(None, objectives)

    assert (choice.load, choice.finds_rate) == (load, finds_rate)
    assert choice.reason


def test_a_load_of_the_spec_comes_first_and_the_reason_names_who_asked() -> None:
    trace = Load(Shape.TRACE, "monday.txt")

    assert load_of(trace, [RATE]) == LoadChoice(trace, finds_rate=False, reason="trace monday.txt, as the spec says")
    assert load_of(Load(Shape.FIND_RATE, "50:5000"), []).finds_rate
    assert "objective many" in load_of(None, [RATE]).reason


@pytest.mark.parametrize("there", [1, 2, 3, 20, 52, 500])
@pytest.mark.parametrize("seconds", [120, 180, 3600])
@pytest.mark.parametrize("objectives", [[], [P99], [P99, RATE]])
def test_a_race_keeps_to_its_time(there: int, seconds: int, objectives: list[Objective]) -> None:
    search = Search(seconds=seconds)

    made = plan(search, load_of(None, objectives), there, beside=16, objectives=objectives)

    told = Costs()
    assert made.seconds <= seconds
    assert made.seconds - 1 <= sum(stage.lasts(told) for stage in made.stages) <= made.seconds
    assert made.candidates <= min(there, search.candidates)
    assert bool(made.notes) >= (made.candidates < there)
    rounds = [stage.candidates for stage in made.stages if stage.name != "predicted"]
    assert rounds == sorted(rounds, reverse=True)
    assert digest(made.to_json())


def test_the_first_round_has_fewer_turns_where_more_candidates_are_tried_for_it() -> None:
    choice = load_of(None, [P99])
    few, many = (plan(Search(), choice, there, beside=100, objectives=[P99]) for there in (12, 68))

    assert [stage.turns for stage in few.stages[:2]] == [3, 3]
    first, predicted, second, *_ = many.stages
    assert (first.turns, predicted.name, predicted.turns, second.turns) == (2, "predicted", 2, 3)
    assert second.candidates == first.candidates // 2
    assert "19 of 68 candidates are tried, and 7 more that these predict to be better" in many.notes[0]


def test_a_race_gets_longer_blocks_with_more_time_and_survivors_stay_loaded() -> None:
    short, long = (plan(Search(seconds=seconds), ONE, 8, beside=8) for seconds in (60, 3600))

    assert short.stages[0].seconds < long.stages[0].seconds
    assert [stage.candidates for stage in short.stages] == [8, 4, 2]
    assert [stage.loads for stage in short.stages] == [8, 0, 0]
    assert (short.blocks, short.loads) == (8 * 3 + 4 * 3 + 2 * 6, 8)
    assert [stage.loads for stage in plan(Search(seconds=3600), ONE, 8, beside=4).stages] == [8, 4, 0]


def test_what_the_memory_does_not_hold_at_once_is_planned_in_groups_and_said() -> None:
    (note,) = plan(Search(seconds=3600), ONE, 8, beside=4).notes
    assert note.startswith("the memory holds 4 of the 8 candidates at once: they race in groups")
    assert plan(Search(seconds=3600), ONE, 8, beside=4).stages[0].candidates == 8 + 2
    (alone,) = plan(Search(seconds=3600), ONE, 8, beside=1).notes
    assert alone.startswith("the memory holds one candidate at a time")
    assert plan(Search(seconds=3600), ONE, 8, beside=1).stages[0].candidates == 8
    assert not plan(Search(seconds=3600), ONE, 8, beside=8).notes


def test_an_exhaustive_search_tries_all_or_says_what_it_needs() -> None:
    search = Search(Method.EXHAUSTIVE, seconds=180)

    assert plan(search, ONE, 10, beside=10).candidates == 10
    with pytest.raises(SweepInvalid, match="64 candidates need") as caught:
        plan(search, ONE, 64, beside=10)
    need = int(str(caught.value.details["seconds"]))
    assert str(need) in (caught.value.hint or "")
    assert plan(replace(search, seconds=need), ONE, 64, beside=10).candidates == 64


def test_a_race_tries_fewer_where_time_is_short_and_says_so() -> None:
    made = plan(Search(seconds=60), ONE, 64, beside=64)

    assert 2 <= made.candidates < 64
    (predicted,) = [stage for stage in made.stages if stage.name == "predicted"]
    assert made.notes[0] == (
        f"{made.candidates} of 64 candidates are tried, and {predicted.loads} more that these predict to be better: "
        "more do not fit into 60 s (search.seconds)"
    )
    alone = plan(Search(seconds=60), ONE, 64, beside=made.candidates)  # no room for more at once
    assert "predicted" not in {stage.name for stage in alone.stages}
    few = plan(Search(candidates=3, margin_percent=Decimal(2)), ONE, 64, beside=64)
    assert few.notes == ("3 of 64 candidates are tried: no more are asked for (search.candidates)",)
    assert plan(Search(Method.OPTUNA), ONE, 64, beside=64).stages[0].name == "asked for"


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(SweepInvalid, match="no candidate"):
        plan(Search(), ONE, 0, beside=1)
    with pytest.raises(SweepInvalid, match="2 candidates need") as caught:
        plan(Search(seconds=10), ONE, 9, beside=9)
    need = caught.value.details["seconds"]
    assert caught.value.hint == f"give it the time: --seconds {need}, or search.seconds: {need} in its spec"
    ladder = LoadChoice(Load(Shape.CONCURRENCY, "1,4"), finds_rate=False, reason="")
    with pytest.raises(SweepInvalid) as caught:
        plan(Search(seconds=10), ladder, 9, beside=9)
    assert (caught.value.hint or "").endswith(", or take steps away from the load")


@pytest.mark.parametrize(
    ("shape", "text", "whole"),
    [(Shape.RAMP, "10:400:20", 20.0), (Shape.CURVE, "0:10,7:400,14.5:10", 14.5), (Shape.BURSTS, "400:2:8:1", 10.0)],
)
def test_blocks_last_as_long_as_the_shape_of_their_load(shape: Shape, text: str, whole: float) -> None:
    choice = LoadChoice(Load(shape, text), finds_rate=False, reason="")

    made = plan(Search(seconds=3600), choice, 4, beside=4)

    assert made.stages[0].seconds == whole
    assert all(stage.seconds % whole == 0 for stage in made.stages)
    assert [stage.turns for stage in made.stages] == [3, 3, 6][-len(made.stages) :]
    with pytest.raises(
        SweepInvalid, match=f"2 candidates need .* send the whole {shape.value} of {whole:g} s"
    ) as caught:
        plan(Search(seconds=60), choice, 4, beside=4)
    need = int(str(caught.value.details["seconds"]))
    assert (caught.value.hint or "").endswith(f"search.seconds: {need} in its spec, or make load.{shape.value} shorter")
    again = plan(Search(seconds=need), choice, 4, beside=4)
    assert {(stage.turns, stage.seconds) for stage in again.stages} == {(3, whole)}


def test_short_shapes_are_sent_as_often_as_they_go_into_a_block() -> None:
    choice = LoadChoice(Load(Shape.BURSTS, "400:1:2"), finds_rate=False, reason="")

    assert {stage.seconds for stage in plan(Search(seconds=3600), choice, 8, beside=8).stages} == {3.0, 6.0, 9.0}


def test_of_a_trace_the_plan_says_that_its_beginning_is_sent() -> None:
    choice = LoadChoice(Load(Shape.TRACE, "monday.txt"), finds_rate=False, reason="")

    made = plan(Search(), choice, 2, beside=2)

    seconds = [stage.seconds for stage in made.stages]
    assert made.notes == (
        f"of the trace, blocks send the first {min(seconds):g} to {max(seconds):g} s: how long it is, only the bench's host knows",
    )


def test_a_percentile_that_will_lack_answers_is_told_before_it_starts() -> None:
    slow = LoadChoice(Load(Shape.RATE, "10"), finds_rate=False, reason="")

    assert plan(Search(), ONE, 4, beside=4, objectives=[P99]).notes == ()
    (note,) = plan(Search(seconds=60), slow, 4, beside=4, objectives=[P99]).notes
    assert note == "p99 needs 459 answers, and a block of 4 s at 10/s brings about 40: more search.seconds"
    assert plan(Search(seconds=900), slow, 2, beside=4, objectives=[P99]).notes == ()
    (wished,) = plan(Search(seconds=60), slow, 4, beside=4, objectives=[replace(P99, weight="1")]).notes
    assert wished.startswith("p99 needs 459 answers")
    rare = LoadChoice(Load(Shape.RATE, "0.5"), finds_rate=False, reason="")
    assert [note[:4] for note in plan(Search(seconds=60), rare, 4, beside=4).notes] == ["p50 ", "p99 "]


def test_finalists_have_fewer_and_longer_turns_where_a_percentile_needs_them() -> None:
    confirm = Stage("finalists", 2, 6, 1, 2.0, 0)
    assert shown_at(confirm, rate=1000, answers=459, seconds=60) == confirm
    assert shown_at(confirm, rate=15, answers=44, seconds=90) == replace(confirm, turns=3, seconds=4.618)
    assert shown_at(confirm, rate=1, answers=459, seconds=60) == replace(confirm, turns=3, seconds=4.0)


def test_candidates_stand_side_by_side_as_far_as_the_memory_goes() -> None:
    def of(version: int, count: int) -> Candidate:
        config: JsonObject = {"instance_group": [{"count": count}]} if count else {}
        return Candidate(version, config, f"{version}-{count}", ())

    one, two, big, unsaid = of(1, 1), of(1, 2), of(2, 1), of(1, 0)
    sizes = {1: 20 << 20, 2: 900 << 20}

    assert memory_of(two, sizes[1]) == memory_of(unsaid, sizes[1]) == 200 << 20
    assert groups([one, two, big, one, unsaid], sizes, 300 << 20) == ((one, two), (big,), (one, unsaid))
    assert groups([], sizes, 1) == ()
