# What blocks say that were measured by turns: ratios of two candidates, and the figures of one. Pure.
"""In a turn every candidate has one block, in random order. What the machine does meanwhile meets all of a turn, so candidates are
compared by the ratios within turns; the random order makes those exchangeable, and Student's t over their logs is taken, each
weighed by its length. (statistics.mean of the load generator is for batches that hang together in time.)"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from clients.load.statistics import Interval, Samples
from controlplane.domain.sweep_search import UNKNOWN, Advantage, Figure, Trial
from controlplane.errors import InvalidInput

FEWEST_TURNS = 3
"""With fewer nothing is sure."""
_RESOLUTION = 0.001
"""The least spread of logs that is believed where no figure says its own."""


@dataclass(frozen=True, slots=True)
class Block:
    """One candidate's share of one turn, counted from 0 in its round. A figure that it cannot show, such as a p99 of too few
    answers, is left out."""

    candidate: str
    turn: int
    seconds: float
    figures: Mapping[str, float]
    answers: int

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InvalidInput(
                f"a block of {self.seconds} s of {self.candidate}", hint="leave out what was not measured"
            )


Turns = Mapping[tuple[int, int], Mapping[str, Block]]
"""By look and turn, the block of each candidate."""


def paired(blocks: Turns, level: float) -> Advantage:
    """By the turns in which both have the figure: each end of the interval is wrong with a chance of `level`."""

    @cache
    def column(name: str, figure: str) -> Samples:
        return np.array([_log(turn[name], figure) if name in turn else math.nan for turn in blocks.values()])

    @cache
    def lengths(name: str) -> Samples:
        return np.array([turn[name].seconds if name in turn else math.nan for turn in blocks.values()])

    @cache
    def advantage(figure: Figure, one: str, other: str) -> Interval:
        logs = column(one, figure.name) - column(other, figure.name)
        return _geometric(logs if figure.more_is_better else -logs, lengths(one), level, figure.resolution)

    return advantage


def estimated(blocks: Turns, level: float) -> Advantage:
    """As `paired`; of two that no turn has both of, the ratio of what each showed by itself, of which nothing is sure."""
    by_turns = paired(blocks, level)

    @cache
    def mean(name: str, figure: str) -> float:
        own = [turn[name] for turn in blocks.values() if name in turn]
        return _geometric(
            np.array([_log(one, figure) for one in own]), np.array([one.seconds for one in own]), level
        ).value

    def advantage(figure: Figure, one: str, other: str) -> Interval:
        ratio = by_turns(figure, one, other)
        if not math.isnan(ratio.value):
            return ratio
        apart = mean(one, figure.name) / mean(other, figure.name)
        return UNKNOWN if math.isnan(apart) else replace(UNKNOWN, value=apart if figure.more_is_better else 1 / apart)

    return advantage


def trial(name: str, blocks: Turns, level: float) -> Trial:
    """The geometric means of its blocks, each end of an interval wrong with a chance of `level`."""
    own = [turn[name] for turn in blocks.values() if name in turn]
    lengths = np.array([block.seconds for block in own])
    figures = {}
    for figure in sorted({figure for block in own for figure in block.figures}):
        interval = _geometric(np.array([_log(block, figure) for block in own]), lengths, level)
        if interval is not UNKNOWN:
            figures[figure] = interval
    return Trial(name, figures, sum(block.answers for block in own))


def _log(block: Block, figure: str) -> float:
    value = block.figures.get(figure, math.nan)
    return math.log(value) if 0 < value < math.inf else math.nan


def _geometric(logs: Samples, weights: Samples, level: float, resolution: float = _RESOLUTION) -> Interval:
    """Mean of logs whose variance goes with 1 / weight, and Student's t; as values again. What is not a number is left out."""
    known = ~np.isnan(logs)
    if not known.all():
        logs, weights = logs[known], weights[known]
    if not len(logs):
        return UNKNOWN
    whole = float(weights.sum())
    mean = float(weights @ logs) / whole
    if len(logs) < FEWEST_TURNS:
        return Interval(math.exp(mean), 0.0, math.inf)
    squares = float(weights @ (logs - mean) ** 2)
    error = max(math.sqrt(squares / (len(logs) - 1) / whole), resolution / math.sqrt(len(logs)))
    half = _quantile(len(logs) - 1, 1 - level) * error
    # A hopeless spread has no finite end, rather than one that overflows.
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half) if mean + half < 700 else math.inf)


@cache
def _quantile(degrees: int, share: float) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
