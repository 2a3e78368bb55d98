# What the candidates that were measured say of those that were not: a Gaussian process over the space's dimensions. Pure.
"""A sweep that has no time for the whole space measures a spread of it. How good a config is goes with its values one by one, and
with some in pairs, so that configs that share but a few values say something of each other: the covariance of two is that of a sum of functions
of each dimension, each pair of them, and so on, which is a product over dimensions of one more than the correlation that falls with the distance of their
values (Duvenaud, Nickisch and Rasmussen 2011, *Additive Gaussian Processes*, NIPS 24; Rasmussen and Williams 2006, *Gaussian Processes for
Machine Learning*, 2.2 and 5.4). How fast it falls in each dimension is what makes the measured values most likely. Who is worth measuring is decided by the
expected improvement over the best (Jones, Schonlau and Welch 1998, *Efficient global optimization of expensive black-box functions*,
Journal of Global Optimization 13), one after the other, each as if it had turned out as expected. The best is the one that is expected to be:
of noisy measurements the highest was lucky."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clients.load.statistics import Samples
from controlplane.domain.sweep_blocks import Turns
from controlplane.domain.sweep_search import Figure

FEWEST_MEASURED = 6
"""Fewer say nothing of the others."""
_CORRELATIONS = (0.3, 0.6, 0.9, 0.99)
"""Of the two ends of a dimension, all else alike; which of them fits best is found for one dimension after the other. A dozen noisy values
would make lower ones likely by chance, and then nothing predicts anything."""
_PASSES = 3
_LEAST_NOISE = 0.01
"""The standard deviation of a mean log that is believed at the least."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension with so many values; `ordered`: neighbours are alike."""

    name: str
    values: int
    ordered: bool


Point = Mapping[str, int]
"""The place of a value by dimension; one that does not apply is left out."""


@dataclass(frozen=True, slots=True)
class Worth:
    """The mean log of how good a candidate is beside the others of its turns, and the variance of that mean."""

    value: float
    variance: float


def worth(blocks: Turns, figures: Sequence[Figure]) -> dict[str, Worth]:
    """Of those that show every figure; all figures count alike, as in sweep_search.answer without wishes."""
    by_name: dict[str, list[float]] = {}
    for turn in blocks.values():
        logs = {}
        for name, block in turn.items():
            shown = [block.figures.get(figure.name, 0.0) for figure in figures]
            if all(0 < value < math.inf for value in shown):
                logs[name] = sum(
                    math.log(value) * (1 if figure.more_is_better else -1)
                    for figure, value in zip(figures, shown, strict=True)
                )
        if logs:
            middle = sum(logs.values()) / len(logs)
            for name, value in logs.items():
                by_name.setdefault(name, []).append(value - middle)
    freedom = sum(len(values) - 1 for values in by_name.values())
    squares = sum((value - float(np.mean(values))) ** 2 for values in by_name.values() for value in values)
    noise = max(squares / freedom if freedom else 0.0, _LEAST_NOISE**2)
    return {name: Worth(float(np.mean(values)), noise / len(values)) for name, values in by_name.items()}


def most_promising(
    axes: Sequence[Axis], known: Sequence[tuple[Point, Worth]], others: Sequence[Point], most: int
) -> list[int]:
    """The places of at most so many of `others`, the one whose measurement promises most first; none where fewer than
    FEWEST_MEASURED are known. Memory goes with the square of all points."""
    if len(known) < FEWEST_MEASURED or not others:
        return []
    points = [point for point, _ in known]
    values = np.array([one.value for _, one in known])
    noise = np.array([one.variance for _, one in known])
    mean = float(values.mean())
    spread = max(float(values.var()), _LEAST_NOISE**2)
    fall = _fitted(_distances(axes, points, points), values - mean, noise, spread)
    whole = [*points, *others]
    cover = spread * _correlation(_distances(axes, whole, whole), fall)
    return _by_improvement(cover, values - mean, noise, most)


def _by_improvement(cover: Samples, values: Samples, noise: Samples, most: int) -> list[int]:
    """`cover` is the covariance of those that are known, then of the others."""
    count = len(values)
    inside = list(range(count))
    told, blur = list(values), list(noise)
    left, order = list(range(count, len(cover))), list[int]()
    while left and len(order) < most:
        solved = np.linalg.solve(
            cover[np.ix_(inside, inside)] + np.diag(blur), np.column_stack([told, cover[np.ix_(inside, left)]])
        )
        across = cover[np.ix_(left, inside)]
        means = across @ solved[:, 0]
        variances = np.maximum(np.diag(cover)[left] - np.einsum("ij,ji->i", across, solved[:, 1:]), 1e-12)
        best = float((cover[np.ix_(inside, inside)] @ solved[:, 0]).max())
        gains = [
            _improvement(float(one) - best, math.sqrt(float(var))) for one, var in zip(means, variances, strict=True)
        ]
        at = int(np.argmax(gains))
        order.append(left[at] - count)
        inside.append(left[at])
        told.append(float(means[at]))
        blur.append(_LEAST_NOISE**2)
        del left[at]
    return order


def _improvement(above: float, deviation: float) -> float:
    score = above / deviation
    return above * 0.5 * math.erfc(-score / math.sqrt(2)) + deviation * math.exp(-score * score / 2) / math.sqrt(
        2 * math.pi
    )


def _fitted(distances: Samples, values: Samples, noise: Samples, spread: float) -> Samples:
    """By dimension, the correlation of its ends that makes the values most likely."""
    fall = np.full(len(distances), _CORRELATIONS[len(_CORRELATIONS) // 2])
    for _ in range(_PASSES):
        before = fall.copy()
        for axis in range(len(fall)):
            likely = []
            for one in _CORRELATIONS:
                fall[axis] = one
                likely.append(_likelihood(spread * _correlation(distances, fall) + np.diag(noise), values))
            fall[axis] = _CORRELATIONS[int(np.argmax(likely))]
        if np.array_equal(before, fall):
            break
    return fall


def _likelihood(cover: Samples, values: Samples) -> float:
    sign, size = np.linalg.slogdet(cover)
    return -math.inf if sign <= 0 else float(-0.5 * (values @ np.linalg.solve(cover, values) + size))


def _correlation(distances: Samples, fall: Samples) -> Samples:
    found: Samples = ((1 + np.exp(np.log(fall)[:, None, None] * distances)) / 2).prod(axis=0)
    return found


def _distances(axes: Sequence[Axis], rows: Sequence[Point], columns: Sequence[Point]) -> Samples:
    """By axis, row and column, from 0 to 1."""
    found = np.zeros((len(axes), len(rows), len(columns)))
    for number, axis in enumerate(axes):
        ours = np.array([one.get(axis.name, -1) for one in rows])[:, None]
        theirs = np.array([one.get(axis.name, -1) for one in columns])[None, :]
        apart = (ours != theirs).astype(float)
        if axis.ordered and axis.values > 1:
            both = (ours >= 0) & (theirs >= 0)
            apart = np.where(both, np.abs(ours - theirs) / (axis.values - 1), apart)
        found[number] = apart
    return found
