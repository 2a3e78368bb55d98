# When a measurement ends, and what may be said of it: the verdict, and why, in words.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.load.outcomes import ANSWERED, DUE, SENT
from clients.load.processes import Records
from clients.load.statistics import Interval, fewest

NEAR = 0.8
"""A rate over this share of the client's ceiling says more of the client than of the server."""
_LATE_NS = 1_000_000

Bound = tuple[float, float]
"""A percentile and the seconds, from when a call was due, that it may not exceed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a measurement ends and what it may claim. Times in seconds.

    It ends after `seconds` at the least, when rate and `watched` percentile have `precision` (half an interval, as a share) or
    one of the `bounds` is surely broken, at the latest after `cap`; or when `count` calls that were due after the warm-up have
    ended. More than `errors` of the calls failed, or a lateness p99 over `lateness`, is said in the verdict.
    """

    seconds: float = 5.0
    cap: float = 30.0
    count: int | None = None
    warm_up: float = 0.5
    precision: float = 0.05
    watched: float = 99.0
    bounds: tuple[Bound, ...] = ()
    errors: float = 0.0
    lateness: float = 0.001
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of an open loop. `own_p99`: seconds that the client was late with a call which it could send. `late` are calls sent more than a
    millisecond after they were due; `held` of them had to wait for a place, because `places` were in flight."""

    late: int = 0
    held: int = 0
    own_p99: float = 0.0
    places: int = 0


def sendable(records: Records, places: int) -> NDArray[np.int64]:
    """When each call of one process could be sent: when it was due, or later, once fewer than `places` were in flight."""
    moments: NDArray[np.int64] = records[:, DUE].copy()
    waiting = np.argsort(records[:, SENT], kind="stable")[places:]
    freed = np.sort(records[:, ANSWERED])[: len(waiting)]
    moments[waiting] = np.maximum(moments[waiting], freed)
    return moments


def lateness(window: Records, moments: NDArray[np.int64], places: int) -> Lateness:
    """`moments` are when the calls of the window could be sent."""
    if not len(window):
        return Lateness(places=places)
    late = window[:, SENT] - window[:, DUE] > _LATE_NS
    held = late & (moments - window[:, DUE] > _LATE_NS)
    own = float(np.quantile(window[:, SENT] - moments, 0.99)) / 1e9
    return Lateness(int(late.sum()), int(held.sum()), own, places)


def judged(
    completed: int,
    sent: int,
    rate: Interval,
    watched: Interval,
    limits: Limits,
    *,
    late: Lateness,
    ceiling: float,
    differing: str,
) -> tuple[str, tuple[str, ...]]:
    """The gravest first: `errors`, `client_limited`, `too_few_samples`, `unstable`, else `valid`; and why, in words."""
    share = 1 - completed / sent if sent else 0.0
    many = f"{share:.2%} of the calls failed; {limits.errors:.2%} may" if share > limits.errors else ""
    reasons = {
        "errors": "; ".join(reason for reason in (many, differing) if reason),
        "client_limited": _client_limited(rate, limits, late=late, ceiling=ceiling),
        "too_few_samples": _too_few(completed, watched, limits),
        "unstable": "",
    }
    if not reasons["too_few_samples"] and max(rate.precision, watched.precision) > limits.precision:
        known = f"the rate is known to {rate.precision:.1%}, p{limits.watched:g} to {watched.precision:.1%}"
        reasons["unstable"] = f"{known}; {limits.precision:.1%} was asked for"
    found = {verdict: reason for verdict, reason in reasons.items() if reason}
    why = list(found.values())
    if late.held:
        why.append(
            f"{late.held:,} calls waited because {late.places:,} were in flight: the server does not keep up with the rate"
        )
    return next(iter(found), "valid"), tuple(why)


def broken(bounds: Sequence[Bound], latency: dict[float, Interval]) -> bool:
    """Whether one of the bounds is surely broken: all of its percentile's interval lies above it."""
    return any(latency[percent].low > bound for percent, bound in bounds)


def _client_limited(rate: Interval, limits: Limits, *, late: Lateness, ceiling: float) -> str:
    if late.own_p99 > limits.lateness:
        return f"the client sent late: p99 {1e3 * late.own_p99:.2f} ms; {1e3 * limits.lateness:.2f} ms may be"
    if rate.value > NEAR * ceiling:
        return (
            f"{rate.value:.0f} calls a second are near the {ceiling:.0f} that this client reaches without any inference"
        )
    return ""


def _too_few(completed: int, watched: Interval, limits: Limits) -> str:
    least = fewest(limits.watched)
    if completed < least:
        return f"{completed} answers say too little of p{limits.watched:g}; {least} are the least"
    if not np.isfinite(watched.precision):
        return f"{completed} answers, which hang together, say too little of p{limits.watched:g}"
    return ""
