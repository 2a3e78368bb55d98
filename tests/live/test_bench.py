# A bench on an embedded scratch server: what a block shows, the order, and what is loaded and unloaded between rounds.
from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from clients.load.histogram import decode
from controlplane.bench.rounds import LocalBench, embedded_bench
from controlplane.bench.scratch import EmbeddedScratch
from controlplane.domain.servers import Backend
from controlplane.domain.sweep_rounds import Measurement, Requests, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from controlplane.errors import LeaseLost
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.bench_models import CLOSED, ROWS, Done, Shelf, blocks, measured, open_shelf, order


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def bench(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBench]:
    with embedded_bench(tmp_path_factory.mktemp("bench"), runtime) as opened:
        yield opened


def test_a_block_of_a_closed_loop_shows_what_the_candidate_did(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("plain")
    (block,) = blocks([model], CLOSED, seconds=1.0)
    result, done = measured(bench, shelf, order([model], Requests(shelf.golden(ROWS)), [block]))
    (row,) = result.measurements
    assert done.rows == [row]
    assert result.failed == ()
    assert (row.order, row.failed, row.transport) == (block, 0, "http2")
    assert row.verdict not in {Verdict.ERRORS, Verdict.NOT_MEASURED}  # what else it is, the host decides
    # Counted until the last was sent, which the two in flight outlast, and which is half of the time at the least.
    least, most = (row.completed - 2) / row.seconds, 2 * row.completed / row.seconds
    assert 0.99 * least <= row.figures["throughput"] <= 1.01 * most
    assert 0 < row.figures["latency_ms p50"] < 1000
    counts = decode(row.histogram)[1]
    assert counts.sum() == row.completed
    assert row.server["succeeded"] >= row.completed
    assert sum(size * count for size, count in row.batches.items()) == row.server["inferences"]
    assert row.fingerprint == result.fingerprint.digest
    assert result.fingerprint.serving.triton_version == "2.51.0"


def test_all_shapes_of_load_are_measured(bench: LocalBench, shelf: Shelf, tmp_path: Path) -> None:
    times = tmp_path / "times"
    times.write_text("\n".join(str(number / 100) for number in range(100)))
    steps = [
        Step(Shape.CONCURRENCY, "1"),
        Step(Shape.RATE, "100"),
        Step(Shape.RATE, "100", "even"),
        Step(Shape.BURSTS, "200:0.2:0.3"),
        Step(Shape.RAMP, "50:200:1"),
        Step(Shape.CURVE, "0:50,0.5:200,1:50"),
        Step(Shape.TRACE, str(times)),
        Step(Shape.FIND_RATE, ""),
    ]
    model = shelf.scale("shapes")
    found, _ = measured(
        bench, shelf, order([model], Requests(shelf.golden(ROWS)), blocks([model], *steps, seconds=1.0))
    )
    assert {row.order.step.label: row.failed for row in found.measurements if row.failed} == {}
    closed, poisson, even, bursts, ramp, curve, trace, finds = found.measurements
    assert trace.offered == pytest.approx(90, abs=2)
    assert [row.offered for row in (bursts, ramp, curve)] == pytest.approx([80, 125, 125], rel=0.4)
    assert all(45 < row.offered < 140 for row in (poisson, even))  # up to half may be cut as warm-up
    assert 0.99 * (closed.completed - 1) <= closed.figures["throughput"] * closed.seconds <= 2.02 * closed.completed
    assert even.figures["latency_ms p50"] > 0
    assert "throughput" in ramp.figures
    assert any(" in flight: " in reason for reason in finds.reasons)
    assert set(finds.figures) <= {"sustainable_rate"}


def test_what_cannot_be_sent_is_a_row_with_its_reason(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("plain")
    steps = [Step(Shape.RATE, "1,2"), Step(Shape.TRACE, "/nowhere"), Step(Shape.CONCURRENCY, "0.5"), CLOSED]
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], *steps))
    rows = measured(bench, shelf, ordered)[0].measurements
    assert [row.verdict is Verdict.NOT_MEASURED for row in rows] == [True, True, True, False]
    assert [row.reasons[0].partition(":")[0] for row in rows[:3]] == [
        "rate 1,2 is 2 steps",
        "/nowhere is no file with one number of seconds on each line, on the host of the bench",
        "0.5 calls cannot be in flight",
    ]


def test_a_rate_is_looked_for_only_under_a_bound(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("plain")
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], Step(Shape.FIND_RATE, "")))
    (row,) = measured(bench, shelf, replace(ordered, bound_ms=None, percent=None))[0].measurements
    assert row.verdict is Verdict.NOT_MEASURED
    assert row.reasons == ("a rate is looked for at which no latency is to hold",)


def test_a_rate_beyond_the_ends_that_were_given_is_told_on_which_side(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.python("ten milliseconds", "time.sleep(0.010 * len(rows))")

    def found(ends: str, *, seconds: float, bound_ms: float) -> Measurement:
        asked = blocks([model], Step(Shape.FIND_RATE, ends), seconds=seconds)
        ordered = order([model], Requests(shelf.golden(ROWS)), asked, bound_ms=bound_ms)
        (row,) = measured(bench, shelf, ordered)[0].measurements
        return row

    above = found("400:900", seconds=6.0, bound_ms=200.0)  # four times as many as any host answers
    assert above.figures == {"sustainable_rate": 400}
    assert any("did not hold from the first on" in reason for reason in above.reasons)
    assert above.offered < 2500, "of 3900: it is not sent to the end"
    below = found("5:20", seconds=2.0, bound_ms=5000.0)  # longer than the block: no host breaks it
    assert 13 < below.figures["sustainable_rate"] <= 20
    assert any("held to the end" in reason for reason in below.reasons)


def test_the_rate_that_is_found_is_near_what_the_server_does_at_the_most(bench: LocalBench, shelf: Shelf) -> None:
    """A hundred a second, which no host passes; what a busy one takes away it takes from some blocks."""
    model = shelf.python("ten milliseconds", "time.sleep(0.010 * len(rows))")
    ordered = order(
        [model],
        Requests(shelf.golden(ROWS)),
        blocks([model], Step(Shape.FIND_RATE, ""), turns=4, seconds=3.0),
        bound_ms=100.0,
    )
    rows = measured(bench, shelf, ordered)[0].measurements
    found = [row.figures["sustainable_rate"] for row in rows]
    assert len(found) == 4
    assert 60 <= max(found) <= 130  # while the rate rises the queue has room
    assert min(found) > 0


def test_a_response_cache_is_one(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("cached", extra="response_cache { enable: true }")
    (row,) = measured(bench, shelf, order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED)))[
        0
    ].measurements
    assert row.server["cache_hits"] > row.completed / 2


def test_blocks_are_measured_in_the_order_that_was_given(bench: LocalBench, shelf: Shelf) -> None:
    models = [shelf.scale("one"), shelf.scale("two", instances=2), shelf.scale("three")]
    ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=3, seconds=0.3))
    result, done = measured(bench, shelf, ordered)
    assert [row.order for row in done.rows] == list(ordered.blocks)
    assert list(result.measurements) == done.rows
    begun = [row.started_at for row in done.rows]
    assert begun == sorted(begun)
    assert all(one.finished_at <= next_.started_at for one, next_ in pairwise(done.rows))


def test_what_is_loaded_stays_loaded_until_a_round_does_not_want_it(bench: LocalBench, shelf: Shelf) -> None:
    one, two, three = (shelf.scale(f"stays {number}") for number in range(3))
    asked = Requests(shelf.golden(ROWS))
    first = order([one, two], asked, blocks([one, two], CLOSED, seconds=0.3))
    measured(bench, shelf, first)
    kept = backends(bench, one.scratch_name)
    measured(bench, shelf, order([one, three], asked, blocks([one, three], CLOSED, seconds=0.3), number=2))
    assert kept
    assert backends(bench, one.scratch_name) == kept
    assert backends(bench, two.scratch_name) == frozenset()
    assert len(backends(bench, three.scratch_name)) == 1


def test_what_go_on_raises_ends_the_round_and_the_next_one_is_measured(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("plain")
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED, turns=4, seconds=1.0))
    first_one, *others = ordered.blocks
    long = replace(ordered, blocks=(first_one, *(replace(block, seconds=60.0) for block in others)))
    done = Done()
    first = math.inf

    def go_on() -> None:
        nonlocal first
        if done.rows:
            first = min(first, time.monotonic())
        if time.monotonic() > first + 0.5:
            raise LeaseLost("somebody else measures now")

    with pytest.raises(LeaseLost):
        bench.measure(long, shelf.store, done=done, go_on=go_on)
    assert time.monotonic() < first + 40
    assert len(done.rows) == 1
    assert [row.failed for row in measured(bench, shelf, ordered)[0].measurements] == [0] * 4


def backends(bench: LocalBench, name: str) -> frozenset[Backend]:
    scratch = bench.scratch
    assert isinstance(scratch, EmbeddedScratch)
    return scratch.backends(name)
