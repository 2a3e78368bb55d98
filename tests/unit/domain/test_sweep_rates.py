# The search for the highest rate: staircases settle by turns, the best is measured again, and gone back from where it does not hold.
from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from types import MappingProxyType

import pytest

from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_course import Rounds, Terms
from controlplane.domain.sweep_figures import asked
from controlplane.domain.sweep_plan import Stage as Planned
from controlplane.domain.sweep_rates import Found, Sought, held, sought
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Method, Shape
from controlplane.domain.sweep_time import Stages
from controlplane.domain.sweeps import Taken, Trial

WHEN = datetime(2026, 11, 22, tzinfo=UTC)
P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
ASKED = asked({"concurrency": "16", "process": "poisson", "rows": 1, "finds_rate": True}, [P99], 0.05, 1.0)
STAGES = Stages(
    (Planned("round 1", 2, 3, 1, 0.5, 2),),
    Planned("finalists", 2, 3, 1, 1.0, 0),
    Planned("highest rate", 2, 8, 1, 1.0, 0),
)
Server = Callable[[BlockOrder], Verdict | float]
"""The p99 of a block, or how it ended otherwise."""
Steal = Callable[[int], float]
"""The share of the processors that the host took during the n-th block."""


def terms(seconds: int = 600) -> Terms:
    return Terms(ASKED, STAGES, Method.RACING, 1, seconds, 2, {1: 0}, 1 << 40)


def found(
    server: Server,
    starts: Mapping[str, float],
    seconds: int = 600,
    steal: Steal = lambda _: 0.0,
    *,
    memory_bytes: int = 1 << 40,
    raced: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Sought, list[Measurement]]:
    """To its end, round after round."""
    taken: list[Taken] = []
    now = WHEN
    trials = [Trial(1, number, name, 1, "", {}, "", {}) for number, name in enumerate(starts, 1)]
    while True:
        at = sought(Rounds(replace(terms(seconds), memory_bytes=memory_bytes), taken, trials), starts, raced)
        if at.ahead is None:
            return at, [one.measurement for one in taken]
        assert set(at.ahead.candidates) <= set(starts)
        for order in at.ahead.blocks:
            began, now = now, now + timedelta(seconds=order.seconds + 0.2)
            shown = server(order)
            plain = Measurement(
                1, at.ahead.number, Stage.RATE, order, Verdict.VALID, (), began, now, seconds=order.seconds
            )
            plain = replace(plain, steal_ppm=round(steal(len(taken)) * 1e6))
            one = (
                replace(plain, verdict=shown, reasons=("it is gone",))
                if isinstance(shown, Verdict)
                else replace(plain, completed=1000, figures={"latency_ms p99": shown})
            )
            taken.append(Taken(one, 1))


def at_most(**rates: float) -> Server:
    return lambda order: 8.0 if float(order.step.text) <= rates[order.candidate] else 50.0


@pytest.mark.parametrize("start", [20.0, 250.0, 300.0, 1000.0, 9000.0])
def test_the_highest_rate_is_found_from_wherever_the_search_begins(start: float) -> None:
    at, rows = found(at_most(a=300), {"a": start})
    one = at.found["a"]
    assert one.confirmed
    assert 0.8 * 300 <= one.good <= 300 < one.bad
    assert len(one.again) == 5
    assert {float(row.order.step.text) for row in one.again} == {one.good}
    assert one.settled == pytest.approx(300, rel=0.05)
    assert len(rows) <= 29 + 5


def test_a_stalled_block_moves_a_staircase_by_a_step_and_no_more() -> None:
    """Every fifth block stalls, whatever its rate."""
    seen: list[int] = []

    def stalls(order: BlockOrder) -> float:
        seen.append(1)
        return 8.0 if float(order.step.text) <= 300 and len(seen) % 5 else 50.0

    at, _ = found(stalls, {"a": 300})
    assert at.found["a"].settled == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("seed", range(10))
def test_by_turns_the_better_of_two_is_told_though_blocks_are_noisy(seed: int) -> None:
    """What the host does meets both: its speed drifts by a quarter, and each block's by a tenth."""
    noise = random.Random(seed)
    turns: dict[int, float] = {}

    def noisy(order: BlockOrder) -> float:
        drift = turns.setdefault(order.seed, 1 + 0.25 * math.sin(len(turns) / 5))
        most = {"a": 360, "b": 300}[order.candidate] * drift * math.exp(noise.gauss(0, 0.1))
        return 8.0 if float(order.step.text) <= most else 50.0

    at, _ = found(noisy, {"a": 250, "b": 400}, seconds=90)
    assert at.found["a"].settled > at.found["b"].settled


def test_between_two_near_each_other_the_race_decides_and_the_staircases_say_how_high() -> None:
    server, starts = at_most(a=300, b=290), {"a": 300.0, "b": 300.0}
    by_turns = found(server, starts)[0].found
    assert by_turns["a"].confirmed
    at = found(server, starts, raced={"a": 1.0, "b": 1.2})[0].found
    assert at["b"].confirmed
    assert not at["a"].confirmed
    assert at["a"].settled * at["b"].settled == pytest.approx(by_turns["a"].settled * by_turns["b"].settled)
    apart = (by_turns["b"].settled / by_turns["a"].settled) ** 0.2 * 1.2**0.8
    assert at["b"].settled / at["a"].settled == pytest.approx(apart)


def test_who_did_not_settle_is_where_the_race_says_beside_one_that_did() -> None:
    """b begins so far away that the time is over before its steps are small."""
    server, starts = at_most(a=3000, b=90000), {"a": 3000.0, "b": 1500.0}
    alone = found(server, starts, seconds=30)[0].found
    assert alone["a"].settled > 0 == alone["b"].settled
    at = found(server, starts, seconds=30, raced={"a": 1.0, "b": 20.0})[0].found
    assert at["b"].settled == pytest.approx(20 * alone["a"].settled)
    assert at["a"].settled == pytest.approx(alone["a"].settled)


def test_a_race_that_tells_of_one_alone_moves_nobody() -> None:
    server, starts = at_most(a=300, b=200), {"a": 300.0, "b": 200.0}
    assert found(server, starts, raced={"a": 1.0})[0].found == found(server, starts)[0].found


def test_who_did_not_hold_what_another_holds_is_not_measured_again() -> None:
    at, _ = found(at_most(a=300, b=200), {"a": 300, "b": 300})
    assert at.found["a"].confirmed
    assert not at.found["b"].confirmed
    assert at.found["b"].bad <= at.found["a"].good
    assert at.notes == ()


def test_a_rate_that_only_held_once_is_gone_back_from() -> None:
    """Every third block misses from 200 a second on."""
    seen: list[int] = []

    def now_and_then(order: BlockOrder) -> float:
        seen.append(1)
        return 50.0 if float(order.step.text) > 300 or (float(order.step.text) > 200 and len(seen) % 3 == 0) else 8.0

    at, _ = found(now_and_then, {"a": 300})
    assert at.found["a"].confirmed
    assert at.found["a"].good <= 200 < at.found["a"].bad


def test_a_machine_that_becomes_slower_is_no_reason_to_try_another_that_settled_lower() -> None:
    """Both were compared by turns: what the better one does not hold any more, the other does not either."""

    def slower(order: BlockOrder) -> float:
        now = 0.5 if order.seconds >= 1.0 else 1.0  # blocks that measure again are the longer ones
        return 8.0 if float(order.step.text) <= now * {"a": 14000, "b": 13000}[order.candidate] else 50.0

    at, rows = found(slower, {"a": 16000, "b": 15000}, seconds=120)
    first = next(number for number, row in enumerate(rows) if row.order.seconds >= 1.0)
    assert {row.order.candidate for row in rows[:first]} == {"a", "b"}
    assert {row.order.candidate for row in rows[first:]} == {"a"}
    assert at.found["a"].confirmed
    assert at.found["a"].good <= 0.5 * 14000
    assert "held as often as not while candidates were compared" in at.notes[0]


def test_at_the_end_of_the_time_what_held_at_higher_rates_counts() -> None:
    """Rather than nothing, though four blocks held at a rate of which two did not, and one at a lower one."""
    ends = cycle([True, False])

    def wavers(order: BlockOrder) -> float:
        return 8.0 if float(order.step.text) <= 6000 or (float(order.step.text) <= 14000 and next(ends)) else 50.0

    counts = {}
    for seconds in range(20, 60):
        at, _ = found(wavers, {"a": 16000}, seconds=seconds)
        if (one := at.found["a"]).above:
            counts[seconds] = one
            assert one.confirmed
            assert one.good < min(float(row.order.step.text) for row in one.again[-one.above :])
            assert len(one.again) - one.missed >= (3, 5)[one.missed]
    assert counts


@pytest.mark.parametrize(("seconds", "long"), [(60, 1.0), (120, 120 / 90), (180, 2.0), (600, 2.0)])
def test_a_rate_is_measured_again_in_longer_blocks_as_far_as_the_time_goes(seconds: int, long: float) -> None:
    _, rows = found(lambda order: 8.0 if float(order.step.text) <= 14000 else 50.0, {"a": 16000}, seconds=seconds)
    assert {row.order.seconds for row in rows} == {0.5, round(long, 3)}
    assert all(row.order.seconds > 0.5 for row in rows[-5:])


def test_a_miss_while_the_host_took_processors_away_does_not_count() -> None:
    """Every fourth block is disturbed, and misses at any rate for that."""
    seen: list[int] = []

    def disturbed(order: BlockOrder) -> float:
        seen.append(1)
        return 8.0 if float(order.step.text) <= 300 and len(seen) % 4 else 50.0

    at, rows = found(disturbed, {"a": 300}, steal=lambda number: 0.0 if (number + 1) % 4 else 0.1)
    assert at.found["a"].confirmed
    assert 0.8 * 300 <= at.found["a"].good <= 300
    assert any(row.steal_ppm for row in rows)


def test_where_the_host_always_takes_processors_away_misses_count_after_a_while() -> None:
    at, rows = found(lambda _: 50.0, {"a": 300}, steal=lambda _: 0.3)
    assert at.found["a"].good == 0.0
    assert at.found["a"].bad < 1
    assert len([row for row in rows if row.order.step.text == rows[0].order.step.text]) == 4


def test_what_holds_while_the_host_took_processors_away_holds() -> None:
    at, _ = found(at_most(a=300), {"a": 300}, steal=lambda _: 0.3)
    assert at.found["a"].confirmed


def test_blocks_are_as_long_as_a_percentile_needs() -> None:
    _, rows = found(at_most(a=100), {"a": 100})
    assert all(row.order.seconds * float(row.order.step.text) >= 459 * 1.2 for row in rows)
    assert {row.order.step.shape for row in rows} == {Shape.RATE}


def test_a_candidate_that_goes_away_is_out_and_the_other_goes_on() -> None:
    good = at_most(a=300, b=280)
    at, _ = found(lambda order: Verdict.NOT_MEASURED if order.candidate == "a" else good(order), {"a": 300, "b": 300})
    assert at.found["a"].failure == "it is gone"
    assert at.found["b"].confirmed


def test_who_does_not_fit_into_the_memory_beside_the_first_is_not_loaded_with_it() -> None:
    good, loaded = at_most(a=300, b=400), 1 << 20
    at, rows = found(good, {"a": 300, "b": 300}, memory_bytes=loaded)
    assert {row.order.candidate for row in rows} == {"a"}
    assert at.found["a"].confirmed
    assert at.notes == ("the memory does not hold b beside it: no highest rate was looked for",)

    def gone(order: BlockOrder) -> Verdict | float:
        return Verdict.NOT_MEASURED if order.candidate == "a" else good(order)

    at, _ = found(gone, {"a": 300, "b": 300}, memory_bytes=loaded)
    assert (at.found["a"].failure, at.found["b"].confirmed, at.notes) == ("it is gone", True, ())


def test_a_rate_that_few_blocks_were_near_is_not_called_settled() -> None:
    at, _ = found(at_most(a=300), {"a": 300}, seconds=32)
    assert at.found["a"].settled == 0.0


def test_where_the_time_is_too_short_nothing_is_confirmed_and_it_is_said() -> None:
    at, rows = found(at_most(a=300), {"a": 300}, seconds=4)
    assert not at.found["a"].confirmed
    assert "more search.seconds" in at.notes[0]
    assert len(rows) <= 4


def test_blocks_that_last_longer_than_what_is_left_are_not_begun() -> None:
    """At 20 a second a block of 459 answers lasts half a minute."""
    at, rows = found(at_most(a=300, b=300), {"a": 25, "b": 25}, seconds=50)
    assert {row.order.candidate for row in rows} == {"a"}
    assert at.found["b"] == Found()
    at, rows = found(at_most(a=300), {"a": 25}, seconds=20)
    assert (at.found, rows) == ({}, [])
    assert "a block at 20/s takes 29 s: more search.seconds" in at.notes[0]


def test_only_what_shows_every_hard_latency_holds() -> None:
    order = BlockOrder(0, 0, "a", Step(Shape.RATE, "1"), 1.0, 1)
    fine = Measurement(1, 1, Stage.RATE, order, Verdict.VALID, (), WHEN, WHEN, figures={"latency_ms p99": 9.9})
    assert held(fine, [P99])
    assert not held(replace(fine, figures={"latency_ms p50": 1.0}), [P99])
    assert not held(replace(fine, verdict=Verdict.ERRORS), [P99])
    assert not held(fine, [P99, replace(P99, qualifier="p50", bound="1")])
    assert held(fine, [P99, replace(P99, qualifier="p50", bound="1", weight="2")])


def test_an_unconfirmed_rate_has_no_latencies() -> None:
    assert Found(100, 110).figures([P99]).keys() == {"sustainable_rate", "throughput"}
    assert Found().interval.high == math.inf


def test_a_rate_that_was_not_kept_up_does_not_hold_however_long_the_bound_is() -> None:
    """In two seconds at 1.5 times what is answered, a queue does not come to be as long as half a second."""
    patient = replace(P99, bound="500")
    order = BlockOrder(0, 0, "a", Step(Shape.RATE, "15000"), 2.0, 1)
    shown = Measurement(1, 1, Stage.RATE, order, Verdict.VALID, (), WHEN, WHEN, seconds=2.0, completed=30000)

    def answering(rate: float) -> bool:
        return held(replace(shown, figures={"latency_ms p99": 400.0, "throughput": rate}), [patient])

    assert [answering(rate) for rate in (10_000, 13_500, 13_900, 15_000)] == [False, False, True, True]


def test_a_block_that_draws_fewer_arrivals_holds_all_the_same() -> None:
    order = BlockOrder(0, 0, "a", Step(Shape.RATE, "100"), 2.0, 1)
    few = Measurement(1, 1, Stage.RATE, order, Verdict.VALID, (), WHEN, WHEN, seconds=2.0, completed=160)
    assert held(replace(few, figures={"latency_ms p99": 4.0, "throughput": 80.0}), [P99])
