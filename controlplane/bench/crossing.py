# At which rate a latency bound breaks, of answers to a rate that rose. Pure.
"""Whether an answer was late is a yes or no whose chance rises with the rate, so the estimate is isotonic regression, which needs no
other assumption (Barlow, Bartholomew, Bremner and Brunk 1972, *Statistical Inference under Order Restrictions*), and the
figure is where it passes a share of `_SHARE` more late answers than may be. That this is well above the share allowed makes
it robust: a stall is averaged with the good answers that follow, and must make them late for long to count. It
also makes the figure an upper one: the steady rate at which a p99 holds is 10 to 30 % lower where the bound
is long beside the time of one answer, and much lower where it is not. It compares candidates; a steady load confirms.

A rising rate is ahead of the queue it makes: at slope s, a server that does r at the most gets an answer late by the bound b only
when b r requests wait, sqrt(2 b r / s) seconds after it was overloaded. That much is taken off, so that blocks of
different length agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_SHARE = 0.25
_FEWEST = 8
"""Answers on this side of the crossing, and late ones on the other, without which it was not seen."""
_LEAST_SECONDS = 0.1
"""Beyond the crossing: a stall at the very end is none."""


class Where(StrEnum):
    WITHIN = "within"
    BELOW = "below"
    ABOVE = "above"


@dataclass(frozen=True, slots=True)
class Crossing:
    """`rate` is None unless it was `within` the rates that were tried; `place`: so many answers came before."""

    where: Where
    rate: float | None
    place: int


def crossing(
    rates: NDArray[np.float64], late: NDArray[np.bool_], *, allowed: float, slope: float, bound: float
) -> Crossing:
    """Of answers in the order of their rates, which rose by `slope` each second; `allowed` is the share that may be late, more than
    `bound` seconds. The isotonic fit is below a level until the sum of what is above that level is least."""
    level = allowed + _SHARE * (1 - allowed)
    sums = np.concatenate(([0.0], np.cumsum(late - level)))
    place = len(sums) - 1 - int(np.argmin(sums[::-1]))
    beyond = float(rates[-1] - rates[place]) / slope if place < len(rates) else 0.0
    if sums[-1] - sums[place] < _FEWEST * (1 - level) or beyond < _LEAST_SECONDS:
        return Crossing(Where.ABOVE, None, place)
    rate = _ahead(float(rates[place - 1]), slope, bound) if place else 0.0
    if place < _FEWEST or rate < rates[0]:  # it was overloaded from the first on
        return Crossing(Where.BELOW, None, place)
    return Crossing(Where.WITHIN, rate, place)


def _ahead(rate: float, slope: float, bound: float) -> float:
    """The r of which sqrt(2 b r s) more is `rate`."""
    half = math.sqrt(2 * slope * bound)
    return ((math.sqrt(half**2 + 4 * rate) - half) / 2) ** 2
