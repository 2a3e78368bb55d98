# One block: a load on one candidate, and the row that it leaves.
from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.inference import InferenceClient, InferenceError
from clients.load import histogram
from clients.load.errors import LoadInputError
from clients.load.grpc_status import CANCELLED
from clients.load.ladders import bounds, loads
from clients.load.measure import Limits, Load, Target, measure
from clients.load.measure import Measurement as Measured
from clients.load.outcomes import ANSWERED, DUE, SENT, STATUS, succeeded
from clients.load.processes import Records, SenderPool
from clients.load.schedule import Curve, Process
from clients.load.server import Shares, settled, statistics
from clients.load.statistics import fewest
from clients.load.traffic import Traffic
from controlplane.bench.crossing import Crossing, Where, crossing
from controlplane.bench.fingerprint import ProcessorTime, stolen_ppm
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, RoundOrder, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from controlplane.errors import InvalidInput

_MOST_IN_FLIGHT = 256
_HALF = 0.5
"""Of the bound: what calls wait on average, where a rate is looked for that nobody gave the ends of."""
_WARM_UP = 0.1
"""Of a block that is long enough; candidates were warmed up when they were loaded."""
_LATE, _LATE_UNBOUND = 0.001, 0.005
_TO_BLAME = 1.1
"""So many times the rate must the latency from the send hold, for the client's own lateness to be what broke the bound."""
_TIMEOUT_SECONDS = 30.0
_SILENT_SECONDS, _IDLE_LOOKS = 10.0, 2
_BEHIND_SECONDS = 2.0
_LOST_SECONDS = 0.1
_MOST_TRACE_BYTES = 64 << 20
_LOST_REPORTS = 2
"""A quarter of a second each: a single stall of the machine does not end a block."""
_SHARED = ("succeeded", "failed", "inferences", "executions", "total_ns", "queue_ns", "input_ns", "infer_ns", "output_ns",
           "cache_hits")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """A candidate as it is loaded. `around` is the rate that it was last seen to answer with many in flight."""

    name: str
    version: int
    target: Target
    traffic: Traffic
    around: float


@dataclass(frozen=True, slots=True)
class Aim:
    """What of the load generator's is the same for all blocks; `ceiling` is the client's, in calls a second, with so many in
    flight."""

    client: InferenceClient
    pool: SenderPool
    ceiling: Callable[[int], float]
    fingerprint: str
    go_on: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """A block's row, and the rate that the next one which looks for one is to go by."""

    measurement: Measurement
    around: float


class Silent(Exception):
    """The candidate answers nothing any more, nor does it work on anything."""


def not_measured(order: RoundOrder, block: BlockOrder, reason: str, *, fingerprint: str) -> Measurement:
    now = datetime.now(UTC)
    return Measurement(
        order.sweep,
        order.number,
        order.stage,
        block,
        Verdict.NOT_MEASURED,
        (reason,),
        started_at=now,
        finished_at=now,
        fingerprint=fingerprint,
    )


def take(order: RoundOrder, block: BlockOrder, subject: Subject, aim: Aim) -> Taken:
    """Raises LoadInputError and InvalidInput for a step that cannot be sent, LoadFailed of the load generator when its own process
    died, InferenceError where the server does not tell its statistics, Silent, and what `aim.go_on` raises."""
    looks = block.step.shape is Shape.FIND_RATE
    if looks and (order.bound_ms is None or order.percent is None):
        raise InvalidInput(
            "a rate is looked for at which no latency is to hold", hint="give the model an objective such as p99"
        )
    load, rising = _load(block.step, block.seconds, _in_flight(subject.around, order.bound_ms))
    ceiling = math.inf if looks else aim.ceiling(load.concurrency or math.ceil(_highest(load) / 50))
    started_at, clock = datetime.now(UTC), ProcessorTime.now()
    before = statistics(aim.client, subject.name, version=subject.version)
    measured = measure(
        subject.target,
        subject.traffic,
        load,
        _limits(order, block, load, rising=rising is not None),
        seed=block.seed,
        ceiling=ceiling,
        progress=_watch(order, load, aim.go_on, rising=rising is not None),
        pool=aim.pool,
    )
    shares = _asked(aim.client, subject, before, int((measured.records[:, STATUS] == 0).sum()))
    if (measured.records[:, STATUS] == CANCELLED).any() and not _settled(subject, aim):
        raise Silent(f"it answered {measured.completed} requests, and nothing any more, though it was waited for")
    row = _row(order, block, measured, shares)
    row = replace(
        row,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        steal_ppm=stolen_ppm(clock, ProcessorTime.now()),
        fingerprint=aim.fingerprint,
    )
    if not looks:
        return Taken(replace(row, figures=figures(order, measured)), subject.around)
    assert order.bound_ms is not None
    assert order.percent is not None
    if rising is None:
        return _within(row, measured, load.concurrency, order.bound_ms)
    rate, said = _risen(measured, rising, block.seconds, order.bound_ms / 1000, 1 - order.percent / 100)
    row = replace(row, reasons=(*row.reasons, *said))
    if rate is not None:
        row = replace(row, figures={"sustainable_rate": rate})
    elif row.verdict is Verdict.VALID:
        row = replace(row, verdict=Verdict.CLIENT_LIMITED)
    return Taken(row, subject.around)


def figures(order: RoundOrder, measured: Measured) -> dict[str, float]:
    """By the names of objectives. A call that failed is beyond any latency, so that a percentile of which too many failed is
    left out, as is one of too few calls."""
    found = {}
    if measured.completed >= 2:
        found["throughput"] = measured.rate.value
    window = measured.window
    waited = np.where(window[:, STATUS] == 0, (window[:, ANSWERED] - window[:, DUE]) / 1e6, np.inf)
    waited.sort()
    for percent in order.percents:
        if len(waited) < fewest(percent):
            continue
        value = float(waited[max(0, math.ceil(percent / 100 * len(waited)) - 1)])
        if math.isfinite(value):
            found[f"latency_ms p{percent:g}"] = value
    return found


def _in_flight(around: float, bound_ms: float | None) -> int:
    """Little's law: with so many, who answers `around` a second has calls wait for half of the bound on average."""
    return min(max(1, round(_HALF * (bound_ms or 0.0) / 1000 * around)), _MOST_IN_FLIGHT)


def _within(row: Measurement, measured: Measured, in_flight: int, bound_ms: float) -> Taken:
    """What came within the bound, a second. Who needs longer than the bound, or for whom so many are too many, shows less than it
    answers; the next block goes by what it answered now."""
    good = succeeded(measured.window)
    kept = int((good[:, ANSWERED] - good[:, SENT] <= bound_ms * 1e6).sum())
    if not len(good) or measured.seconds <= 0:
        return Taken(row, measured.rate.value or 1.0)
    said = f"{in_flight} in flight: {len(good) / measured.seconds:.4g}/s answered, {kept / len(good):.1%} within {bound_ms:g} ms"
    rate = max(kept, 1) / measured.seconds
    return Taken(
        replace(row, figures={"sustainable_rate": rate}, reasons=(*row.reasons, said)), len(good) / measured.seconds
    )


def _load(step: Step, seconds: float, in_flight: int) -> tuple[Load, tuple[float, float] | None]:
    """And between which rates it rises, where somebody gave the ends between which one is looked for."""
    process: Process = "even" if step.process == "even" else "poisson"
    if step.shape is Shape.FIND_RATE and not step.text:
        return Load(concurrency=in_flight), None
    if step.shape is Shape.FIND_RATE:
        low, high = bounds(step.text)
        curve = Curve.ramp(low, high, seconds)
        return Load(curve=curve, process=process, most=_places(curve, seconds)), (low, high)
    text: Mapping[str, str | None] = {
        shape.value: step.text if shape is step.shape else None
        for shape in (Shape.CONCURRENCY, Shape.RATE, Shape.BURSTS, Shape.RAMP, Shape.CURVE)
    }
    file = _trace_file(step.text) if step.shape is Shape.TRACE else None
    try:
        found = loads(
            concurrency=text["concurrency"],
            rate=text["rate"],
            bursts=text["bursts"],
            ramp=text["ramp"],
            curve=text["curve"],
            trace_file=file,
            process=process,
        )
    except LoadInputError:
        if file is None:
            raise
        raise _no_trace(step.text) from None
    if len(found) != 1:
        raise InvalidInput(f"{step.label} is {len(found)} steps", hint="a block is one of them")
    load = found[0][1]
    if load.offsets is not None:
        return replace(load, most=len(load.offsets)), None
    return (load if load.curve is None else replace(load, most=_places(load.curve, seconds))), None


def _trace_file(name: str) -> Path:
    """Whoever starts a sweep names a file of the bench's host: nothing that never ends, or waits, is read."""
    path = Path(name)
    try:
        fine = path.is_file() and path.stat().st_size <= _MOST_TRACE_BYTES
    except (OSError, ValueError):
        fine = False
    if not fine:
        raise _no_trace(name)
    return path


def _no_trace(name: str) -> InvalidInput:
    """Without a word of what the file has in it: it may be a key."""
    return InvalidInput(
        f"{name[:200]} is no file with one number of seconds on each line, on the host of the bench",
        hint=f"at most {_MOST_TRACE_BYTES >> 20} MiB",
    )


def _places(curve: Curve, seconds: float) -> int:
    """Enough for all that is due: whoever waits for a place is not on the server."""
    return math.ceil(curve.area(seconds + _WARM_UP)) + 1000


def _highest(load: Load) -> float:
    return max(max(piece.first, piece.last) for piece in load.curve.pieces) if load.curve is not None else 0.0


def _limits(order: RoundOrder, block: BlockOrder, load: Load, *, rising: bool) -> Limits:
    bound = (order.bound_ms or 0) / 1000
    if rising:  # its calls are to be late at the end, and so is the client when the server takes all processors
        return Limits(
            seconds=block.seconds,
            cap=block.seconds,
            warm_up=0.0,
            precision=math.inf,
            watched=50.0,
            errors=1.0,
            lateness=math.inf,
            timeout=_TIMEOUT_SECONDS,
        )
    return Limits(
        seconds=block.seconds,
        cap=block.seconds,
        warm_up=min(_WARM_UP, block.seconds / 10),
        precision=1.0 if load.steady else math.inf,
        watched=order.percent or 50.0,
        lateness=max(_LATE, bound / 10) if bound else _LATE_UNBOUND,
        timeout=_TIMEOUT_SECONDS,
    )


def _watch(
    order: RoundOrder, load: Load, go_on: Callable[[], None], *, rising: bool
) -> Callable[[float, Records], bool]:
    """Ends a block in which nothing succeeds any more, and an open loop in which the server is behind for good: more calls would
    only tell the same, and harm it."""
    bound = (order.bound_ms or 0) / 1000
    much = max(2 * bound, bound + _LOST_SECONDS) if rising else _BEHIND_SECONDS + 2 * bound
    reports, last = 0, time.monotonic()

    def watch(_elapsed: float, records: Records) -> bool:
        nonlocal reports, last
        go_on()
        now = time.monotonic()
        if len(records):
            last = now
            waited = records[:, ANSWERED] - records[:, DUE]
            late = not load.concurrency and float(np.median(waited)) / 1e9 > much
            behind = late or bool(records[:, STATUS].all())
        else:
            behind = not load.concurrency and now - last > max(much, 1.0)
        reports = reports + 1 if behind else 0
        return reports < _LOST_REPORTS

    return watch


def _settled(subject: Subject, aim: Aim) -> bool:
    """Waits for one answer: what was given up is in the server's queue still, and the next block is not to stand in it. False where
    nothing comes and nothing is executed either: a server whose memory is damaged goes on saying that it is alive."""

    def watch(_elapsed: float, _records: Records) -> bool:
        aim.go_on()
        return True

    limits = Limits(count=1, warm_up=0.0, watched=50.0, cap=_SILENT_SECONDS, timeout=_SILENT_SECONDS)
    end, executed, idle = time.monotonic() + _TIMEOUT_SECONDS, _executed(subject, aim), 0
    while time.monotonic() < end and idle < _IDLE_LOOKS:
        one = measure(subject.target, subject.traffic, Load(concurrency=1), limits, progress=watch, pool=aim.pool)
        if one.completed:
            return True
        before, executed = executed, _executed(subject, aim)
        idle = idle + 1 if executed is None or executed == before else 0
    return idle < _IDLE_LOOKS


def _executed(subject: Subject, aim: Aim) -> int | None:
    """Batches so far; None where the server does not tell."""
    try:
        return statistics(aim.client, subject.name, version=subject.version).executions
    except InferenceError:
        return None


def _asked(client: InferenceClient, subject: Subject, before: Shares, answers: int) -> Shares | None:
    """None where the server went away meanwhile, or loaded the model anew."""
    try:
        after = settled(
            lambda: statistics(client, subject.name, version=subject.version),
            lambda seen: seen.succeeded < before.succeeded or seen.succeeded - before.succeeded >= answers,
        )
    except InferenceError:
        return None
    return after - before if after.succeeded >= before.succeeded else None


def _row(order: RoundOrder, block: BlockOrder, measured: Measured, shares: Shares | None) -> Measurement:
    good = succeeded(measured.window)
    now = datetime.now(UTC)
    return Measurement(
        order.sweep,
        order.number,
        order.stage,
        block,
        Verdict(measured.verdict),
        measured.reasons,
        started_at=now,
        finished_at=now,
        seconds=measured.seconds,
        offered=measured.offered,
        sent=measured.sent,
        completed=measured.completed,
        failed=sum(measured.failed.values()),
        late=measured.late,
        failure=next((f"{code}: {text}" for code, text in measured.failures.items()), ""),
        histogram=histogram.encode(good[:, ANSWERED] - good[:, DUE]),
        histogram_sent=histogram.encode(good[:, ANSWERED] - good[:, SENT]),
        server={} if shares is None else {name: getattr(shares, name) for name in _SHARED},
        batches={} if shares is None else dict(shares.batches),
        transport=measured.transport,
    )


def _risen(
    measured: Measured, between: tuple[float, float], seconds: float, bound: float, allowed: float
) -> tuple[float | None, tuple[str, ...]]:
    """The rate at the crossing, which is an end of the ramp where it lies beyond that, and None where the client was
    to blame: it was late, and by the latency from when requests were sent the bound broke later; and all that in words."""
    low, high = between
    calls = measured.window[np.argsort(measured.window[:, DUE], kind="stable")]
    slope = (high - low) / seconds
    rates = np.asarray(low + slope * (calls[:, DUE] - measured.start) / 1e9, float)

    def crossed(since: int) -> Crossing:
        late: NDArray[np.bool_] = (calls[:, STATUS] != 0) | (calls[:, ANSWERED] - calls[:, since] > bound * 1e9)
        return crossing(rates, late, allowed=allowed, slope=slope, bound=bound)

    found, reached = crossed(DUE), float(rates[-1]) if len(rates) else low
    said = f"the rate rose from {low:.4g}/s to {reached:.4g}/s"
    if found.where is Where.ABOVE:
        said += f", and the bound of {1000 * bound:g} ms held to the end: it is at least that; look higher"
        return reached, (said,)
    rate = found.rate
    if rate is None:
        rate = low
        said += f", and the bound of {1000 * bound:g} ms did not hold from the first on: it is at most that; look lower"
    own = calls[: found.place + 1, SENT] - calls[: found.place + 1, DUE]
    late_by = float(np.quantile(own, 0.99)) / 1e9 if len(own) else 0.0
    from_sent = crossed(SENT)
    later = math.inf if from_sent.where is Where.ABOVE else from_sent.rate or low
    if late_by <= max(_LATE, bound / 4) or later <= _TO_BLAME * rate:
        return rate, (said,)
    return None, (said, f"the client sent late before that: p99 {1e3 * late_by:.2f} ms")
