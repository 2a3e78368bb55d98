# One load point from start to verdict: sends until the asked precision is reached, then says what was seen and how surely.
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clients.load.checks import Difference
from clients.load.grpc_status import NAMES
from clients.load.jobs import INFER, Load, Target, due_times, plan
from clients.load.outcomes import ANSWERED, DUE, STATUS, Latency, PartResult, by_part, failed, latency, rate, succeeded
from clients.load.processes import NOTHING, Records, SenderPool, Senders
from clients.load.responses import Streaming, summarize_responses
from clients.load.schedule import Offsets
from clients.load.statistics import Interval, fewest, percentile, warm_up
from clients.load.traffic import Traffic
from clients.load.verdicts import Lateness, Limits, broken, judged, lateness, sendable
from clients.load.worker import COLUMNS, Ending

__all__ = ["INFER", "Latency", "Limits", "Load", "Measurement", "Target", "measure", "summarize"]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
_FIRST_LOOK = 1.0
_PAUSE = 0.25
_APART = 1.1
_SURE = 0.99
"""Each look is a chance to be wrong: there are few, further and further apart, and a broken bound needs more confidence."""
_LOOKING = 0.02
"""The share of one core's time that may go into looking how much is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """`seconds` is the window that counts, after the warm-up that was asked for and `cut` calls more that were found to be warm-up;
    `offered` are the calls that were due in it. `late` were sent more than a millisecond after they were due, `held` of them
    because all places were taken; `lateness_p99` is the client's own."""

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
    window: Records = field(repr=False, default_factory=lambda: NOTHING)
    """Those of them that count."""
    cut: int = 0
    held: int = 0
    start: int = 0
    """Of the run, in the clock of the records."""
    offsets: Offsets | None = field(repr=False, default=None)
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
    known: Callable[[Interval, Interval], None] = lambda _rate, _watched: None,
    pool: SenderPool | None = None,
) -> Measurement:
    """Send and say what was seen. `progress` is told a few times a second, and ends the run by returning False; it is told on
    while answers to what was sent are awaited. `known` is told the rate and the watched percentile when they were looked at;
    `ceiling` is what a calibration found, in calls a second. `messages` are requests of one model, or a whole `Traffic`.
    With a `pool` the sending processes come from there and go back to it."""
    traffic = messages if isinstance(messages, Traffic) else Traffic.of(messages)
    due = due_times(load, limits, seed)
    jobs = plan(target, traffic, load, limits, due, processes=processes, connections=connections, seed=seed)
    blocks: list[list[Records]] = [[NOTHING] for _ in jobs]
    with Senders(jobs, pool) as senders:
        start = senders.start()
        if due is None and limits.count is None:  # told now, as they listen only a few times a second
            senders.stop(start + int((limits.warm_up + limits.cap) * 1e9))
        ended = start if due is None or not len(due) else start + int(due[-1])
        told, look_at, stopping = 0.0, limits.warm_up + min(_FIRST_LOOK, limits.seconds), False
        for number, block in senders.blocks():
            blocks[number].append(block)
            elapsed = (time.monotonic_ns() - start) / 1e9
            if elapsed < told + _PAUSE:
                continue
            told = elapsed
            going = progress(elapsed, block)
            if stopping:  # answers to what was sent are awaited still
                continue
            stopping = not going
            if limits.count is None and elapsed >= limits.warm_up + limits.cap:
                stopping = True
            elif limits.count is None and elapsed >= look_at:
                begun = time.monotonic()
                enough = _look([one for some in blocks for one in some], start, limits, load, known)
                stopping |= enough and elapsed >= limits.warm_up + limits.seconds
                look_at = max(elapsed * _APART, elapsed + (time.monotonic() - begun) / _LOOKING)
            if stopping:
                ended = time.monotonic_ns()
                senders.stop(ended)
        endings = senders.endings
    measured = summarize(
        [np.concatenate(some) for some in blocks],
        start,
        limits,
        endings,
        offsets=None if due is None else due[due <= ended - start],
        places=[job.most for job in jobs],
        steady=load.steady,
        ceiling=ceiling,
        transport=target.transport,
        traffic=traffic,
    )
    if target.via.chosen != "stream":
        return measured
    return replace(measured, streaming=summarize_responses(senders.heard, measured.window, limits.watched))


def _look(
    blocks: list[Records], start: int, limits: Limits, load: Load, known: Callable[[Interval, Interval], None]
) -> bool:
    """Whether enough is known by now."""
    good = succeeded(_counted(_ordered(np.concatenate(blocks)), start, limits, steady=load.steady)[0])
    if len(good) < fewest(limits.watched):
        return False
    waited = (good[:, ANSWERED] - good[:, DUE]) / 1e9
    seen, watched = rate(good), percentile(waited, limits.watched)
    known(seen, watched)
    if max(seen.precision, watched.precision) <= limits.precision:
        return True
    return broken(limits.bounds, {percent: percentile(waited, percent, _SURE) for percent, _ in limits.bounds})


def _ordered(records: Records) -> Records:
    return records[np.argsort(records[:, ANSWERED], kind="stable")]


def _counted(ordered: Records, start: int, limits: Limits, *, steady: bool) -> tuple[Records, int]:
    """The calls that count, by the time of their answer: due after the warm-up that was asked for and, where the load is steady,
    the one found; and how many these are. No failure is taken for warm-up, nor what came after one."""
    kept = ordered[ordered[:, DUE] >= start + int(limits.warm_up * 1e9)]
    cut = warm_up((kept[:, ANSWERED] - kept[:, DUE]).astype(float)) if steady else 0
    failures = np.flatnonzero(kept[:, STATUS])
    if len(failures):
        cut = min(cut, int(failures[0]))
    return kept[cut:], cut


def summarize(
    parts: Sequence[Records],
    start: int,
    limits: Limits,
    endings: list[Ending],
    *,
    offsets: Offsets | None,
    places: Sequence[int],
    steady: bool,
    ceiling: float = np.inf,
    transport: str = "",
    traffic: Traffic | None = None,
) -> Measurement:
    """Counts, intervals and the verdict over what was recorded, the `parts` of each process, which may have so many calls in
    flight (`places`). `offsets` are when calls were due, None in a closed loop."""
    moments = [sendable(part, most) for part, most in zip(parts, places, strict=True)]
    ordered = _ordered(np.column_stack((np.concatenate(parts), np.concatenate(moments))))
    counted, cut = _counted(ordered, start, limits, steady=steady)
    if not len(counted) and ordered[:, STATUS].any():
        counted = ordered  # a server that never got beyond the warm-up: its failures are all there is to tell
    window = counted[:, :COLUMNS]
    good = succeeded(window)
    percents = sorted({*PERCENTILES, limits.watched, *(percent for percent, _ in limits.bounds)})
    late = Lateness() if offsets is None else lateness(window, counted[:, COLUMNS], sum(places))
    seen, of_all = rate(good), latency(good, percents)
    differing = sum((Counter(ending.differing) for ending in endings), Counter[int]())
    unsent = sum(ending.unsent for ending in endings)
    verdict, reasons = judged(
        len(good),
        len(window),
        seen,
        of_all.scheduled[limits.watched],
        limits,
        late=late,
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
        late=late.late,
        held=late.held,
        lateness_p99=late.own_p99,
        rate=seen,
        latency=of_all,
        client_cpu=sum(ending.cpu_seconds for ending in endings),
        reconnects=sum(ending.reconnects for ending in endings),
        records=ordered[:, :COLUMNS],
        window=window,
        cut=cut,
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
