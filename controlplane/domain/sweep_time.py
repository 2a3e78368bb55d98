# How much of its time a sweep has used, by its rows, and what the rest is enough for. Pure.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_plan import FINALISTS, HIGHEST, PREDICTED, Costs, planned_answers
from controlplane.domain.sweep_plan import Stage as Planned
from controlplane.domain.sweeps import Taken

_LONGEST_START = 120.0
"""What comes before the first block: a bench is started, candidates are loaded. Longer than this nobody was at work."""
_FEWEST_GAPS = 3
_SHORTEST, _LONGEST = 0.5, 60.0


@dataclass(frozen=True, slots=True)
class Stages:
    """Those of a plan, as a sweep keeps it. `rate` is None where no highest rate is looked for, `predicted` where all there are
    are tried."""

    race: tuple[Planned, ...]
    confirm: Planned
    rate: Planned | None
    predicted: Planned | None = None

    def seconds_at(self, rate: float, answers: int, share: float = 1.0) -> float:
        """How long a block at a constant rate has to be, so that it brings so many answers, and no less than this `share` of what is
        planned."""
        assert self.rate is not None
        return round(min(max(share * self.rate.seconds, _SHORTEST, planned_answers(answers) / rate), _LONGEST), 3)

    @property
    def all(self) -> tuple[Planned, ...]:
        first, *others = self.race
        found = (first, self.predicted, *others, self.confirm, self.rate)
        return tuple(one for one in found if one is not None)


def stages_of(plan: JsonObject) -> Stages:
    listed = plan["stages"]
    assert isinstance(listed, list | tuple)
    found = [_stage(one) for one in listed]
    race = tuple(one for one in found if one.name not in {FINALISTS, HIGHEST, PREDICTED})
    by_name = {one.name: one for one in found}
    return Stages(race, by_name[FINALISTS], by_name.get(HIGHEST), by_name.get(PREDICTED))


def _stage(tree: Json) -> Planned:
    assert isinstance(tree, Mapping)
    numbers = {name: int(str(tree[name])) for name in ("candidates", "turns", "steps", "milliseconds", "loads")}
    return Planned(
        str(tree["name"]),
        numbers["candidates"],
        numbers["turns"],
        numbers["steps"],
        numbers["milliseconds"] / 1000,
        numbers["loads"],
    )


def spent_seconds(taken: Sequence[Taken], began_at: datetime | None) -> float:
    """From the beginning to the end of the last block, without the time between two claims, in which nobody was at work. What
    several hosts measure at once counts once."""
    rows = sorted(taken, key=lambda one: one.measurement.started_at)
    if not rows:
        return 0.0
    latest, total = rows[0].measurement.started_at, 0.0
    if began_at is not None:
        total = min(max((latest - began_at).total_seconds(), 0.0), _LONGEST_START)
    for place, one in enumerate(rows):
        began, ended = one.measurement.started_at, one.measurement.finished_at
        if not place or rows[place - 1].claim != one.claim:
            latest = max(latest, began)
        total += max((ended - latest).total_seconds(), 0.0)
        latest = max(latest, ended)
    return total


def overhead_seconds(taken: Sequence[Taken], costs: Costs) -> float:
    """Of one block, beside what was asked for: from its start to the next one's in the same round; the plan's until it is known.
    Blocks that another host measured meanwhile tell nothing of it."""
    rows = sorted(taken, key=lambda one: one.measurement.started_at)
    known = [
        (after.measurement.started_at - one.measurement.started_at).total_seconds() - one.measurement.order.seconds
        for one, after in pairwise(rows)
        if (one.claim, one.measurement.round) == (after.claim, after.measurement.round)
        and after.measurement.started_at >= one.measurement.finished_at
    ]
    return max(sum(known) / len(known), 0.0) if len(known) >= _FEWEST_GAPS else costs.block


@dataclass(frozen=True, slots=True)
class Budget:
    """`seconds` that the sweep may measure in all; `spent` and `overhead` as of some round."""

    seconds: float
    spent: float
    overhead: float

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def of(self, planned: Planned | None) -> float:
        """What a stage takes as planned, with the overhead that was seen, without loading."""
        return 0.0 if planned is None else planned.blocks * (planned.seconds + self.overhead)

    def room(self, stages: Stages, look: int, reserve: float) -> int:
        """How many candidates have their blocks in the `look`-th round of the race, counted from 1, if the rounds that are planned
        share what the end leaves of the time as they were to. At most so many are measured; `reserve` is for the highest rate."""
        coming = stages.race[look - 1 :]
        if not coming:
            return 0
        for_race = self.left - self.of(stages.confirm) - reserve
        whole = sum(self.of(one) for one in coming)
        each = coming[0].turns * coming[0].steps * (coming[0].seconds + self.overhead)
        return max(0, int(for_race * self.of(coming[0]) / whole / each))

    def seconds_each(self, blocks: int, planned: float, reserve: float = 0.0) -> float | None:
        """How long each of `blocks` may be, at most as planned; None where there is not even a quarter of that for them."""
        fits = (self.left - reserve) / blocks - self.overhead
        return None if fits < planned / 4 else round(min(planned, fits), 3)
