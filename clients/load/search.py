# The highest rate at which limits hold: doubling, then halving the gap, each step a measurement of its own.
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clients.load.measure import Measurement
from clients.load.statistics import fewest
from clients.load.verdicts import Bound


@dataclass(frozen=True, slots=True)
class Step:
    """`held` is None where the measurement could not tell."""

    rate: float
    held: bool | None
    measurement: Measurement


def holds(measurement: Measurement, limits: Sequence[Bound]) -> bool | None:
    """Whether every limit holds with the confidence of the intervals: None where one of them straddles its limit, where there
    are fewer answers than may say anything of the percentile, or where the client could not keep the rate."""
    if measurement.verdict == "client_limited":
        return None
    if measurement.verdict == "errors":
        return False
    answer: bool | None = True
    for percent, bound in limits:
        interval = measurement.latency.scheduled[percent]
        if interval.low > bound:
            return False
        if interval.high > bound or measurement.completed < fewest(percent):
            answer = None
    return answer


def highest_rate(
    at: Callable[[float], Measurement], limits: Sequence[Bound], *, low: float, high: float, within: float = 0.05
) -> tuple[float, float, list[Step]]:
    """(highest rate seen to hold, lowest seen not to, all steps). `at` measures a rate; the gap is closed to the share
    `within`. A step that cannot tell counts as not holding: the answer errs to the safe side. 0.0 when not even `low` holds,
    and the upper end is infinite when `high` holds."""
    done: list[Step] = []

    def try_at(rate: float) -> bool:
        measurement = at(rate)
        done.append(Step(rate, holds(measurement, limits), measurement))
        return done[-1].held is True

    good, bad = 0.0, float("inf")
    rate = low
    while rate <= high and bad == float("inf"):
        if try_at(rate):
            good = rate
            rate = min(2 * rate, high) if rate < high else 2 * high
        else:
            bad = rate
    while good > 0 and bad < float("inf") and (bad - good) / good > within:
        middle = (good * bad) ** 0.5
        if try_at(middle):
            good = middle
        else:
            bad = middle
    return good, bad, done
