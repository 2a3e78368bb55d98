# What a bench is asked and what it answers, through JSON to another machine and back.
from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.fingerprints import Fingerprint, Serving
from controlplane.domain.sweep_rounds import (
    BenchModel,
    BlockOrder,
    CandidateFailure,
    Measurement,
    Requests,
    RoundOrder,
    RoundResult,
    Stage,
    Step,
    Verdict,
)
from controlplane.domain.sweep_spec import Shape

MODEL = BenchModel(
    "sha256:" + "ab" * 32,
    3,
    {"backend": "onnxruntime", "max_batch_size": 8, "instance_group": [{"count": 2, "kind": "KIND_CPU"}]},
    Manifest((FileEntry("model.onnx", 12, "sha256:" + "cd" * 32),)),
    Manifest((FileEntry("labels.txt", 3, "sha256:" + "ef" * 32),)),
)
BLOCK = BlockOrder(0, 1, MODEL.candidate, Step(Shape.FIND_RATE, "50:5000", "even"), 0.1 + 0.2, 2**31 - 1)
ORDER = RoundOrder(
    7,
    2,
    Stage.RACE,
    (MODEL, replace(MODEL, candidate="sha256:" + "12" * 32, version=4, beside=Manifest(()))),
    {3: Requests("sha256:" + "34" * 32), 4: Requests("sha256:" + "56" * 32, rows=4, sequences=True)},
    (BLOCK, replace(BLOCK, place=1, step=Step(Shape.CONCURRENCY, "16"), seconds=2.0)),
    percents=(50.0, 99.9),
    percent=99.0,
    bound_ms=12.5,
)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MEASUREMENT = Measurement(
    7,
    2,
    Stage.RACE,
    BLOCK,
    Verdict.UNSTABLE,
    ("the rate is known to 120 %",),
    started_at=NOON,
    finished_at=NOON,
    seconds=0.3,
    offered=12,
    sent=11,
    completed=10,
    failed=1,
    late=2,
    failure="UNAVAILABLE: gone",
    figures={"sustainable_rate": 1 / 3},
    histogram="HISTFAAA",
    server={"queue_ns": 2**60},
    batches={1: 4, 8: 2},
    transport="http2",
    steal_ppm=3,
    fingerprint="sha256:" + "78" * 32,
)


@pytest.mark.parametrize("order", [ORDER, replace(ORDER, percent=None, bound_ms=None, blocks=())])
def test_an_order_comes_back_from_json_as_it_was(order: RoundOrder) -> None:
    assert RoundOrder.from_json(json.loads(json.dumps(order.to_json()))) == order


def test_a_result_comes_back_from_json_as_it_was() -> None:
    result = RoundResult(
        (MEASUREMENT, replace(MEASUREMENT, steal_ppm=None, verdict=Verdict.NOT_MEASURED)),
        (CandidateFailure(MODEL.candidate, "it ended", "the log"),),
        Fingerprint(None, Serving("2.51.0"), local=False, packages=(), control_plane="0.2.0", commit=None),
        (Fingerprint(None, Serving("2.51.0"), local=False, packages=(), control_plane="0.2.0", commit="ab"),),
    )
    assert RoundResult.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize("field", ["models", "blocks", "requests", "sweep", "stage"])
def test_what_is_no_order_is_refused(field: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        RoundOrder.from_json({**ORDER.to_json(), field: "7"})
