# What happened in each second of a run, from its records.
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.load.processes import Records

_DUE, _SENT, _ANSWERED, _STATUS = range(4)
_SECOND = 1e9


def series(
    records: Records, start: int, offsets: NDArray[np.int64] | None
) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Columns of equal length: the second, from the start; the calls that were due, sent, answered and failed in it; median
    and p99 of the latency, from when they were due, of those answered in it, NaN without any. `offsets` are the ns at which
    calls were due, sent or not; None for a closed loop, where a call is due when it can be sent."""
    at = {
        name: (records[:, column] - start) / _SECOND
        for name, column in (("due", _DUE), ("sent", _SENT), ("ended", _ANSWERED))
    }
    due = at["due"] if offsets is None else offsets / _SECOND
    seconds = 1 + int(max((float(values.max()) for values in (due, *at.values()) if len(values)), default=-1.0))
    good = records[:, _STATUS] == 0
    latency = (records[:, _ANSWERED] - records[:, _DUE]) / _SECOND
    medians, tails = np.full(seconds, np.nan), np.full(seconds, np.nan)
    ended = at["ended"].astype(int)
    for second in range(seconds):
        values = latency[good & (ended == second)]
        if len(values):
            medians[second], tails[second] = np.quantile(values, (0.5, 0.99), method="inverted_cdf")

    def count(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.bincount(np.maximum(values, 0).astype(int), minlength=seconds)[:seconds]

    return {
        "second": np.arange(seconds),
        "offered": count(due),
        "sent": count(at["sent"]),
        "completed": count(at["ended"][good]),
        "failed": count(at["ended"][~good]),
        "p50": medians,
        "p99": tails,
    }
