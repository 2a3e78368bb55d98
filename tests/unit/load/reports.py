# Reports of runs that never were, with everything in them, made by the code that makes real ones.
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from clients.load.calibrate import Calibration
from clients.load.checks import Difference
from clients.load.grpc_status import UNAVAILABLE
from clients.load.measure import Load, Target, summarize
from clients.load.options import Options
from clients.load.outcomes import STATUS
from clients.load.processes import Records
from clients.load.responses import summarize_responses
from clients.load.runs import Found, Point, Report
from clients.load.schedule import Curve, arrivals
from clients.load.search import holds
from clients.load.server import Shares
from clients.load.subject import Served, Subject
from clients.load.traffic import Part, Traffic
from clients.load.transports import Via
from clients.load.verdicts import Limits
from clients.load.worker import Ending

MS = 1_000_000
START = 5_000_000_000
SECONDS = 4.0
SHARES = Shares(
    succeeded=1180, failed=20, inferences=1180, executions=600, cache_hits=3, total_ns=1180 * 2_000_000,
    queue_ns=1180 * 400_000, input_ns=1180 * 50_000, infer_ns=1180 * 1_400_000, output_ns=1180 * 100_000,
    batches={1: 300, 2: 40, 3: 260},
)  # fmt: skip
TRAFFIC = Traffic(
    (
        Part("digits", (b"x" * 300, b"y" * 310), weight=3.0, expected=({}, {})),
        Part("speech", (b"z" * 1500,) * 4, version=7, lengths=(2, 4)),
    )
)


def _records(count: int, failing: bool) -> Records:
    """Evenly due over the time; sent up to half a millisecond later; answered 2 to 7 ms after that, in no order."""
    number = np.arange(count)
    due = START + (number * SECONDS * 1e9 / count).astype(np.int64)
    sent = due + number * 7 % 500 * 1000
    records = np.column_stack((due, sent, sent + 2 * MS + number * 7919 % 1000 * 5000, 0 * number, number % 6))
    if failing:
        records[::100, STATUS] = UNAVAILABLE
    return records.astype(np.int64)


def _rows(records: Records) -> Records:
    """Two responses for each request: half way, and at its end."""
    first = (records[:, 1] + records[:, 2]) // 2
    zero = np.zeros_like(first)
    rows = [
        np.column_stack((records[:, 0], records[:, 1], before, at, zero + n, records[:, 3], records[:, 2]))
        for n, (before, at) in enumerate(((records[:, 1], first), (first, records[:, 2])))
    ]
    return np.concatenate(rows)


def full() -> Report:
    """An open loop with failures, two models, wrong answers, several responses, gauges, a limit and a search."""
    options = Options(
        models=("digits=3", "speech:7"), find_rate="100:1000", limits=("p99<=10ms",), metrics_url="http://m"
    )
    limits = Limits(seconds=3.5, cap=3.5, bounds=((99.0, 0.01),))
    load = Load(curve=Curve.flat(300))
    records = _records(1200, failing=True)
    wrong = Difference(1, "y", (0, 3), "0.5", "0.75", answered=START)
    ending = Ending(0.25, 1, 2, {UNAVAILABLE: "the server closed the connection"}, 900, {1: 2}, (wrong,))
    measured = summarize(
        [records], START, limits, [ending], offsets=arrivals(Curve.flat(300), SECONDS, process="even", seed=0),
        places=[1000], steady=True, ceiling=8000.0, transport=str(Via("stream")), traffic=TRAFFIC,
    )  # fmt: skip
    measured = replace(measured, streaming=summarize_responses([_rows(records)], measured.window, 99.0))
    asked = (99.0, 0.01)
    point = Point(
        "300/s", load, limits, measured, Calibration(8000.0, 0.0002, 32), {"digits": SHARES, "speech:7": SHARES},
        {'nv_gpu_utilization{gpu_uuid="GPU-1"}': [0.5, 0.75]}, ((asked, holds(measured, [asked])),),
    )  # fmt: skip
    subject = Subject(
        Target("127.0.0.1", 8001, via=Via("stream")), "triton 2.51.0",
        (Served("digits", None, (1, 2)), Served("speech", 7, (7,))), 1, TRAFFIC,
    )  # fmt: skip
    return Report(
        options, subject, datetime(2026, 11, 22, 9, tzinfo=UTC), (point,), Found(300.0, 424.0), interrupted=False
    )


def plain() -> Report:
    """A ladder of a closed loop in which nothing went wrong, without calibration, statistics or metrics; interrupted and broken down."""
    options = Options(models=("digits",), concurrency="1,2", calibration=False)
    limits = Limits(seconds=3.5, cap=3.5)
    traffic = Traffic((Part("digits", (b"x" * 300,)),))
    points = []
    for concurrency, count in ((1, 600), (2, 1200)):
        records = _records(count, failing=False)
        records[:, 1] = records[:, 0]
        measured = summarize(
            [records], START, limits, [Ending(0.2, 0, 0, {})], offsets=None, places=[1000], steady=True,
            transport=str(Via()), traffic=traffic,
        )  # fmt: skip
        points.append(
            Point(f"{concurrency} in flight", Load(concurrency=concurrency), limits, measured, None, None, {}, ())
        )
    subject = Subject(Target("127.0.0.1", 8001), "triton 2.51.0", (Served("digits", None, (1, 2)),), 1, traffic)
    return Report(
        options, subject, datetime(2026, 11, 22, 9, tzinfo=UTC), tuple(points), None, interrupted=True,
        failure="a sending process died in the middle",
    )  # fmt: skip
