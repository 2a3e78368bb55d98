# What calls came to: the rate of their answers, their latency, and how they failed; of all, or of one model's.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clients.load.grpc_status import NAMES
from clients.load.processes import Records
from clients.load.statistics import Interval, mean, percentile

DUE, SENT, ANSWERED, STATUS, TAG = range(5)
_BINS = 48


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds by percentile, from when a call was due and from when it was sent."""

    scheduled: dict[float, Interval]
    sent: dict[float, Interval]


@dataclass(frozen=True, slots=True)
class PartResult:
    """Of one part of the traffic, in the same window as the whole. `differing` are answers that were not the expected ones, of
    the whole run, as those of the whole."""

    sent: int
    completed: int
    failed: dict[str, int]
    rate: Interval
    latency: Latency
    differing: int


def succeeded(window: Records) -> Records:
    good: Records = window[window[:, STATUS] == 0]
    return good


def failed(window: Records) -> dict[str, int]:
    codes, counts = np.unique(window[:, STATUS], return_counts=True)
    return {NAMES[code]: int(count) for code, count in zip(codes, counts, strict=True) if code}


def rate(good: Records, within: Records | None = None) -> Interval:
    """Answers a second, by counts in equal bins of the time that `within` took, or that these took: until the last was sent,
    for what was answered after that came without a load behind it. Where that is less than half of the time from when the first
    was due to the last answer, as after a stall, when answers come all at once, it is all of that."""
    whole = good if within is None else within
    if len(whole) < 2:
        return Interval(0.0, -np.inf, np.inf)
    first, last = int(whole[:, DUE].min()), int(whole[-1, ANSWERED])
    begin, end = int(whole[0, ANSWERED]), int(whole[:, SENT].max())
    if 2 * (end - begin) < last - first:
        begin, end = first, last
    counts, _ = np.histogram(good[:, ANSWERED], bins=_BINS, range=(begin, end + 1))
    found = mean(counts / ((end + 1 - begin) / 1e9 / _BINS))
    return replace(found, low=max(found.low, 0.0))


def latency(good: Records, percents: Sequence[float]) -> Latency:
    scheduled, sent = (
        {percent: percentile((good[:, ANSWERED] - good[:, column]) / 1e9, percent) for percent in percents}
        for column in (DUE, SENT)
    )
    return Latency(scheduled, sent)


def by_part(
    window: Records, owners: Sequence[str], percents: Sequence[float], differing: Mapping[int, int]
) -> dict[str, PartResult]:
    """`owners` are the labels of the parts, by tag."""
    answered = succeeded(window)
    names = np.array(owners)
    found = {}
    for label in dict.fromkeys(owners):
        mine = window[names[window[:, TAG]] == label]
        good = succeeded(mine)
        found[label] = PartResult(
            sent=len(mine),
            completed=len(good),
            failed=failed(mine),
            rate=rate(good, answered),
            latency=latency(good, percents),
            differing=sum(count for tag, count in differing.items() if owners[tag] == label),
        )
    return found
