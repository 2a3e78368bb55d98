# A whole run: what is asked is prepared, each load is measured, and everything that was seen is kept.
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, Protocol

from clients.inference import InferenceClient, InferenceError
from clients.load.calibrate import Calibration, calibrate
from clients.load.errors import LoadFailed, LoadInputError
from clients.load.expectations import shares_by_part
from clients.load.ladders import bounds, limit, loads
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.options import Options
from clients.load.outcomes import succeeded
from clients.load.processes import Records
from clients.load.schedule import Curve
from clients.load.search import highest_rate, holds
from clients.load.server import METRICS_PORT, Gauges, Shares, settled
from clients.load.shared_memory import Regions
from clients.load.statistics import Interval
from clients.load.subject import PORT, Subject, prepare
from clients.load.traffic import Traffic
from clients.load.verdicts import Bound

WATCHED = 99.0
_SPARE = 8
"""Slots for outputs in shared memory beyond the calls in flight: those of calls that are given up are not used again."""
_SLOTS = 64
"""Of each process in an open loop, which so has no more in flight."""
_SECONDS = 5.0
_MOST_SECONDS = 30.0
_OPEN_LOOP = 32
"""Calls in flight while the ceiling of an open loop is looked for."""
STATUSES = {"valid": 0, "errors": 3, "client_limited": 5, "too_few_samples": 6, "unstable": 7}
_BROKEN = 1
_NOT_HELD = 8
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Point:
    """One load and what came of it. `held` are the answers to the limits asked for: None where it cannot be told."""

    name: str
    load: Load
    limits: Limits
    measured: Measurement
    calibration: Calibration | None
    shares: Mapping[str, Shares] | None
    """Of the server by part of the traffic, over the whole of it, warm-up included; None where the server does not tell."""
    gauges: Mapping[str, Sequence[float]]
    held: tuple[tuple[Bound, bool | None], ...]


def all_held(point: Point) -> Literal["", "yes", "no", "unknown"]:
    """Of all limits together; empty when there are none."""
    answers = {held for _, held in point.held}
    if not answers:
        return ""
    return "no" if False in answers else "unknown" if None in answers else "yes"


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that was seen to hold the limits, 0 when not even the lowest did, and the lowest that was not,
    infinite when all did."""

    holds: float
    fails: float


@dataclass(frozen=True, slots=True)
class Report:
    options: Options
    subject: Subject
    begun: datetime
    points: tuple[Point, ...]
    found: Found | None
    interrupted: bool
    failure: str | None = None
    """What broke down after the first load, and ended the run before its end."""

    @property
    def status(self) -> int:
        """The exit status: of the gravest that happened."""
        if self.interrupted:
            return _INTERRUPTED
        if self.failure is not None:
            return _BROKEN
        if self.options.find_rate is not None:
            return 0 if self.found is not None and self.found.holds > 0 else _NOT_HELD
        verdicts = {point.measured.verdict for point in self.points}
        gravest = next((status for verdict, status in STATUSES.items() if status and verdict in verdicts), 0)
        if not gravest and any(held is not True for point in self.points for _, held in point.held):
            return _NOT_HELD
        return gravest


class Watcher:
    """Is told how a run goes, and ends it by `stopping`. This one says nothing."""

    stopping: bool = False

    def prepared(self, subject: Subject) -> None: ...

    def calibrating(self) -> None: ...

    def begins(self, name: str, limits: Limits) -> None: ...

    def goes_on(self, seconds: float, records: Records) -> None:
        """A few times a second, with what ended since."""

    def knows(self, rate: Interval, watched: Interval) -> None:
        """Now and then: how well they are known by now."""

    def ended(self, point: Point) -> None: ...


class _Stopped(Exception):  # no error: somebody pressed Ctrl-C
    pass


class Measuring(Protocol):
    """How one load is measured: as `measure` does, with these of its arguments."""

    def __call__(
        self,
        target: Target,
        messages: Traffic,
        load: Load,
        limits: Limits,
        *,
        processes: int,
        connections: int,
        seed: int,
        ceiling: float,
        progress: Callable[[float, Records], bool],
        known: Callable[[Interval, Interval], None],
    ) -> Measurement: ...


def run(options: Options, watcher: Watcher | None = None, measuring: Measuring = measure) -> Report:
    """Raises LoadInputError before anything is sent, LoadFailed when the generator breaks down before a load was measured."""
    watcher = watcher or Watcher()
    asked = [limit(text) for text in options.limits]
    named = _loads(options)
    if options.find_rate is not None and not asked:
        raise LoadInputError("--find-rate without a limit", "say what has to hold: --limit 'p99<=10ms'")
    subject = prepare(options)
    if (
        subject.traffic.stateful
        and options.sequences < options.processes
        and not all(load.concurrency for _, load in named)
    ):
        raise LoadInputError(
            f"{options.sequences} sequences under way for {options.processes} processes",
            "an open loop has to know how many, at least one for each process: --sequences 16",
        )
    watcher.prepared(subject)
    begun = datetime.now(UTC)
    runner = _Runner(options, subject, asked, watcher, measuring)
    found = failure = None
    try:
        if options.find_rate is None:
            for name, load in named:
                runner.point(name, load)
        else:
            low, high = bounds(options.find_rate)
            good, bad, _ = highest_rate(runner.at, asked, low=low, high=high, within=options.within)
            found = Found(good, bad)
    except _Stopped:
        pass
    except (LoadFailed, LoadInputError) as error:
        if not runner.points:
            raise
        failure = str(error)
    points = tuple(runner.points)
    return Report(options, subject, begun, points, found, interrupted=watcher.stopping, failure=failure)


def _loads(options: Options) -> list[tuple[str, Load]]:
    shape = {"concurrency": options.concurrency, "rate": options.rate, "bursts": options.bursts, "ramp": options.ramp,
             "curve": options.curve}  # fmt: skip
    if options.find_rate is not None:
        given = [f"--{name}" for name, value in (*shape.items(), ("trace", options.trace)) if value is not None]
        if given:
            raise LoadInputError(f"--find-rate and {' and '.join(given)} at once", "one shape for each run")
        low, _ = bounds(options.find_rate)
        return [(options.find_rate, Load(curve=Curve.flat(low)))]
    found = loads(**shape, trace_file=options.trace, process=options.arrivals)
    return [(name, replace(load, most=options.most)) for name, load in found]


class _Runner:
    def __init__(
        self, options: Options, subject: Subject, asked: Sequence[Bound], watcher: Watcher, measuring: Measuring
    ) -> None:
        self._options = options
        self._subject = subject
        self._asked = asked
        self._watcher = watcher
        self._measuring = measuring
        self._metrics = options.metrics_url or _usual_metrics(subject)
        self._calibrations: dict[int, Calibration | None] = {}
        self.points: list[Point] = []

    def at(self, rate: float) -> Measurement:
        load = Load(curve=Curve.flat(rate), process=self._options.arrivals, most=self._options.most)
        return self.point(f"{rate:.5g}/s", load)

    def point(self, name: str, load: Load) -> Measurement:
        options, subject, watcher = self._options, self._subject, self._watcher
        if watcher.stopping:
            raise _Stopped
        limits = limits_of(options, load, self._asked)
        calibration = self._calibrated(load.concurrency or _OPEN_LOOP) if options.calibration else None
        if watcher.stopping:
            raise _Stopped
        watcher.begins(name, limits)

        def progress(seconds: float, records: Records) -> bool:
            watcher.goes_on(seconds, records)
            return not watcher.stopping

        with (
            subject.client() as client,
            _shared(client, options, subject, load) as (target, traffic),
            Gauges(self._metrics) as gauges,
        ):
            before = _counted(client, subject)
            measured = self._measuring(
                target,
                traffic,
                load,
                limits,
                processes=min(options.processes, load.concurrency or options.processes),
                connections=options.connections,
                seed=options.seed,
                ceiling=calibration.ceiling if calibration is not None else math.inf,
                progress=progress,
                known=watcher.knows,
            )
            answers = len(succeeded(measured.records))
            after = settled(lambda: _counted(client, subject), lambda seen: _all_of(before, seen, answers))
        held = tuple((one, holds(measured, [one])) for one in self._asked)
        point = Point(name, load, limits, measured, calibration, _between(before, after), gauges.samples, held)
        self.points.append(point)
        watcher.ended(point)
        if watcher.stopping:
            raise _Stopped
        return measured

    def _calibrated(self, concurrency: int) -> Calibration | None:
        if concurrency not in self._calibrations:
            self._watcher.calibrating()
            try:
                self._calibrations[concurrency] = calibrate(
                    self._subject.target,
                    concurrency=concurrency,
                    processes=min(self._options.processes, concurrency),
                    connections=self._options.connections,
                    floor=next((found.floor for found in self._calibrations.values() if found is not None), None),
                )
            except LoadFailed:  # such as a server that restricts the call: what is asked can be measured all the same
                self._calibrations[concurrency] = None
        return self._calibrations[concurrency]


@contextmanager
def _shared(
    client: InferenceClient, options: Options, subject: Subject, load: Load
) -> Iterator[tuple[Target, Traffic]]:
    """Where to send what, when tensors lie in shared memory."""
    if options.shared_memory == "none":
        yield subject.target, subject.traffic
        return
    both, parts = options.shared_memory == "both", subject.traffic.parts
    if both and (len(parts) > 1 or subject.traffic.stateful or subject.target.via.chosen == "stream"):
        raise LoadInputError(
            "outputs of several models, of sequences or of a stream in shared memory", "--shared-memory inputs"
        )
    messages = [message for part in parts for message in part.messages]
    slots = load.concurrency + _SPARE if load.concurrency else min(options.most, _SLOTS) * options.processes
    with Regions(client, messages, slots=slots, outputs=None if both else {}) as regions:
        moved = iter(regions.messages)
        parts = tuple(replace(part, messages=tuple(islice(moved, len(part.messages)))) for part in parts)
        yield replace(subject.target, shared=regions.slots), replace(subject.traffic, parts=parts)


def limits_of(options: Options, load: Load, asked: Sequence[Bound]) -> Limits:
    """A load that changes is measured whole, and not ended before: its precision says nothing."""
    whole = length_of(load, options.warm_up)
    seconds = options.seconds or whole or _SECONDS
    most = options.max_seconds or max(seconds, 0.0 if whole else _MOST_SECONDS)
    return Limits(
        seconds=min(seconds, most),
        cap=most,
        count=options.requests,
        warm_up=options.warm_up,
        precision=options.precision,
        watched=options.percentile or max((percent for percent, _ in asked), default=WATCHED),
        bounds=tuple(asked),
        errors=options.errors,
        lateness=options.lateness,
        timeout=options.timeout,
    )


def length_of(load: Load, warm_up: float) -> float | None:
    """Seconds after the warm-up that a load takes which is not the same all the time: to its end, or whole rounds."""
    if load.steady:
        return None
    if load.offsets is not None:
        end = float(load.offsets[-1]) / 1e9
    elif load.curve is not None and load.curve.repeats:
        return load.curve.period * math.ceil(_SECONDS / load.curve.period)
    else:
        assert load.curve is not None  # steady otherwise
        end = load.curve.pieces[0].end
    return max(end - warm_up, 0.1)


def _usual_metrics(subject: Subject) -> str | None:
    """Where Triton has its metrics, when the other port is the usual one."""
    host, port = subject.target.host, subject.target.port
    return f"http://{f'[{host}]' if ':' in host else host}:{METRICS_PORT}/metrics" if port == PORT else None


def _counted(client: InferenceClient, subject: Subject) -> Mapping[str, Shares] | None:
    try:
        return shares_by_part(client, subject.traffic)
    except InferenceError:
        return None


def _all_of(before: Mapping[str, Shares] | None, after: Mapping[str, Shares] | None, answers: int) -> bool:
    """Also where nobody can tell: waiting is no use then."""
    between = _between(before, after)
    return between is None or sum(shares.succeeded for shares in between.values()) >= answers


def _between(before: Mapping[str, Shares] | None, after: Mapping[str, Shares] | None) -> Mapping[str, Shares] | None:
    """None too when the server has begun to count anew, because it was started again."""
    if before is None or after is None:
        return None
    found = {label: after[label] - shares for label, shares in before.items()}
    return found if all(shares.succeeded >= 0 and shares.total_ns >= 0 for shares in found.values()) else None
