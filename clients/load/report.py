# A run as programs read it: JSON by the schema that SCHEMA.md describes, and CSV.
from __future__ import annotations

import csv
import io
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from clients.load.calibrate import Calibration
from clients.load.histogram import encode
from clients.load.measure import Measurement
from clients.load.outcomes import ANSWERED, DUE, SENT, STATUS, TAG, Latency, PartResult, succeeded
from clients.load.responses import Streaming
from clients.load.runs import Point, Report, all_held
from clients.load.series import series
from clients.load.server import PARTS, Shares, added
from clients.load.statistics import Interval
from clients.load.subject import Served
from clients.load.traffic import Part

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

SCHEMA = "triton-controlplane/load/1"


def to_json(report: Report) -> dict[str, Json]:
    """Times in seconds, but for what the server counts, in µs; what is not known is null."""
    subject = report.subject
    return {
        "schema": SCHEMA,
        "begun": report.begun.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "interrupted": report.interrupted,
        "status": report.status,
        "failure": report.failure,
        "options": {name: _plain(value) for name, value in asdict(report.options).items()},
        "client": {
            "host": platform.node(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "server": {"address": subject.address, "name": subject.server},
        "models": [_model(served, part) for served, part in zip(subject.models, subject.traffic.parts, strict=True)],
        "points": [_point(point) for point in report.points],
        "highest_rate": None
        if report.found is None
        else {"holds": report.found.holds or None, "fails": _finite(report.found.fails)},
    }


def _model(served: Served, part: Part) -> Json:
    sizes = [len(message) for message in part.messages]
    return {
        "name": served.name,
        "version": served.answering,
        "ready": list(served.versions),
        "weight": part.weight,
        "distinct": len(sizes),
        "smallest_bytes": min(sizes),
        "largest_bytes": max(sizes),
        "sequence_length": None if part.lengths is None else list(part.lengths),
        "checked": bool(part.expected),
    }


def _point(point: Point) -> Json:
    measured, load = point.measured, point.load
    good = succeeded(measured.window)
    return {
        "name": point.name,
        "concurrency": load.concurrency or None,
        "verdict": measured.verdict,
        "reasons": list(measured.reasons),
        "limits": [{"percentile": percent, "seconds": bound, "held": held} for (percent, bound), held in point.held],
        "seconds": measured.seconds,
        "offered": measured.offered,
        "sent": measured.sent,
        "completed": measured.completed,
        "failed": dict(measured.failed),
        "failures": dict(measured.failures),
        "late": measured.late,
        "held": measured.held,
        "lateness_p99": measured.lateness_p99,
        "warm_up": {"seconds": point.limits.warm_up, "calls_found": measured.cut},
        "rate": interval(measured.rate),
        "latency": _latency(measured.latency),
        "histograms": {
            name: encode(good[:, ANSWERED] - good[:, column]) for name, column in (("scheduled", DUE), ("sent", SENT))
        },
        "transport": measured.transport,
        "client": {"cpu_seconds": measured.client_cpu, "reconnects": measured.reconnects},
        "calibration": _calibration(point.calibration),
        "server": None if point.shares is None else {label: _shares(one) for label, one in point.shares.items()},
        "parts": {label: _part(part) for label, part in measured.parts.items()},
        "answers": _answers(measured),
        "streaming": None if measured.streaming is None else _streaming(measured.streaming),
        "gauges": {
            name: {"mean": float(np.mean(values)), "highest": float(max(values)), "samples": len(values)}
            for name, values in sorted(point.gauges.items())
        },
        "series": _columns(measured),
    }


def _latency(latency: Latency) -> dict[str, Json]:
    return {"scheduled": _by_percent(latency.scheduled), "sent": _by_percent(latency.sent)}


def _by_percent(found: Mapping[float, Interval]) -> dict[str, Json]:
    return {f"p{percent:g}": interval(one) for percent, one in found.items()}


def _part(part: PartResult) -> Json:
    return {
        "sent": part.sent,
        "completed": part.completed,
        "failed": dict(part.failed),
        "differing": part.differing,
        "rate": interval(part.rate),
        "latency": _latency(part.latency),
    }


def _answers(measured: Measurement) -> Json:
    return {
        "checked": measured.checked,
        "differing": measured.differing,
        "differences": [
            {
                "part": one.part,
                "request": one.request,
                "output": one.output,
                "index": None if one.index is None else list(one.index),
                "expected": one.expected,
                "got": one.got,
            }
            for one in measured.differences
        ],
    }


def _streaming(found: Streaming) -> Json:
    return {
        "responses": found.responses,
        "fewest": found.fewest,
        "mean": found.mean,
        "most": found.most,
        "first": {"scheduled": _by_percent(found.first_scheduled), "sent": _by_percent(found.first_sent)},
        "between": _by_percent(found.between),
    }


def _columns(measured: Measurement) -> Json:
    found = series(measured.records, measured.start, measured.offsets)
    return {name: [_finite(one) for one in values.tolist()] for name, values in found.items()}


def _calibration(found: Calibration | None) -> Json:
    if found is None:
        return None
    return {"ceiling": found.ceiling, "floor": found.floor, "concurrency": found.concurrency}


def interval(one: Interval) -> Json:
    return {"value": _finite(one.value), "low": _finite(one.low), "high": _finite(one.high)}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _plain(value: object) -> Json:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _shares(shares: Shares) -> Json:
    return {
        "succeeded": shares.succeeded,
        "failed": shares.failed,
        "inferences": shares.inferences,
        "executions": shares.executions,
        "cache_hits": shares.cache_hits,
        "mean_us": {part: shares.mean_us(part) for part in PARTS},
        "batches": {str(size): count for size, count in shares.batches.items()},
    }


def to_csv(points: Sequence[Point]) -> str:
    """One line for each load; times in seconds, but for the server's, in µs. What is not known is empty."""
    percents = sorted({percent for point in points for percent in point.measured.latency.scheduled})
    rows = [_row(point, percents) for point in points]
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file.getvalue()


def _row(point: Point, percents: Sequence[float]) -> dict[str, object]:
    one = point.measured
    shares = added(point.shares)
    cells: dict[str, object] = {
        "load": point.name,
        "verdict": one.verdict,
        "held": all_held(point),
        "transport": one.transport,
        "seconds": one.seconds,
        "offered": one.offered,
        "sent": one.sent,
        "completed": one.completed,
        "failed": sum(one.failed.values()),
        "differing": one.differing,
        "late": one.late,
        "lateness_p99": one.lateness_p99,
        **_three("rate", one.rate),
    }
    for percent in percents:
        cells |= _three(f"p{percent:g}", one.latency.scheduled[percent])
        cells |= _three(f"send_p{percent:g}", one.latency.sent[percent])
    cells |= {f"server_{part}_us": shares.mean_us(part) if shares is not None else None for part in PARTS}
    cells["ceiling"] = point.calibration.ceiling if point.calibration is not None else None
    cells["floor"] = point.calibration.floor if point.calibration is not None else None
    return cells


def _three(name: str, one: Interval) -> Mapping[str, object]:
    return {name: _finite(one.value), f"{name}_low": _finite(one.low), f"{name}_high": _finite(one.high)}


def write_raw(report: Report, path: Path) -> None:
    """Every call of every load, warm-up included; times in ns from the start of its load."""
    points = report.points
    records = [point.measured.records - [*[point.measured.start] * 3, 0, 0] for point in points]
    joined = np.concatenate(records) if records else np.zeros((0, 5), np.int64)
    numbers = np.repeat(np.arange(len(points)), [len(one) for one in records])
    np.savez_compressed(
        path,
        loads=np.array([point.name for point in points]),
        load=numbers,
        due=joined[:, DUE],
        sent=joined[:, SENT],
        answered=joined[:, ANSWERED],
        status=joined[:, STATUS].astype(np.int8),
        request=joined[:, TAG].astype(np.int32),
    )
