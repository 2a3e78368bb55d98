# When requests are due: arrival times of an open loop, from a curve of rates, a process and a seed.
"""Every shape is one idea: a unit-rate process (evenly spaced, or with exponential gaps) is bent by the inverse of the
integrated rate. Constant, Poisson, bursts, a day's curve and a ramp differ only in the curve and the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from clients.load.errors import LoadInputError

Offsets = NDArray[np.int64]
"""Nanoseconds from the start, ascending."""
Process = Literal["even", "poisson"]

MOST = 50_000_000
"""Arrivals of one run: more would be 400 MB of times."""


@dataclass(frozen=True, slots=True)
class Piece:
    """From `begin` to `end` seconds the rate goes in a line from `first` to `last`, in requests a second."""

    begin: float
    end: float
    first: float
    last: float

    @property
    def area(self) -> float:
        return (self.end - self.begin) * (self.first + self.last) / 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Rates over time, without gaps from 0 on; `repeats` when it begins again at its end."""

    pieces: tuple[Piece, ...]
    repeats: bool = False

    @classmethod
    def flat(cls, rate: float) -> Self:
        return cls((Piece(0, 1, _rate(rate), rate),), repeats=True)

    @classmethod
    def ramp(cls, first: float, last: float, seconds: float) -> Self:
        """From one rate to another in that time; then the last one."""
        return cls(
            (
                Piece(0, _seconds(seconds), _rate(first, zero=True), _rate(last)),
                Piece(seconds, seconds + 1e9, last, last),
            )
        )

    @classmethod
    def bursts(cls, rate: float, on: float, off: float, between: float = 0.0) -> Self:
        """`rate` for `on` seconds, `between` for `off` seconds, and again."""
        return cls(
            (
                Piece(0, _seconds(on), _rate(rate), rate),
                Piece(on, on + _seconds(off), _rate(between, zero=True), between),
            ),
            repeats=True,
        )

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Self:
        """Straight lines through points (second, rate), the first at 0; begins again after the last: a day's curve."""
        if len(points) < 2 or points[0][0] != 0:
            raise LoadInputError(
                "a curve needs two points or more, the first at second 0", "such as 0:100,30:400,60:100"
            )
        pieces = []
        for (begin, first), (end, last) in pairwise(points):
            if end <= begin:
                raise LoadInputError(f"the curve's seconds do not ascend: {begin:g}, then {end:g}", "sort the points")
            pieces.append(Piece(begin, end, _rate(first, zero=True), _rate(last, zero=True)))
        if sum(piece.area for piece in pieces) <= 0:
            raise LoadInputError("the curve's rate is 0 all the time", "give one point a rate")
        return cls(tuple(pieces), repeats=True)

    @property
    def period(self) -> float:
        return self.pieces[-1].end

    def area(self, seconds: float) -> float:
        """Expected arrivals until then."""
        rounds, rest = divmod(seconds, self.period) if self.repeats else (0.0, seconds)
        total = rounds * sum(piece.area for piece in self.pieces)
        for piece in self.pieces:
            width = min(max(rest - piece.begin, 0.0), piece.end - piece.begin)
            slope = (piece.last - piece.first) / (piece.end - piece.begin)
            total += width * (piece.first + slope * width / 2)
        return float(total)

    def times(self, areas: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `area`, for ascending values."""
        bounds = np.cumsum([0.0, *(piece.area for piece in self.pieces)])
        rounds, rest = np.divmod(areas, bounds[-1]) if self.repeats else (np.zeros_like(areas), areas)
        which = np.clip(np.searchsorted(bounds, rest, side="right") - 1, 0, len(self.pieces) - 1)
        begin, end, first, last = (
            np.array([getattr(piece, name) for piece in self.pieces], float)[which]
            for name in ("begin", "end", "first", "last")
        )
        inside = rest - bounds[which]
        slope = (last - first) / (end - begin)
        # The root of slope/2 w² + first w = inside, in the form that neither a flat nor a rising line makes lose digits.
        root = np.sqrt(np.maximum(first**2 + 2 * slope * inside, 0.0))
        return np.asarray(rounds * self.period + begin + 2 * inside / np.maximum(first + root, 1e-300))


def arrivals(curve: Curve, seconds: float, *, process: Process, seed: int) -> Offsets:
    """All arrivals before `seconds`. The same arguments give the same times on every machine.

    `even` puts arrival k where the expected number is k; `poisson` is the (inhomogeneous) Poisson process.
    """
    expected = curve.area(_seconds(seconds))
    if expected > MOST:
        raise LoadInputError(
            f"about {expected:.0f} requests are more than {MOST}", "take a shorter time or a lower rate"
        )
    if process == "even":
        units = np.arange(int(np.ceil(expected)), dtype=float)
    else:
        random = np.random.default_rng(seed)
        gaps = random.standard_exponential(int(expected + 6 * np.sqrt(expected) + 20))
        units = np.cumsum(gaps)
        while units[-1] < expected:
            units = np.concatenate([units, units[-1] + np.cumsum(random.standard_exponential(1000))])
        units = units[units < expected]
    return np.asarray(np.floor(curve.times(units) * 1e9), dtype=np.int64)


def trace(path: Path) -> Offsets:
    """Offsets of a recorded run: a text file with one number of seconds a line, counted from the first."""
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        seconds = np.array([float(line) for line in lines if line])
    except (OSError, ValueError) as error:
        raise LoadInputError(
            f"the trace {path} cannot be read: {error}", "one number of seconds on each line"
        ) from None
    if not len(seconds) or not np.isfinite(seconds).all():
        raise LoadInputError(f"the trace {path} has no offsets", "one number of seconds on each line")
    return np.asarray(np.round((np.sort(seconds) - seconds.min()) * 1e9), dtype=np.int64)


def _rate(rate: float, *, zero: bool = False) -> float:
    if not np.isfinite(rate) or rate < 0 or (rate == 0 and not zero):
        raise LoadInputError(f"{rate:g} is no rate", "give requests a second, more than 0")
    return rate


def _seconds(seconds: float) -> float:
    if not np.isfinite(seconds) or seconds <= 0:
        raise LoadInputError(f"{seconds:g} is no time", "give seconds, more than 0")
    return seconds
