# Where each trial of a sweep ended up and why; which of them a report is about. Pure.
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from clients.load.statistics import Interval
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_answer import figures_of_answer
from controlplane.domain.sweep_compare import figures_seen
from controlplane.domain.sweep_figures import LATENCY, RATE, THROUGHPUT
from controlplane.domain.sweep_racing import Fate
from controlplane.domain.sweep_rounds import Stage
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweeps import Trial
from controlplane.reports.material import Material
from controlplane.reports.points import Point, main_points, points, step_words
from controlplane.reports.wording import label, more_is_better, objective, unit

MOST = 6
"""Trials that have a colour of their own; more could not be told apart."""


_ROUNDED = 0.001
"""Rates are written with so much left out."""


class Place(StrEnum):
    CHOSEN = "chosen"
    FRONT = "on the front"
    OTHER = "measured"
    MISSES = "misses an objective"
    FAILED = "could not be measured"
    REFUSED = "not tried"
    WAITING = "not measured"


@dataclass(frozen=True, slots=True)
class Standing:
    """`word` is the search's own for what became of the trial, `why` its reason."""

    trial: Trial
    place: Place
    word: str
    why: str


@dataclass(frozen=True, slots=True)
class Bound:
    """Of a hard objective: its value, `≤ 40 ms`, and the whole objective in words."""

    value: float
    short: str
    words: str


@dataclass(frozen=True)  # no slots: what is derived is kept
class Findings:
    """What a sweep found, for whoever draws or writes it."""

    material: Material

    @cached_property
    def answer(self) -> JsonObject:
        return self.material.sweep.answer or {}

    @cached_property
    def chosen(self) -> Trial | None:
        return self._named(self.answer.get("chosen"))

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The preferred first."""
        found = (self._named(name) for name in items(self.answer.get("front")))
        return tuple(trial for trial in found if trial is not None)

    @cached_property
    def base(self) -> Trial | None:
        """What is deployed, or would be generated, of the version that was chosen if there are several."""
        bases = [trial for trial in self.material.trials if trial.base]
        version = self.chosen.version if self.chosen else None
        return next((trial for trial in bases if trial.version == version), bases[0] if bases else None)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        return points(self.material)

    @cached_property
    def main(self) -> Mapping[int, Point]:
        limits = {
            name: bound.value for name in self._asked() if name.startswith(LATENCY) for bound in self.bounds(name)
        }
        return main_points(self.points, self.chosen.number if self.chosen else None, limits)

    @property
    def load_words(self) -> str:
        """Under which load trials are held against each other."""
        return next((step_words(point.step) for point in self.main.values()), "no load")

    @property
    def answers(self) -> int:
        """Of all trials under that load."""
        return sum(point.answers for point in self.main.values())

    @cached_property
    def held(self) -> Mapping[int, Point]:
        """Of each trial whose highest rate was confirmed, the blocks at it."""
        rates = {number: figures.get(RATE) for number, figures in self._told.items()}
        return {
            point.trial.number: point
            for point in self.points
            if point.stage is Stage.RATE
            and (rate := rates.get(point.trial.number)) is not None
            and rate.low > 0
            and point.load is not None
            and abs(point.load - rate.value) <= _ROUNDED
        }

    @cached_property
    def figures(self) -> Mapping[int, Mapping[str, Interval]]:
        """What the search says of each trial, by its number: what the answer rests on, else what its blocks showed."""
        seen = figures_seen(self.material.asked, self.material.measurements)
        found = {
            trial.number: self._told.get(trial.number) or seen.get(trial.candidate, {})
            for trial in self.material.trials
        }
        return {number: figures for number, figures in found.items() if figures}

    def under_main(self, trial: Trial) -> Mapping[str, Interval]:
        """Its figures under the main load, as far as it was measured there."""
        point = self.main.get(trial.number)
        return point.figures if point else {}

    @cached_property
    def latency(self) -> str | None:
        """The figure that stands for latency, of those that at least half as many trials show as any: that of a hard objective, of a
        wish, what races go by in its place, or p99."""
        shown = {(point.trial.number, name) for point in self.points for name in point.figures}
        counts = Counter(name for _, name in shown if name.startswith(f"{LATENCY} "))
        race = [figure.name for figure in self.material.asked.race]
        order = (*self._asked(), *race, f"{LATENCY} p99", *sorted(counts, reverse=True))
        return next((name for name in order if counts[name] > 0 and 2 * counts[name] >= max(counts.values())), None)

    @cached_property
    def pace(self) -> str | None:
        """The figure that stands for how much is done under the main load; None where the load says how much."""
        names = {name for point in self.main.values() for name in point.figures}
        given = any(point.step.shape is Shape.RATE for point in self.main.values())
        return RATE if RATE in names else THROUGHPUT if THROUGHPUT in names and not given else None

    @cached_property
    def standings(self) -> Mapping[int, Standing]:
        """Of every trial, by its number: the chosen, the front, the other measured ones, then who was not."""
        found = [self._standing(trial) for trial in self.material.trials]
        order, ranks = list(Place), {trial.number: rank for rank, trial in enumerate(self.front)}
        found.sort(
            key=lambda one: (
                order.index(one.place),
                ranks.get(one.trial.number, len(ranks)),
                -self.worth(one.trial),
                one.trial.number,
            )
        )
        return {one.trial.number: one for one in found}

    @cached_property
    def featured(self) -> tuple[Trial, ...]:
        """Those with a colour of their own: the chosen, the base, the front, and the best of the others."""
        first = [self.chosen, self.base, *self.front, *(one.trial for one in self.standings.values())]
        shown = {point.trial.number for point in self.points}
        there = [trial for trial in first if trial is not None and trial.number in shown]
        return tuple({trial.number: trial for trial in there}.values())[:MOST]

    @cached_property
    def versions(self) -> int:
        return len({trial.version for trial in self.material.trials})

    def label(self, trial: Trial) -> str:
        return label(trial, self.versions)

    def worth(self, trial: Trial) -> float:
        """Under the main load, by how much it does, or else its latency; more is better."""
        name = self.pace or self.latency
        interval = self.under_main(trial).get(name) if name else None
        if name is None or interval is None:
            return float("-inf")
        return interval.value if more_is_better(name) else -interval.value

    def bounds(self, name: str) -> list[Bound]:
        """Of the hard objectives on that figure."""
        found = []
        for one in self.material.sweep.objectives:
            if f"{one.get('metric')} {one.get('qualifier') or ''}".strip() == name and one.get("weight") is None:
                sign = "≤" if one.get("direction") == "at_most" else "≥"
                short = f"{sign} {one.get('bound')} {unit(name)}".rstrip()
                found.append(Bound(float(str(one.get("bound"))), short, objective(one)))
        return found

    def _standing(self, trial: Trial) -> Standing:
        if trial.refused:
            return Standing(trial, Place.REFUSED, "not tried", "; ".join(trial.refused))
        if trial.failure:
            return Standing(trial, Place.FAILED, "failed", trial.failure)
        fate = trial.fates[-1] if trial.fates else {}
        word, why = str(fate.get("fate", "")), str(fate.get("reason", ""))
        if self.chosen is not None and trial.number == self.chosen.number:
            return Standing(trial, Place.CHOSEN, "chosen", str(self.answer.get("reason", "")))
        if trial in self.front:
            others = f"not dominated; {self.chosen.name} is preferred" if self.chosen else "not dominated"
            return Standing(trial, Place.FRONT, "on the front", others)
        dominated = self.answer.get("dominated")
        if isinstance(dominated, Mapping) and (said := dominated.get(trial.name) or dominated.get(trial.candidate)):
            return Standing(trial, Place.OTHER, "dominated", str(said))
        if trial.number not in self.main and trial.number not in self.figures:
            return Standing(trial, Place.WAITING, word or "not measured", why or self._unmeasured())
        place = Place.MISSES if word == Fate.MISSES.value else Place.OTHER
        return Standing(trial, place, word or "measured", why or "the search decided nothing of it")

    @cached_property
    def _told(self) -> Mapping[int, Mapping[str, Interval]]:
        """By the answer."""
        by_name = self.material.by_name
        return {
            by_name[name].number: figures
            for name, figures in figures_of_answer(self.material.sweep).items()
            if name in by_name
        }

    def _asked(self) -> list[str]:
        """The figures of the objectives, of hard ones first."""
        hard = sorted(self.material.sweep.objectives, key=lambda one: one.get("weight") is not None)
        return [f"{one.get('metric')} {one.get('qualifier') or ''}".strip() for one in hard]

    def _unmeasured(self) -> str:
        sweep = self.material.sweep
        return f"the sweep is {sweep.state.value}" + (f": {sweep.message}" if sweep.message else "")

    def _named(self, name: Json) -> Trial | None:
        """The answer names trials; of an answer that is not made yet there is none."""
        known = str(name)
        return self.material.by_name.get(known) or self.material.by_candidate.get(known)


def items(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def fields(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
