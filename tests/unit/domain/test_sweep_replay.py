# Replays of a capsule: the same blocks again, and what agrees. (sweep acceptance 4)
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from controlplane.domain.sweep_course import asked_of
from controlplane.domain.sweep_figures import Asked
from controlplane.domain.sweep_replay import AGREES, DIFFERS, UNTOLD, Agreed, agreement, ahead_of, answer, failures
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from tests.unit.domain.test_capsules import a_block, a_capsule

CAPSULE = a_capsule()
ASKED: Asked = asked_of(CAPSULE.sweep)
MARGIN = 0.05


def drawn(
    seed: int, *, turns: int = 6, factors: Sequence[float] = (1, 1), drift: float = 1.0, spread: float = 0.03
) -> list[Measurement]:
    """Throughputs about 500 and 800, with a noise of `spread` in each block; `factors` are those of the two trials."""
    noise = random.Random(seed)
    return [
        replace(
            a_block(trial, turn),
            figures={
                "throughput": base * factor * drift * noise.lognormvariate(0, spread),
                "latency_ms p99": 8 / factor / drift * noise.lognormvariate(0, spread),
            },
        )
        for turn in range(turns)
        for trial, base, factor in zip(CAPSULE.trials, (500, 800), factors, strict=True)
    ]


def compared(before: Sequence[Measurement], after: Sequence[Measurement]) -> dict[tuple[int, str], Agreed]:
    found = agreement(ASKED, CAPSULE.trials, before, after, MARGIN)
    return {(one.trial, one.figure): one for one in found}


def test_a_replay_orders_the_same_blocks_and_goes_on_where_it_was_interrupted() -> None:
    """sweep acceptance 4: the same order and requests."""
    rows = CAPSULE.measurements
    later = [replace(one, round=2, stage=Stage.CONFIRM) for one in rows]
    everything = [*later, *rows]

    first = ahead_of(everything, ())
    assert first is not None
    assert (first.number, first.stage, first.ordered) == (1, Stage.RACE, 6)
    assert first.blocks == tuple(one.order for one in rows)
    resumed = ahead_of(everything, [*rows[:2], rows[5]])
    assert resumed is not None
    assert resumed.blocks == tuple(one.order for one in rows[2:5])
    second = ahead_of(everything, rows)
    assert second is not None
    assert (second.number, second.stage) == (2, Stage.CONFIRM)
    assert ahead_of(everything, everything) is None


def test_a_replay_of_the_same_machine_agrees() -> None:
    """sweep acceptance 4: of 200 replays that differ by noise alone at most 1 in 20 has any figure called different."""
    wrong = sum(
        any(one.outcome == DIFFERS for one in compared(drawn(seed), drawn(seed + 1000)).values()) for seed in range(200)
    )

    assert wrong <= 10
    assert {one.outcome for one in compared(drawn(1), drawn(2)).values()} == {AGREES}


def test_a_figure_that_differs_is_named_with_its_ratio_and_the_others_are_not() -> None:
    found = compared(drawn(1), drawn(2, factors=(1, 0.8)))

    assert {key for key, one in found.items() if one.outcome == DIFFERS} == {(2, "throughput"), (2, "latency_ms p99")}
    ratio = found[2, "throughput"].ratio
    assert ratio.low < 0.8 < ratio.high < 1 / 1.05
    assert found[2, "latency_ms p99"].ratio.low > 1.05
    assert found[2, "throughput"].words.startswith("trial 2, throughput: differs, 0.8")


def test_what_lies_within_the_margin_is_no_difference() -> None:
    found = compared(drawn(1, turns=40), drawn(2, turns=40, drift=0.97))

    assert {one.outcome for one in found.values()} == {AGREES}
    assert found[1, "throughput"].ratio.high < 1


def test_too_few_blocks_tell_nothing() -> None:
    found = compared(drawn(1), drawn(2, turns=2))

    assert {one.outcome for one in found.values()} == {UNTOLD}
    assert found[1, "throughput"].words.startswith("trial 1, throughput: cannot be told; ")


def test_blocks_too_few_and_noisy_to_see_a_figure_twice_as_bad_do_not_agree() -> None:
    found = compared(drawn(1, turns=3, spread=0.25), drawn(2, turns=3, spread=0.25, drift=0.5))

    assert {one.outcome for one in found.values()} == {UNTOLD}


def test_a_trial_that_failed_on_one_side_alone_is_named() -> None:
    gone = [replace(one, verdict=Verdict.NOT_MEASURED, figures={}) for one in CAPSULE.measurements[1::2]]
    half = [*CAPSULE.measurements[::2], *gone]

    assert failures(CAPSULE.trials, CAPSULE.measurements, CAPSULE.measurements) == ()
    assert failures(CAPSULE.trials, half, half) == ()
    assert failures(CAPSULE.trials, CAPSULE.measurements, half) == ((2, "was measured there, and could not be here"),)
    assert failures(CAPSULE.trials, half, CAPSULE.measurements) == ((2, "failed there, and not here"),)


def test_rates_that_were_held_are_compared_by_the_latency_at_each() -> None:
    (objective,) = CAPSULE.sweep.objectives
    sweep = replace(CAPSULE.sweep, load={**CAPSULE.sweep.load, "finds_rate": True}, objectives=(objective,))
    at = [
        replace(one, stage=Stage.RATE, order=replace(one.order, step=Step(Shape.RATE, "400")))
        for one in drawn(1)
        if one.order.candidate == CAPSULE.trials[1].candidate
    ]
    found = agreement(asked_of(sweep), CAPSULE.trials, at, at, MARGIN)

    assert [(one.trial, one.figure, one.outcome) for one in found] == [(2, "latency_ms p99 at 400/s", AGREES)]


def test_the_answer_of_a_replay_says_what_agrees_beside_the_machines() -> None:
    agreed = agreement(ASKED, CAPSULE.trials, drawn(1), drawn(2, factors=(1, 0.8)), MARGIN)
    found = answer(agreed, ((1, "failed there, and not here"),), ["processor: a here, b there"], ["logs"], "sweep 7")

    assert found["reason"] == (
        "a replay of sweep 7: 2 of 4 figures agree within their intervals and the margin, 2 differ"
    )
    because, notes, replay = found["because"], found["notes"], found["replay"]
    assert isinstance(because, list)
    assert isinstance(replay, dict)
    assert because[0] == "trial 1 failed there, and not here"
    assert str(because[1]).startswith("trial 2, latency_ms p99: differs, 1.2")
    assert notes == ["machine: processor: a here, b there", "logs"]
    assert replay["differing"] == 3
