# Servers with a known capacity, simulated: when each request that is due would be answered.
from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Stalls = Sequence[tuple[float, float]]
"""From when to when nothing goes on, in seconds."""


def one_by_one(due: Times, service: Times, *, instances: int = 1, stalls: Stalls = ()) -> Times:
    """First come, first served, each by one instance."""
    free = [0.0] * instances
    answered = np.empty(len(due))
    for number, (begin, needs) in enumerate(zip(due.tolist(), service.tolist(), strict=True)):
        answered[number] = _passed(max(begin, heapq.heappop(free)), needs, stalls)
        heapq.heappush(free, float(answered[number]))
    return answered


def in_batches(due: Times, *, fixed: float, each: float, most: int, stalls: Stalls = ()) -> Times:
    """What waits is taken together, `most` at once; a batch takes `fixed` seconds and `each` for each request."""
    answered = np.empty(len(due))
    at, now = 0, 0.0
    while at < len(due):
        now = max(now, float(due[at]))
        end = min(int(np.searchsorted(due, now, side="right")), at + most)
        now = _passed(now, fixed + each * (end - at), stalls)
        answered[at:end] = now
        at = end
    return answered


def _passed(begin: float, needs: float, stalls: Stalls) -> float:
    """When work of so many seconds is done that begins then."""
    end = begin + needs
    for first, last in stalls:
        if first <= begin < last:
            end += last - begin
        elif begin < first < end:
            end += last - first
    return end
