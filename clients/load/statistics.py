# What samples say and how surely: warm-up, intervals for rates and percentiles, verdicts. Pure.
"""Samples of one run are correlated: a queue that is long now is long a moment later. So a percentile's interval counts
effective samples, by batch means of the indicator "is at or below" (as Heidelberger and Lewis 1984 do for quantiles),
and then takes order statistics, which need no assumption on the distribution's shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

CONFIDENCE = 0.95
BATCHES = 24
_LARGE_BATCHES = 40
_UPWARDS = 0.5
"""What samples count for above the estimate when all their exceedances come in heaps: so that the p99 of a queue at 70 % load
is covered as often as promised (tests/bench/coverage.py)."""
FEWEST_FOR_P99 = 459
"""The smallest n with 0.99**n <= 0.01: with fewer, even no slow sample at all says too little of the p99."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the truth lies with the confidence asked for; infinite where the samples cannot tell."""

    value: float
    low: float
    high: float

    @property
    def precision(self) -> float:
        """Half the width, as a share of the value."""
        return (self.high - self.low) / 2 / self.value if self.value else float("inf")


def fewest(percentile: float, confidence: float = 0.99) -> int:
    """Samples without which nothing is said of a percentile: n with `share**n <= 1 - confidence` (MLPerf LoadGen's
    early stopping without any sample over the bound)."""
    return int(np.ceil(np.log(1 - confidence) / np.log(percentile / 100)))


def warm_up(values: Samples, batch: int = 5) -> int:
    """How many of the first values to leave out: MSER-5 (White, Cobb and Spratt 2000), at most half of them.

    The truncation with the smallest standard error of what remains wins. That would also leave out a stall in the first half,
    with all that came before it: so it ends at the latest where values first look like those of the second half, both in
    small batches and in large ones. `values` are in order of time.
    """
    count = len(values) // batch
    if count < 4:
        return 0
    means = values[: count * batch].reshape(count, batch).mean(axis=1)
    left = np.arange(count, 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (means, means**2))
    errors = (squares - sums**2 / left) / left**2
    found = int(np.argmin(errors[: count // 2 + 1])) * batch
    large = max(len(values) // _LARGE_BATCHES, batch)
    medians = np.median(values[: len(values) // large * large].reshape(-1, large), axis=1)
    return min(found, max(_settled(means) * batch, _settled(medians) * large))


def _settled(batches: Samples) -> int:
    """The first that lies where those of the second half lie, or near."""
    later = batches[len(batches) // 2 :]
    low, high = float(later.min()), float(later.max())
    near = (high - low) / 2
    return int(np.argmax((batches >= low - near) & (batches <= high + near)))


def mean(batches: Samples, confidence: float = CONFIDENCE) -> Interval:
    """Of batch means: Student's t over as many as they count for, since neighbours still hang together. That number is
    n (1 - r) / (1 + r), as for a first-order autoregression, with the estimate r freed from its bias of (1 + 4r) / n."""
    from scipy.special import stdtrit

    count, value = len(batches), float(batches.mean())
    if count < 4:
        return Interval(value, -np.inf, np.inf)
    estimate = _neighbours(batches)
    r = min(max(estimate + (1 + 4 * estimate) / count, 0.0), 0.95)
    effective = max(count * (1 - r) / (1 + r), 2.0)
    spread = batches.std(ddof=1) / np.sqrt(effective)
    half_width = float(stdtrit(effective - 1, (1 + confidence) / 2) * spread)
    return Interval(value, value - half_width, value + half_width)


def percentile(samples: Samples, percent: float, confidence: float = CONFIDENCE) -> Interval:
    """Of samples in order of time: the order statistic (nearest rank), and an interval between two others. `percent` lies
    between 0 and 100, both excluded."""
    from scipy.special import betaincinv, ndtri, stdtrit

    count = len(samples)
    if not count:
        return Interval(np.nan, -np.inf, np.inf)
    share = percent / 100
    ordered = np.sort(samples)
    value = float(ordered[min(count - 1, max(0, int(np.ceil(share * count)) - 1))])
    effective, batches = effective_count((samples <= value).astype(float), share)
    alone = 1.0
    if share > 0.5:
        # A tail's exceedances come in clusters; where those are few, their variance is poorly known too.
        exceeding = samples > value
        independent = clusters(exceeding)
        effective = min(effective, independent / (1 - share))
        batches = min(batches, max(2, round(independent)))
        alone = independent / max(int(exceeding.sum()), 1)
    # Student's t instead of the normal, for the variance is itself estimated: fewer effective samples still.
    effective *= (ndtri((1 + confidence) / 2) / stdtrit(batches - 1, (1 + confidence) / 2)) ** 2
    tail = (1 - confidence) / 2
    hits = share * effective
    low_share = betaincinv(hits, effective - hits + 1, tail) if hits > 0 else 0.0
    # A run that missed a heap of slow calls does not know how heaped they are: upwards it counts for less.
    effective *= _UPWARDS + (1 - _UPWARDS) * min(alone, 1.0)
    hits = share * effective
    high_share = betaincinv(hits + 1, max(effective - hits, 1e-9), 1 - tail)
    low = int(np.floor(low_share * count)) - 1
    high = int(np.ceil(high_share * count))
    return Interval(
        value,
        float(ordered[low]) if low >= 0 else -np.inf,
        float(ordered[high]) if high < count else np.inf,
    )


def effective_count(indicator: Samples, share: float) -> tuple[float, int]:
    """As how many independent samples of a yes with chance `share` these correlated ones count, and from how many batches
    that was estimated. Never more than there are."""
    count = len(indicator)
    batches = min(BATCHES, count)
    if batches < 2:
        return float(count), 2
    size = count // batches
    means = indicator[: size * batches].reshape(batches, size).mean(axis=1)
    variance = float(means.var(ddof=1)) / batches
    expected = share * (1 - share)
    if variance <= expected / count:
        return float(count), batches
    return max(expected / variance, 1.0), batches


def clusters(exceeds: NDArray[np.bool_]) -> float:
    """As how many independent ones these exceedances of a high level count, which come in clusters of unequal size.

    Clusters are parted at the longest gaps, as many as the extremal index says (Ferro and Segers 2003, which needs no
    run length to be chosen); sizes s then count as (sum s)**2 / sum s**2.
    """
    places = np.flatnonzero(exceeds)
    count = len(places)
    if count < 3:
        return float(count)
    gaps = np.diff(places).astype(float)
    if gaps.max() <= 2:
        index = 2 * gaps.sum() ** 2 / ((count - 1) * (gaps**2).sum())
    else:
        index = 2 * (gaps - 1).sum() ** 2 / ((count - 1) * ((gaps - 1) * (gaps - 2)).sum())
    parts = int(min(index, 1.0) * count)
    ends = np.sort(np.argsort(-gaps, kind="stable")[: max(parts - 1, 0)]) + 1
    sizes = np.diff([0, *ends, count])
    return float(count**2 / (sizes**2).sum())


def _neighbours(values: Samples) -> float:
    """Correlation of each value with the next."""
    around = values - values.mean()
    total = float(around @ around)
    return float(around[:-1] @ around[1:]) / total if total > 0 else 0.0
