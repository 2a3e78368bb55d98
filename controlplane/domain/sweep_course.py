# The course of a sweep: from its plan and its rows alone, which blocks are measured next, or what the search came to. Pure.
"""Rounds are counted through all stages. What a round has is decided by the plan, the seed and the rounds before it, so that whoever
has the rows orders the same again: of a round that was interrupted only the blocks that are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from controlplane.domain.canonical import digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_blocks import FEWEST_TURNS, Turns
from controlplane.domain.sweep_candidates import Candidate
from controlplane.domain.sweep_figures import RATE, Asked, asked, look_of
from controlplane.domain.sweep_plan import MOST_RESERVED, Costs, groups, period, shown_at
from controlplane.domain.sweep_racing import Look, Round, Rules, Standing, race
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step
from controlplane.domain.sweep_spec import Method, spec_from_json
from controlplane.domain.sweep_time import Budget, Stages, overhead_seconds, spent_seconds, stages_of
from controlplane.domain.sweep_together import together
from controlplane.domain.sweeps import Sweep, Taken, Trial
from controlplane.errors import Conflict

ASKED_AT_ONCE = 4
"""Candidates that an optuna search measures, beside the reference, before it asks for more."""
COSTS = Costs()
_ENDS = 0.95
"""Of the time: a bench has to be taken down as well, and there is something left for whoever has no answer yet."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the course of a sweep is decided by besides its rows. `candidates` is how many are tried in all; `sizes` are the bytes of
    the versions, which have to fit into the bench's memory."""

    asked: Asked
    stages: Stages
    method: Method
    seed: int
    seconds: int
    candidates: int
    sizes: Mapping[int, int]
    memory_bytes: int
    began_at: datetime | None = None
    model: str = ""

    def seconds_at(self, rate: float, share: float = 1.0) -> float:
        """How long a block at a constant rate has to be, so that it shows every percentile that an objective names; no less than this
        `share` of what is planned."""
        return self.stages.seconds_at(rate, self.asked.answers, share)

    @property
    def rules(self) -> Rules:
        first, confirm = self.stages.race[0], self.stages.confirm
        return Rules(
            figures=self.asked.race,
            seed=self.seed,
            hard=self.asked.race_hard,
            turns=max(one.turns for one in self.stages.race),
            first_turns=first.turns,
            seconds=first.seconds,
            longest=max(one.seconds for one in self.stages.race),
            looks=len(self.stages.race),
            finalists=confirm.candidates,
            confirm_turns=confirm.turns,
            confirm_seconds=confirm.seconds,
        )


def terms_of(sweep: Sweep, sizes: Mapping[int, int], memory_bytes: int) -> Terms:
    search, asked, stages = spec_from_json(sweep.spec).search, asked_of(sweep), stages_of(sweep.plan)
    if asked.rate is not None:  # finalists have to show what the objectives name
        stages = replace(stages, confirm=shown_at(stages.confirm, asked.rate, asked.answers, search.seconds))
    return Terms(
        asked=asked,
        stages=stages,
        method=search.method,
        seed=search.seed,
        seconds=search.seconds,
        candidates=int(str(sweep.plan["candidates"])),
        sizes=sizes,
        memory_bytes=memory_bytes,
        began_at=sweep.began_at,
        model=sweep.model,
    )


def asked_of(sweep: Sweep) -> Asked:
    margin = float(spec_from_json(sweep.spec).search.margin_percent) / 100
    objectives = [Objective(**one) for one in sweep.objectives]  # type: ignore[arg-type]
    return asked(sweep.load, objectives, margin, stages_of(sweep.plan).race[0].seconds)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Blocks that are still to be measured of a round; `ordered` is how many it has in all, `candidates` who is loaded
    meanwhile."""

    number: int
    stage: Stage
    blocks: tuple[BlockOrder, ...]
    ordered: int
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Raced:
    """Where the race stands: either `ahead` is to be measured, or `asks` more candidates are wanted, or it is over. `looks` are what
    it saw, by candidates' digests; `budget` as of now; `notes` say what the time did not suffice for."""

    standing: Standing
    looks: tuple[Look, ...]
    budget: Budget
    ahead: Ahead | None = None
    asks: int = 0
    seen: Turns = field(default_factory=dict)
    """What candidates are asked for by: blocks by round and turn."""
    notes: tuple[str, ...] = ()
    reserve: float = 0.0
    """Seconds of what is left that are for the highest rate."""


Known = dict[tuple[object, ...], Standing]
"""Standings of looks that are over. Racing costs a second for a hundred candidates, and each walk passes all looks again."""


class Rounds:
    """Numbers rounds and finds their rows. One is used for one walk through them; `known` may be shared by walks of one sweep."""

    def __init__(
        self, terms: Terms, taken: Sequence[Taken], trials: Sequence[Trial], known: Known | None = None
    ) -> None:
        self.terms = terms
        self._known: Known = {} if known is None else known
        self.number = 0
        self._taken = taken
        self._rows: dict[int, dict[int, Taken]] = {}
        self._trials = {trial.candidate: trial for trial in trials}
        for one in taken:
            self._rows.setdefault(one.measurement.round, {})[one.measurement.order.place] = one

    def measured(
        self,
        stage: Stage,
        turns: Sequence[Sequence[str]],
        steps: Callable[[str], Sequence[tuple[Step, float]]],
        loaded: Sequence[str] = (),
    ) -> tuple[list[Measurement], Ahead | None]:
        """The next round's measurements, or what is missing of it. `steps` are those of a candidate, with the seconds of each;
        `loaded` stay so, though they may have no block. Raises Conflict where the rows of the round are of other blocks."""
        self.number += 1
        orders = [
            BlockOrder(0, turn, name, step, seconds, self._seed(turn, at))
            for turn, names in enumerate(turns)
            for name in names
            for at, (step, seconds) in enumerate(steps(name))
        ]
        orders = [replace(order, place=place) for place, order in enumerate(orders)]
        known = self._rows.get(self.number, {})
        self._check(orders, known)
        missing = tuple(order for order in orders if order.place not in known)
        if missing:
            names = dict.fromkeys((*loaded, *sorted({order.candidate for order in orders})))
            return [], Ahead(self.number, stage, missing, len(orders), tuple(names))
        return [known[order.place].measurement for order in orders], None

    @property
    def begun(self) -> bool:
        """Whether the next round has rows."""
        return self.number + 1 in self._rows

    def _check(self, orders: Sequence[BlockOrder], known: Mapping[int, Taken]) -> None:
        """Rows are found by place: those of a course that was laid out in another way must not count for this one."""
        for place, one in sorted(known.items()):
            had, now = one.measurement.order, orders[place] if place < len(orders) else None
            if now is None or (had.candidate, had.turn, had.step) != (now.candidate, now.turn, now.step):
                sweep, model = one.measurement.sweep, self.terms.model
                raise Conflict(
                    f"block {place} of round {self.number} of sweep {sweep} was {_named(had)}, and now would be "
                    f"{'none' if now is None else _named(now)}: another version of the control plane laid out its rounds",
                    hint=f"tritonctl sweep show {sweep} has what was measured; run the sweep anew: tritonctl sweep run {model}",
                )

    def standing(self, rules: Rules, names: Sequence[str], looks: Sequence[Look]) -> Standing:
        """Rows are never changed, so that as many looks at the same candidates are the same looks."""
        key = (rules, tuple(names), tuple(tuple(look.aside) for look in looks))
        if key not in self._known:
            self._known[key] = race(rules, names, looks)
        return self._known[key]

    def budget(self) -> Budget:
        """As of the end of the round that was measured last."""
        rows = [one for one in self._taken if one.measurement.round <= self.number]
        spent = spent_seconds(rows, self.terms.began_at)
        return Budget(_ENDS * self.terms.seconds, spent, overhead_seconds(rows, COSTS))

    def beside(self, names: Sequence[str]) -> list[list[str]]:
        """Those that fit into the memory together."""
        found = []
        for name in names:
            trial = self._trials[name]
            found.append(Candidate(trial.version, trial.config or {}, name, ()))
        return [[one.digest for one in group] for group in groups(found, self.terms.sizes, self.terms.memory_bytes)]

    def _seed(self, turn: int, step: int) -> int:
        """Of a digest, because it says the same everywhere. All of a turn get the same arrivals, so that these part nobody."""
        text = f"{self.terms.seed}:{self.number}:{turn}:{step}"
        return int(digest_bytes(text.encode()).removeprefix("sha256:")[:8], 16) >> 1


def _named(order: BlockOrder) -> str:
    return f"{order.candidate[:19]} at {order.step.label} in turn {order.turn}"


def raced(rounds: Rounds, names: Sequence[str], known: Sequence[Look] = ()) -> Raced:
    """Short blocks first; who is dominated with confidence is dropped, who the time does not reach for is set aside; finalists
    are measured again. Rounds follow each other as `sweep_racing.race` says, after the looks that are `known`."""
    terms, rules = rounds.terms, rounds.terms.rules
    looks = list(known)
    standing = rounds.standing(rules, names, looks)
    while standing.next is not None:
        budget = rounds.budget()
        if looks and not standing.next.confirms:
            room = budget.room(terms.stages, len(looks) + 1, reserved(terms, budget, looks))
            if room < len(standing.left):
                if room <= rules.finalists:
                    rules = replace(rules, looks=len(looks))
                else:
                    looks[-1] = replace(looks[-1], aside={**looks[-1].aside, **_aside(standing.left, room)})
                standing = rounds.standing(rules, names, looks)
        ahead = standing.next
        if ahead is None:
            break
        seconds: float | None = ahead.seconds
        if ahead.confirms:
            ahead, seconds = _in_time(terms, budget, ahead, reserved(terms, budget, looks))
        if seconds is None:
            why = f"the {terms.seconds} s of the search were over before the finalists were measured again"
            return Raced(standing, tuple(looks), budget, notes=(why,))
        look, missing = look_at(rounds, ahead, seconds)
        if missing is not None:
            return Raced(standing, tuple(looks), budget, missing, reserve=reserved(terms, budget, looks))
        looks.append(look)
        standing = rounds.standing(rules, names, looks)
    return Raced(standing, tuple(looks), rounds.budget())


def _in_time(terms: Terms, budget: Budget, ahead: Round, reserve: float) -> tuple[Round, float | None]:
    """Finalists are measured again in shorter blocks where the time is short, or in as few turns as tell anything where those would
    be too short for the percentiles that are asked for, always in whole periods of the load's shape. The seconds are None where
    nothing fits."""
    found: tuple[Round, float | None] = ahead, None
    whole = period(terms.asked.steps[0].shape, terms.asked.steps[0].text)
    for order in (ahead.order, ahead.order[:FEWEST_TURNS]):
        blocks = sum(map(len, order)) * len(terms.asked.steps)
        seconds = budget.seconds_each(blocks, ahead.seconds, reserve)
        if seconds is not None and whole:
            seconds = math.floor(seconds / whole) * whole
        if not seconds:
            continue
        fits = replace(ahead, order=order), seconds
        if terms.asked.rate is None or terms.asked.rate * seconds >= terms.asked.answers:
            return fits
        found = found if found[1] is not None else fits
    return found


def reserved(terms: Terms, budget: Budget, looks: Sequence[Look]) -> float:
    """For the highest rate, whose blocks are the longer the lower it is."""
    planned = terms.stages.rate
    if planned is None:
        return 0.0
    shown = [block.figures[RATE] for look in looks[-1:] for block in look.blocks if RATE in block.figures]
    rate = terms.asked.rate or max(shown, default=0.0)
    seconds = terms.seconds_at(rate) if rate > 0 else planned.seconds
    return min(planned.blocks * (seconds + budget.overhead), MOST_RESERVED * terms.seconds)


def _aside(left: Sequence[str], room: int) -> dict[str, str]:
    why = f"not dominated with confidence; the time suffices for {room} in the next round, and by its estimates it is not among those"
    return dict.fromkeys(left[room:], why)


def look_at(rounds: Rounds, ahead: Round, seconds: float) -> tuple[Look, Ahead | None]:
    """A look of a race is one round, or one for each group that fits into the memory."""
    stage = Stage.CONFIRM if ahead.confirms else Stage.RACE

    def turns(names: Sequence[str], _: int) -> list[list[str]]:
        return [[name for name in turn if name in names] for turn in ahead.order]

    found, missing = in_groups(rounds, stage, turns, ahead.order[0], seconds=seconds)
    if missing is not None:
        return Look(()), missing
    return together([look for look, _ in found], [reference for _, reference in found]), None


def in_groups(
    rounds: Rounds,
    stage: Stage,
    turns: Callable[[Sequence[str], int], Sequence[Sequence[str]]],
    names: Sequence[str],
    *,
    seconds: float,
    able: Sequence[str] = (),
) -> tuple[list[tuple[Look, str | None]], Ahead | None]:
    """One round for each group that fits into the memory, `turns` of its members and its number: what it brought, and its reference, the
    first of those that have been measured, `able` before all, which leaves memory for another. Finalists get none: their figures are
    the answer's, and stay as they were measured."""
    steps = [(step, seconds) for step in rounds.terms.asked.steps]
    left, known, found = list(names), list(able), list[tuple[Look, str | None]]()
    while left:
        links = (one for one in known if stage is Stage.RACE and len(rounds.beside([one, *left])[0]) > 1)
        reference = next(links, None)
        group = rounds.beside(left if reference is None else [reference, *left])[0]
        rows, missing = rounds.measured(stage, turns(group, rounds.number + 1), lambda _: steps)
        if missing is not None:
            return [], missing
        look = look_of(rounds.terms.asked, rows)
        found.append((look, reference))
        known += [name for name in group if name != reference]
        known = [name for name in known if name not in look.failed]
        left = [name for name in left if name not in group]
    return found, None
