# What is made of the records of a load: which calls count, which were due, and when a load ends.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.load.measure import Load, Measurement, summarize
from clients.load.options import Options
from clients.load.outcomes import ANSWERED, DUE, SENT, STATUS
from clients.load.processes import Records
from clients.load.runs import length_of, limits_of
from clients.load.schedule import Curve, Offsets
from clients.load.series import series
from clients.load.verdicts import Limits
from clients.load.worker import Ending

MS = 1_000_000
START = 1_000_000_000
LIMITS = Limits(warm_up=1.0)


def calls(seconds: float, rate: int, latency_ms: float) -> Records:
    """Evenly due and sent at once; each a little longer than the one before, so that no warm-up is found by chance."""
    number = np.arange(int(seconds * rate))
    due = START + (number / rate * 1e9).astype(np.int64)
    wiggle = (number * 7919 % 1000) * 1000
    return np.column_stack((due, due, due + int(latency_ms * MS) + wiggle, 0 * number, 0 * number)).astype(np.int64)


def summed(*parts: Records, offsets: Offsets | None = None, steady: bool = True, unsent: int = 0) -> Measurement:
    endings = [Ending(0.1, 0, unsent, {}) for _ in parts]
    return summarize(parts, START, LIMITS, endings, offsets=offsets, places=[1000] * len(parts), steady=steady)


def test_calls_that_were_due_in_the_warm_up_do_not_count() -> None:
    found = summed(calls(4, 500, 5))
    assert (found.sent, found.completed, len(found.records)) == (1500, 1500, 2000)
    assert found.window[:, DUE].min() == START + 1_000_000_000
    assert found.rate.value == pytest.approx(500, rel=0.01)


def test_the_parts_of_several_processes_are_one_load() -> None:
    one = calls(4, 500, 5)
    whole, halves = summed(one), summed(one[::2], one[1::2])
    assert halves.latency == whole.latency
    assert (halves.records == whole.records).all()
    assert halves.client_cpu == 0.2


def test_warm_up_is_found_in_a_steady_load_and_left_in_one_that_changes() -> None:
    records = calls(4, 500, 5)
    records[500:700, ANSWERED] += 50 * MS
    steady, changing = summed(records), summed(records, steady=False)
    assert steady.cut == pytest.approx(200, abs=60)
    assert steady.sent == 1500 - steady.cut
    assert (changing.cut, changing.sent) == (0, 1500)


def test_load_acceptance_6_failures_are_never_taken_for_warm_up() -> None:
    records = calls(4, 500, 5)
    records[500:700, ANSWERED] += 50 * MS
    records[600:650, STATUS] = 14
    found = summed(records)
    assert (found.verdict, found.failed) == ("errors", {"UNAVAILABLE": 50})
    assert found.sent == 1500 - found.cut
    assert 0 < found.cut <= 100


def test_load_acceptance_6_a_server_that_hangs_from_the_warm_up_on_is_an_error() -> None:
    hung = calls(0.5, 32, 5000)
    hung[:, STATUS] = 1
    found = summed(hung)
    assert (found.verdict, found.sent, found.failed) == ("errors", 16, {"CANCELLED": 16})


def test_answers_after_the_stop_do_not_dilute_the_rate() -> None:
    """Sixteen calls in flight, one in a hundred of which takes two seconds: at the stop most that fly are of those."""
    random = np.random.default_rng(0)
    flying, rows = [(START, START)] * 16, []
    while flying:
        ended, sent = flying.pop(flying.index(min(flying)))
        if ended > sent:
            rows.append((sent, sent, ended, 0, 0))
        if ended < START + 11_000 * MS:
            took = 2.0 if random.random() < 0.01 else random.exponential(0.01)
            flying.append((ended + 1 + int(took * 1e9), ended))
    records = np.array(rows, np.int64)
    assert (records[:, ANSWERED].max() - records[:, SENT].max()) / 1e9 > 1.5
    assert summed(records).rate.value == pytest.approx(16 / (0.01 * 2 + 0.99 * 0.01), rel=0.1)


def test_a_rate_is_never_less_than_nothing() -> None:
    """Nearly all answers come at once: what is known of the rate is wide, and would reach below 0."""
    records = calls(4, 500, 5)
    records[300:1700, ANSWERED] = records[1700, ANSWERED]
    rate = summed(records).rate
    assert rate.low == 0 < rate.value < rate.high


def test_calls_that_were_due_and_never_sent_are_offered() -> None:
    records = calls(4, 500, 5)
    offsets = records[:, DUE] - START
    found = summed(records[:-20], offsets=offsets, unsent=20)
    assert (found.offered, found.sent) == (1500, 1480)
    columns = series(found.records, found.start, found.offsets)
    assert columns["offered"].tolist() == [500, 500, 500, 500]
    assert columns["sent"].tolist() == [500, 500, 500, 480]


def test_a_second_without_answers_has_no_percentile() -> None:
    records = calls(3, 10, 5)
    records[10:20, ANSWERED] += 1_000 * MS
    columns = series(records, START, None)
    assert columns["completed"].tolist() == [10, 0, 20]
    assert np.isnan(columns["p99"]).tolist() == [False, True, False]
    assert columns["p99"][2] > 1
    assert [len(values) for values in series(records[:0], START, None).values()] == [0] * 7


def test_nothing_at_all_is_too_few_samples() -> None:
    found = summed(calls(0, 1, 1))
    assert (found.verdict, found.sent, found.seconds) == ("too_few_samples", 0, 0.0)


TRACE = Load(offsets=np.array([0, 8_000_000_000]))
RAMP = Load(curve=Curve.ramp(1, 9, 12))


@pytest.mark.parametrize(
    ("load", "seconds"),
    [
        (Load(concurrency=1), None),
        (Load(curve=Curve.flat(9)), None),
        (TRACE, 7.0),
        (RAMP, 11.0),
        (Load(curve=Curve.bursts(9, 1, 2)), 6.0),
        (Load(curve=Curve.through([(0, 1), (60, 9)])), 60.0),
    ],
)
def test_a_load_that_changes_is_measured_whole(load: Load, seconds: float | None) -> None:
    assert length_of(load, warm_up=1.0) == seconds
    limits = limits_of(Options(models=("m",), warm_up=1.0), load, [])
    assert (limits.seconds, limits.cap) == ((5.0, 30.0) if seconds is None else (seconds, seconds))


def test_what_was_asked_for_goes_before_what_is_usual() -> None:
    options = Options(models=("m",), seconds=40)
    assert limits_of(options, Load(concurrency=1), []).cap == 40
    shorter = limits_of(replace(options, max_seconds=2), TRACE, [])
    assert (shorter.seconds, shorter.cap) == (2, 2)


def test_the_highest_limit_is_the_percentile_that_has_to_be_known() -> None:
    asked = [(50.0, 0.1), (99.9, 0.5)]
    assert limits_of(Options(models=("m",)), TRACE, asked).watched == 99.9
    assert limits_of(Options(models=("m",), percentile=90.0), TRACE, asked).watched == 90.0
    assert limits_of(Options(models=("m",)), TRACE, []).watched == 99.0
