# The figures of a block: by the names of objectives, none of too few calls, failures beyond any latency.
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from clients.load.measure import Measurement, Target, summarize
from clients.load.traffic import Traffic
from clients.load.verdicts import Limits
from clients.load.worker import Ending
from controlplane.bench.blocks import Aim, Subject, figures, not_measured, take
from controlplane.domain.sweep_rounds import BlockOrder, RoundOrder, Stage, Step, Verdict
from controlplane.domain.sweep_rounds import Measurement as Row
from controlplane.domain.sweep_spec import Shape
from controlplane.errors import InvalidInput

MS = 1_000_000
UNAVAILABLE = 14
BLOCK = BlockOrder(3, 1, "sha256:" + "0" * 64, Step(Shape.RATE, "500"), 2.0, 7)
ORDER = RoundOrder(1, 2, Stage.CONFIRM, (), {}, (BLOCK,), percents=(50.0, 90.0, 99.0), percent=99.0, bound_ms=10.0)


def seen(count: int, failed: int = 0) -> Measurement:
    """Calls two milliseconds apart whose latencies are 1, 2, … 100 ms and again; the last ones failed."""
    number = np.arange(count)
    due = number * 2 * MS
    status = np.where(number >= count - failed, UNAVAILABLE, 0)
    records = np.column_stack((due, due, due + (number * 37 % 100 + 1) * MS, status, 0 * number)).astype(np.int64)
    limits = Limits(warm_up=0.0, watched=50.0)
    return summarize([records], 0, limits, [Ending(0.1, 0, 0, {})], offsets=None, places=[1000], steady=False)


def test_latencies_are_in_milliseconds_and_the_throughput_in_requests_a_second() -> None:
    found = figures(ORDER, seen(1000))
    assert found["throughput"] == pytest.approx(500, rel=0.05)
    assert {name: value for name, value in found.items() if name != "throughput"} == {
        "latency_ms p50": 50.0,
        "latency_ms p90": 90.0,
        "latency_ms p99": 99.0,
    }


def test_percentiles_of_too_few_calls_are_left_out() -> None:
    assert sorted(figures(ORDER, seen(100))) == ["latency_ms p50", "latency_ms p90", "throughput"]
    assert figures(ORDER, seen(1)) == {}


def test_a_call_that_failed_is_beyond_any_latency() -> None:
    one, many = figures(ORDER, seen(1000, failed=5)), figures(ORDER, seen(1000, failed=200))
    assert one["latency_ms p99"] > 99.0
    assert sorted(many) == ["latency_ms p50", "throughput"]
    assert many["latency_ms p50"] > 60


def test_a_block_that_was_not_measured_is_a_row_with_its_reason() -> None:
    row = not_measured(ORDER, BLOCK, "it could not be loaded", fingerprint="sha256:1")
    assert (row.verdict, row.reasons, row.figures) == (Verdict.NOT_MEASURED, ("it could not be loaded",), {})
    assert (row.order, row.round, row.stage, row.fingerprint) == (BLOCK, 2, Stage.CONFIRM, "sha256:1")
    assert Row.from_json(row.to_json()) == row


def test_a_file_that_is_no_trace_is_neither_told_nor_waited_for(tmp_path: Path) -> None:
    """Whoever starts a sweep names a file of the bench's host."""
    (tmp_path / "server.key").write_text("so-secret")
    os.mkfifo(tmp_path / "queue")
    subject = Subject("m", 1, *cast("tuple[Target, Traffic]", (None, None)), around=1.0)  # nothing is sent
    for name in ("server.key", "queue", "missing"):
        block = replace(BLOCK, step=Step(Shape.TRACE, str(tmp_path / name)))
        with pytest.raises(InvalidInput, match="one number of seconds on each line") as error:
            take(ORDER, block, subject, cast("Aim", None))
        assert "so-secret" not in f"{error.value.message} {error.value.hint}"
    with pytest.raises(InvalidInput, match="is no file"):
        take(ORDER, replace(BLOCK, step=Step(Shape.TRACE, "/dev/zero")), subject, cast("Aim", None))
