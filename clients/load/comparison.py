# Two candidates side by side: in which order to measure them, how many times as much one does, and whether it differs. Pure.
"""Candidates are measured in short blocks, each once in a round, in random order. What the host does meanwhile meets both blocks
of a round nearly alike, so a round gives the logarithm of B over A, and Student's t over the rounds the interval of the mean:
paired differences of blocks that were dealt out at random (Fisher 1935, The Design of Experiments), where the order alone
makes identical candidates' differences symmetric about zero, which t needs (Efron 1969, Student's t-test under symmetry
conditions). Rounds count for fewer where neighbours hang together (`statistics.mean`).

A percentile is that of each block; where a block has too few samples to say anything of it, neighbouring rounds are pooled
until they have enough. Pooling all of them, with the rounds as what a bootstrap or a jackknife resamples, was tried and left:
a percentile over a drift and over single bad blocks is theirs more than the candidate's. It called identical candidates different
two to seven times as often, and found slower ones by their p99 less often (`tests/bench/comparison.py`).
A trimmed or ranked mean would be surer on a noisy host, and blind to a candidate that stalls now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from clients.load.errors import LoadInputError
from clients.load.outcomes import ANSWERED, DUE, rate, succeeded
from clients.load.processes import Records
from clients.load.statistics import CONFIDENCE, Interval, Samples, fewest, mean

Outcome = Literal["better", "worse", "no difference shown", "inconclusive"]
Candidate = TypeVar("Candidate")

MARGIN = 0.05
_STRETCHES = 20
"""More rounds than this are averaged by stretches first, so that what one candidate remembers over a few rounds (its memory's
layout, a hot core) does not pass for many independent rounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What one candidate did in one turn: answers a second, and their latencies."""

    rate: float
    latencies: Samples = field(repr=False)

    @classmethod
    def of(cls, window: Records) -> Block:
        """Of the calls that count, by the time of their answer: seconds from when they were due, of those that succeeded."""
        good = succeeded(window)
        return cls(rate(good, window).value, (good[:, ANSWERED] - good[:, DUE]) / 1e9)


@dataclass(frozen=True, slots=True)
class Comparison:
    """B over A, of `pairs` of blocks. `margin` is the share by which they may differ without mattering: 0.05 is from 1/1.05 to 1.05
    times as much. With the whole interval within it there is no difference shown, with the whole interval beyond it B is
    better or worse, and else it is inconclusive. So a margin of 0 asks whether they differ at all.

    The confidence is that of one comparison: who makes many, and looks for one that differs, asks for more.
    """

    ratio: Interval
    outcome: Outcome
    margin: float
    pairs: int


def order(candidates: Sequence[Candidate], rounds: int, seed: int) -> list[tuple[Candidate, ...]]:
    """Who is measured when: by round, each candidate once in it. The order is random, and turned round in every second round, so
    that a steady drift of the host meets all alike and every neighbour is met from both sides."""
    random = np.random.default_rng(seed)
    turns: list[tuple[Candidate, ...]] = []
    for number in range(rounds):
        turns.append(
            turns[-1][::-1] if number % 2 else tuple(candidates[one] for one in random.permutation(len(candidates)))
        )
    return turns


def throughput(
    a: Sequence[Block], b: Sequence[Block], margin: float = MARGIN, confidence: float = CONFIDENCE
) -> Comparison:
    """`a[i]` and `b[i]` are of the same round, in order of time. More is better."""
    _check(a, b, margin)
    of_a, of_b = (np.array([block.rate for block in blocks]) for blocks in (a, b))
    return _compared(of_a, of_b, margin, confidence, more_is_better=True)


def latency(
    a: Sequence[Block], b: Sequence[Block], percent: float, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> Comparison:
    """Of a percentile, which lies between 0 and 100, both excluded. `a[i]` and `b[i]` are of the same round, in order of time. Less
    is better."""
    _check(a, b, margin)
    smallest = max(min((len(block.latencies) for block in (*a, *b)), default=0), 1)
    pooled = -(-fewest(percent) // smallest)
    parts = np.array_split(np.arange(len(a)), max(len(a) // pooled, 1))
    of_a, of_b = (
        np.array([_percentile([blocks[one] for one in part], percent) for part in parts]) for blocks in (a, b)
    )
    return _compared(of_a, of_b, margin, confidence, more_is_better=False)


def _check(a: Sequence[Block], b: Sequence[Block], margin: float) -> None:
    if len(a) != len(b):
        raise LoadInputError(f"{len(a)} blocks of one candidate, {len(b)} of the other", "one of each in every round")
    if not 0 <= margin < np.inf:
        raise LoadInputError(f"a margin of {margin}", "a share such as 0.05, or 0")


def _percentile(blocks: Sequence[Block], percent: float) -> float:
    """By nearest rank."""
    samples = np.concatenate([block.latencies for block in blocks]) if blocks else np.zeros(0)
    if not len(samples):
        return np.nan
    rank = max(int(np.ceil(percent / 100 * len(samples))) - 1, 0)
    return float(np.partition(samples, rank)[rank])


def _compared(of_a: Samples, of_b: Samples, margin: float, confidence: float, *, more_is_better: bool) -> Comparison:
    if len(of_a) and (of_a > 0).all() and (of_b > 0).all():
        stretches = np.array_split(np.log(of_b / of_a), min(len(of_a), _STRETCHES))
        found = mean(np.array([stretch.mean() for stretch in stretches]), confidence)
        ratio = Interval(*(float(np.exp(one)) for one in (found.value, found.low, found.high)))
    else:  # a block without any answer: no ratio says that
        ratio = Interval(np.nan, 0.0, np.inf)
    return Comparison(ratio, _outcome(ratio, 1 + margin, more_is_better=more_is_better), margin, len(of_a))


def _outcome(ratio: Interval, bound: float, *, more_is_better: bool) -> Outcome:
    if ratio.low >= 1 / bound and ratio.high <= bound:
        return "no difference shown"
    if ratio.low > bound:
        return "better" if more_is_better else "worse"
    if ratio.high < 1 / bound:
        return "worse" if more_is_better else "better"
    return "inconclusive"
