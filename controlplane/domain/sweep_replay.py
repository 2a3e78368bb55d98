# The same rounds again elsewhere: which block comes next, and which figures agree with those of the capsule. Pure.
"""Both sweeps have the same blocks with the same arrivals, but not at the same time nor on the same machine, so blocks are not paired:
a figure's ratio is that of two geometric means, its interval Welch's (1947, *The generalization of Student's problem when several
different population variances are involved*), each end as sure as it takes for all that are looked at together (Bonferroni). A
difference counts where the whole interval lies beyond the spec's margin: two hours on one machine differ by less than that
for reasons that blocks which follow each other do not show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clients.load.statistics import Interval, Samples
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_blocks import FEWEST_TURNS
from controlplane.domain.sweep_compare import LEVEL, blocks_by_turn
from controlplane.domain.sweep_course import Ahead
from controlplane.domain.sweep_figures import LATENCY, Asked
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Verdict
from controlplane.domain.sweep_search import UNKNOWN, figure_name, words
from controlplane.domain.sweeps import Trial

AGREES, DIFFERS, UNTOLD = "agrees", "differs", "cannot tell"
_TWICE = 2.0
"""An interval that holds a figure so many times as good or as bad says nothing of agreement."""
_RESOLUTION = 0.001
"""The least spread of a log that is believed: histograms keep three figures."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """One figure of one trial, `before` in the capsule and `after` here. `ratio` is after over before, from 0 to infinite where one
    side has too few blocks."""

    trial: int
    figure: str
    before: Interval
    after: Interval
    ratio: Interval
    outcome: str

    @property
    def words(self) -> str:
        name = f"trial {self.trial}, {self.figure}"
        if self.outcome == UNTOLD:
            return f"{name}: cannot be told; {words(self.before)} there, {words(self.after)} here"
        ratio = f"{self.ratio.value:.3g} times ({self.ratio.low:.3g} to {self.ratio.high:.3g})"
        return f"{name}: {self.outcome}, {ratio}; {words(self.before)} there, {words(self.after)} here"

    def to_json(self) -> JsonObject:
        sides = (("before", self.before), ("after", self.after), ("ratio", self.ratio))
        return {
            "trial": self.trial,
            "figure": self.figure,
            "outcome": self.outcome,
            **{side: [repr(float(end)) for end in (one.value, one.low, one.high)] for side, one in sides},
        }


def ahead_of(measured: Iterable[Measurement], here: Iterable[Measurement]) -> Ahead | None:
    """The first round of a capsule's that is not whole here, with the blocks that are missing; None where all are."""
    rounds: dict[int, dict[int, tuple[Stage, BlockOrder]]] = {}
    for one in measured:
        rounds.setdefault(one.round, {})[one.order.place] = one.stage, one.order
    known = {(one.round, one.order.place) for one in here}
    for number, blocks in sorted(rounds.items()):
        missing = tuple(order for place, (_, order) in sorted(blocks.items()) if (number, place) not in known)
        if missing:
            stage = next(iter(blocks.values()))[0]
            candidates = tuple(dict.fromkeys(order.candidate for _, order in blocks.values()))
            return Ahead(number, stage, missing, len(blocks), candidates)
    return None


def agreement(
    asked: Asked, trials: Sequence[Trial], before: Sequence[Measurement], after: Sequence[Measurement], margin: float
) -> tuple[Agreed, ...]:
    """Of every figure that candidates are compared or judged by, and that enough blocks show in the capsule; of blocks at a constant
    rate, of the latency that it is to hold."""
    there, here = _values(asked, before), _values(asked, after)
    numbers = {trial.candidate: trial.number for trial in trials}
    keys = [key for key, values in there.items() if key[0] in numbers and len(values.logs) >= FEWEST_TURNS]
    level = LEVEL / max(len(keys), 1)
    found = []
    for candidate, figure in keys:
        one, other = there[candidate, figure], here.get((candidate, figure), _Values())
        ratio = _ratio(one, other, level)
        found.append(
            Agreed(
                numbers[candidate], figure, one.interval(level), other.interval(level), ratio, _outcome(ratio, margin)
            )
        )
    return tuple(sorted(found, key=lambda one: (one.trial, one.figure)))


def failures(
    trials: Sequence[Trial], before: Sequence[Measurement], after: Sequence[Measurement]
) -> tuple[tuple[int, str], ...]:
    """Trials that could be measured on one side alone, in words."""
    sides = [_measured(rows) for rows in (before, after)]
    found = []
    for trial in trials:
        there, here = (trial.candidate in side for side in sides)
        if there != here and any(one.order.candidate == trial.candidate for one in before):
            found.append(
                (trial.number, "was measured there, and could not be here" if there else "failed there, and not here")
            )
    return tuple(found)


def answer(
    agreed: Sequence[Agreed],
    apart: Sequence[tuple[int, str]],
    machines: Sequence[str],
    dropped: Sequence[str],
    source: str,
) -> JsonObject:
    """As sweeps keep their answers. `machines` are the differences of the fingerprints, `source` is what was replayed."""
    count = {outcome: sum(1 for one in agreed if one.outcome == outcome) for outcome in (AGREES, DIFFERS, UNTOLD)}
    differing = [one.words for one in agreed if one.outcome == DIFFERS]
    parts = [f"{count[AGREES]} of {len(agreed)} figures agree within their intervals and the margin"]
    parts += [f"{count[DIFFERS]} differ"] if count[DIFFERS] else []
    parts += [f"{count[UNTOLD]} cannot be told"] if count[UNTOLD] else []
    listed: list[Json] = [f"trial {number} {said}" for number, said in apart]
    listed += [*differing, *(one.words for one in agreed if one.outcome != DIFFERS)]
    notes: list[Json] = [f"machine: {line}" for line in machines] or ["machine: no difference of the fingerprints"]
    return {
        "schema": 1,
        "chosen": None,
        "front": [],
        "reason": f"a replay of {source}: {', '.join(parts)}",
        "because": listed,
        "figures": {},
        "findings": {},
        "dominated": {},
        "highest_rate": None,
        "unseen": [],
        "notes": [*notes, *dropped],
        "replay": {
            "of": source,
            "agreement": [one.to_json() for one in agreed],
            "failures": [{"trial": number, "said": said} for number, said in apart],
            "machines": list(machines),
            "differing": count[DIFFERS] + len(apart),
        },
    }


@dataclass(frozen=True, slots=True)
class _Values:
    """Logs of a figure's values, each with the length of its block."""

    logs: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()

    def with_one(self, value: float, seconds: float) -> _Values:
        return _Values((*self.logs, math.log(value)), (*self.seconds, seconds))

    def mean(self) -> tuple[float, float, int]:
        """Of the logs, with the square of its error, and its degrees of freedom."""
        logs: Samples = np.array(self.logs)
        weights: Samples = np.array(self.seconds)
        whole, count = float(weights.sum()), len(logs)
        mean = float(weights @ logs) / whole
        spread = float(weights @ (logs - mean) ** 2) / (count - 1) / whole
        return mean, max(spread, _RESOLUTION**2 / count), count - 1

    def interval(self, level: float) -> Interval:
        if len(self.logs) < FEWEST_TURNS:
            return UNKNOWN if not self.logs else Interval(math.exp(sum(self.logs) / len(self.logs)), 0.0, math.inf)
        mean, square, degrees = self.mean()
        return _interval(mean, square, float(degrees), level)


def _values(asked: Asked, measurements: Sequence[Measurement]) -> dict[tuple[str, str], _Values]:
    """By candidate and figure, in the order in which they were measured."""
    wanted = {figure.name for figure in (*asked.figures, *asked.race)}
    wanted |= {figure_name(one) for one in (*asked.hard, *asked.race_hard)}
    found: dict[tuple[str, str], _Values] = {}

    def add(candidate: str, figure: str, value: float, seconds: float) -> None:
        if 0 < value < math.inf:
            found[candidate, figure] = found.get((candidate, figure), _Values()).with_one(value, seconds)

    for blocks in blocks_by_turn(asked, measurements).values():
        for candidate, block in blocks.items():
            for figure in sorted(block.figures.keys() & wanted):
                add(candidate, figure, block.figures[figure], block.seconds)
    if asked.bound is not None:
        bounded = f"{LATENCY} p{asked.bound.percent:g}"
        for one in measurements:
            if (
                one.stage is Stage.RATE
                and one.verdict is not Verdict.NOT_MEASURED
                and bounded in one.figures
                and one.seconds > 0
            ):
                add(one.order.candidate, f"{bounded} at {one.order.step.text}/s", one.figures[bounded], one.seconds)
    return found


def _ratio(before: _Values, after: _Values, level: float) -> Interval:
    if min(len(before.logs), len(after.logs)) < FEWEST_TURNS:
        return UNKNOWN
    (one, first, m), (other, second, n) = before.mean(), after.mean()
    degrees = (first + second) ** 2 / (first**2 / m + second**2 / n)
    return _interval(other - one, first + second, degrees, level)


def _interval(mean: float, square: float, degrees: float, level: float) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 1 - level)) * math.sqrt(square)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half) if mean + half < 700 else math.inf)


def _outcome(ratio: Interval, margin: float) -> str:
    if math.isnan(ratio.value) or math.isinf(ratio.high):
        return UNTOLD
    if ratio.low > 1 + margin or ratio.high < 1 / (1 + margin):
        return DIFFERS
    return AGREES if ratio.low >= 1 / _TWICE and ratio.high <= _TWICE else UNTOLD


def _measured(rows: Iterable[Measurement]) -> set[str]:
    return {one.order.candidate for one in rows if one.verdict is not Verdict.NOT_MEASURED}
