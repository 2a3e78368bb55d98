# One load point from start to verdict: sends until the asked precision is reached, then says what was seen and how surely.
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from clients.load.checks import Difference
from clients.load.errors import LoadInputError
from clients.load.grpc_status import NAMES
from clients.load.outcomes import ANSWERED, DUE, SENT, Latency, PartResult, by_part, failed, latency, rate, succeeded
from clients.load.processes import NOTHING, Records, Senders
from clients.load.responses import Streaming, summarize_responses
from clients.load.schedule import Curve, Offsets, Process, arrivals
from clients.load.statistics import Interval, fewest, percentile, warm_up
from clients.load.traffic import Traffic
from clients.load.transports import Via
from clients.load.worker import Ending, Job

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
INFER = "/inference.GRPCInferenceService/ModelInfer"
_LATE_NS = 1_000_000
NEAR = 0.8
"""A rate over this share of the client's ceiling says more of the client than of the server."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: a gRPC call of one message, by default an inference."""

    host: str
    port: int
    path: str = INFER
    metadata: tuple[tuple[str, str], ...] = ()
    via: Via = field(default_factory=Via)


@dataclass(frozen=True, slots=True)
class Load:
    """Closed loop: `concurrency` calls in flight. Open loop: a `curve` of rates, or the `offsets` of a trace, with at most
    `most` calls in flight for each process. Of sequences at most one call each is in flight: see `Traffic.live`."""

    concurrency: int = 0
    curve: Curve | None = None
    process: Process = "poisson"
    offsets: Offsets | None = None
    most: int = 1000

    def __post_init__(self) -> None:
        if sum((self.concurrency > 0, self.curve is not None, self.offsets is not None)) != 1:
            raise LoadInputError("one load is needed", "a concurrency, a rate or a trace")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a measurement ends and what it may claim. Times in seconds.

    It ends after `seconds` at the least, when rate and `watched` percentile have `precision` (half an interval, as a share),
    at the latest after `cap`; or after `count` calls. More than `errors` of the calls failed, or a lateness p99 over
    `lateness`, is said in the verdict.
    """

    seconds: float = 5.0
    cap: float = 30.0
    count: int | None = None
    warm_up: float = 0.5
    precision: float = 0.05
    watched: float = 99.0
    errors: float = 0.0
    lateness: float = 0.001
    timeout: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """`seconds` is the window that counts, after the warm-up; `offered` are the calls that were due in it."""

    verdict: str
    reasons: tuple[str, ...]
    seconds: float
    offered: int
    sent: int
    completed: int
    failed: dict[str, int]
    failures: dict[str, str]
    late: int
    lateness_p99: float
    rate: Interval
    latency: Latency
    client_cpu: float
    reconnects: int
    records: Records = field(repr=False)
    """All calls, those of the warm-up too, by the time of their answer."""
    window: Records = field(repr=False)
    """Those of them that count."""
    start: int
    """Of the run, in the clock of the records."""
    offsets: Offsets | None = field(repr=False)
    """When calls were due until the end, sent or not; None in a closed loop."""
    transport: str = ""
    streaming: Streaming | None = None
    """Of requests over ModelStreamInfer, whose `latency` is that of their end."""
    parts: dict[str, PartResult] = field(default_factory=dict)
    """By label, where the traffic has more than one part."""
    checked: int = 0
    """Answers that were compared with expected ones, over the whole run, warm-up included; `differing` of them were others,
    `differences` are the first few."""
    differing: int = 0
    differences: tuple[Difference, ...] = ()


def measure(
    target: Target,
    messages: Traffic | tuple[bytes, ...],
    load: Load,
    limits: Limits,
    *,
    processes: int = 1,
    connections: int = 1,
    seed: int = 0,
    ceiling: float = np.inf,
    progress: Callable[[float, Records], bool] = lambda _seconds, _records: True,
) -> Measurement:
    """Send and say what was seen. `progress` is told a few times a second, and ends the run by returning False; `ceiling` is
    what a calibration found, in calls a second. `messages` are requests of one model, or a whole `Traffic`."""
    traffic = messages if isinstance(messages, Traffic) else Traffic.of(messages)
    due = _due(load, limits, seed)
    jobs = _jobs(target, traffic, load, limits, due, processes=processes, connections=connections, seed=seed)
    blocks: list[Records] = []
    with Senders(jobs) as senders:
        start = senders.start()
        ended = start if due is None or not len(due) else start + int(due[-1])
        checked, stopping, seen = 0.0, False, 0
        for block in senders.blocks():
            blocks.append(block)
            seen += len(block)
            elapsed = (time.monotonic_ns() - start) / 1e9
            if stopping or elapsed < checked + 0.25:
                continue
            checked = elapsed
            if not progress(elapsed, block) or _enough(blocks, start, elapsed, seen, limits):
                ended = time.monotonic_ns()
                senders.stop(ended)
                stopping = True
        endings = senders.endings
    records = np.concatenate(blocks) if blocks else NOTHING
    measured = summarize(
        records,
        start,
        limits,
        endings,
        offsets=None if due is None else due[due <= ended - start],
        ceiling=ceiling,
        transport=str(target.via),
        traffic=traffic,
    )
    if target.via.chosen != "stream":
        return measured
    return replace(measured, streaming=summarize_responses(senders.heard, measured.window, limits.watched))


def _due(load: Load, limits: Limits, seed: int) -> Offsets | None:
    """When calls are due; None in a closed loop."""
    if load.curve is None:
        return load.offsets
    return arrivals(load.curve, limits.warm_up + limits.cap, process=load.process, seed=seed)


def _jobs(
    target: Target,
    traffic: Traffic,
    load: Load,
    limits: Limits,
    offsets: Offsets | None,
    *,
    processes: int,
    connections: int,
    seed: int,
) -> list[Job]:
    random = np.random.default_rng(seed)
    if load.concurrency and load.concurrency < processes:
        raise LoadInputError(f"{load.concurrency} in flight over {processes} processes", "fewer processes")
    inside = [len(range(number, load.concurrency or traffic.live, processes)) for number in range(processes)]
    plans, prepared = traffic.plans(inside, seed), traffic.messages
    return [
        Job(
            address=(target.host, target.port),
            path=target.path,
            metadata=target.metadata,
            messages=prepared,
            order=traffic.order(random),
            connections=connections,
            via=target.via,
            concurrency=inside[number] if load.concurrency else 0,
            offsets=np.zeros(0, np.int64) if offsets is None else offsets[number::processes],
            most=load.most if plan is None else min(load.most, plan.live),
            timeout_ns=int(limits.timeout * 1e9),
            plan=plan,
            expected=traffic.expected,
        )
        for number, plan in enumerate(plans)
    ]


def _enough(blocks: list[Records], start: int, elapsed: float, seen: int, limits: Limits) -> bool:
    if limits.count is not None:
        return seen >= limits.count
    if elapsed >= limits.warm_up + limits.cap:
        return True
    if elapsed < limits.warm_up + limits.seconds:
        return False
    window = _window(np.concatenate(blocks), start, limits)
    good = succeeded(window)
    if len(good) < fewest(limits.watched):
        return False
    watched = percentile((good[:, ANSWERED] - good[:, DUE]) / 1e9, limits.watched)
    return max(rate(good).precision, watched.precision) <= limits.precision


def _window(records: Records, start: int, limits: Limits) -> Records:
    """The calls that count, by the time of their answer: due after the warm-up that was asked for and the one found."""
    ordered = records[np.argsort(records[:, ANSWERED], kind="stable")]
    kept = ordered[ordered[:, DUE] >= start + int(limits.warm_up * 1e9)]
    cut = warm_up((kept[:, ANSWERED] - kept[:, DUE]).astype(float))
    return kept[cut:]


def summarize(
    records: Records,
    start: int,
    limits: Limits,
    endings: list[Ending],
    *,
    offsets: Offsets | None,
    ceiling: float = np.inf,
    transport: str = "",
    traffic: Traffic | None = None,
) -> Measurement:
    """Counts, intervals and the verdict over what was recorded. `offsets` are when calls were due, None in a closed loop."""
    open_loop = offsets is not None
    ordered = records[np.argsort(records[:, ANSWERED], kind="stable")]
    window = _window(ordered, start, limits)
    good = succeeded(window)
    lateness = (window[:, SENT] - window[:, DUE]) / 1e9
    percents = sorted({*PERCENTILES, limits.watched})
    seen, of_all = rate(good), latency(good, percents)
    differing = sum((Counter(ending.differing) for ending in endings), Counter[int]())
    lateness_p99 = float(np.quantile(lateness, 0.99)) if len(lateness) else 0.0
    unsent = sum(ending.unsent for ending in endings)
    verdict, reasons = _judged(
        good,
        window,
        seen,
        of_all.scheduled[limits.watched],
        limits,
        lateness_p99=lateness_p99 if open_loop else 0.0,
        ceiling=ceiling,
        differing=_differing(differing.total(), sum(ending.checked for ending in endings)),
    )
    return Measurement(
        verdict=verdict,
        reasons=reasons,
        seconds=float(window[-1, ANSWERED] - window[0, DUE]) / 1e9 if len(window) else 0.0,
        offered=len(window) + unsent,
        sent=len(window),
        completed=len(good),
        failed=failed(window),
        failures={NAMES[code]: text for ending in endings for code, text in ending.failures.items()},
        late=int((lateness > _LATE_NS / 1e9).sum()) if open_loop else 0,
        lateness_p99=lateness_p99,
        rate=seen,
        latency=of_all,
        client_cpu=sum(ending.cpu_seconds for ending in endings),
        reconnects=sum(ending.reconnects for ending in endings),
        records=ordered,
        window=window,
        start=start,
        offsets=offsets,
        transport=transport,
        parts=_parts(window, traffic, percents, differing),
        checked=sum(ending.checked for ending in endings),
        differing=differing.total(),
        differences=_differences(endings, traffic),
    )


def _parts(
    window: Records, traffic: Traffic | None, percents: list[float], differing: Counter[int]
) -> dict[str, PartResult]:
    if traffic is None or len(traffic.parts) < 2:
        return {}
    labels = [traffic.parts[number].label for number in traffic.owners]
    return by_part(window, labels, percents, differing)


def _differences(endings: list[Ending], traffic: Traffic | None) -> tuple[Difference, ...]:
    kept = sorted((found for ending in endings for found in ending.differences), key=lambda found: found.answered)
    if traffic is None:
        return tuple(kept)
    origins = [traffic.origin(found.tag) for found in kept]
    return tuple(replace(found, part=part, request=n) for found, (part, n) in zip(kept, origins, strict=True))


def _differing(count: int, checked: int) -> str:
    if not count:
        return ""
    return f"{count} answer{'s differ' if count > 1 else ' differs'} from what was expected, of {checked} that were checked"


def _judged(
    good: Records,
    window: Records,
    rate: Interval,
    watched: Interval,
    limits: Limits,
    *,
    lateness_p99: float,
    ceiling: float,
    differing: str,
) -> tuple[str, tuple[str, ...]]:
    """The gravest first: `errors`, `client_limited`, `too_few_samples`, `unstable`, else `valid`; and why, in words."""
    share = 1 - len(good) / len(window) if len(window) else 1.0
    least = fewest(limits.watched)
    many = f"{share:.2%} of the calls failed; {limits.errors:.2%} may" if share > limits.errors else ""
    reasons = {
        "errors": "; ".join(reason for reason in (many, differing) if reason),
        "client_limited": _client_limited(rate, limits, lateness_p99=lateness_p99, ceiling=ceiling),
        "too_few_samples": "",
        "unstable": "",
    }
    if len(good) < least or not np.isfinite(watched.precision):
        reasons["too_few_samples"] = f"{len(good)} answers, which hang together, say too little of p{limits.watched:g}"
        if len(good) < least:
            reasons["too_few_samples"] = (
                f"{len(good)} answers say too little of p{limits.watched:g}; {least} are the least"
            )
    elif max(rate.precision, watched.precision) > limits.precision:
        known = f"the rate is known to {rate.precision:.1%}, p{limits.watched:g} to {watched.precision:.1%}"
        reasons["unstable"] = f"{known}; {limits.precision:.1%} was asked for"
    found = {verdict: reason for verdict, reason in reasons.items() if reason}
    return next(iter(found), "valid"), tuple(found.values())


def _client_limited(rate: Interval, limits: Limits, *, lateness_p99: float, ceiling: float) -> str:
    if lateness_p99 > limits.lateness:
        return f"the client sent late: p99 {1e3 * lateness_p99:.2f} ms; {1e3 * limits.lateness:.2f} ms may be"
    if rate.value > NEAR * ceiling:
        return (
            f"{rate.value:.0f} calls a second are near the {ceiling:.0f} that this client reaches without any inference"
        )
    return ""
