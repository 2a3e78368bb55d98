# What the blocks of a sweep are to show: their steps of load, the figures that candidates are compared by, and what may be judged.
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from clients.load.statistics import fewest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_racing import Look
from controlplane.domain.sweep_rounds import Measurement, Step, Verdict
from controlplane.domain.sweep_search import Figure, figure_name
from controlplane.domain.sweep_spec import Load, Shape
from controlplane.domain.sweep_values import plain

RATE = "sustainable_rate"
THROUGHPUT = "throughput"
LATENCY = "latency_ms"
OVERTIME = "the time of the search was over"
"""The reason of blocks that nobody's fault it is that they were not measured."""
_PERCENTS = (50.0, 90.0, 95.0, 99.0)
DRAW = Decimal("0.99")
"""Of a rate that is to be sustained: how many arrivals there are in a block is drawn, and this much less is no miss."""
_DEVIATIONS = 3.0
"""Of the number of arrivals that a rate draws: with still fewer answers it was not kept up."""
_LATE = 0.05
_SHOWS = frozenset({Verdict.VALID, Verdict.UNSTABLE, Verdict.TOO_FEW_SAMPLES, Verdict.CLIENT_LIMITED})
"""Failing requests are counted where candidates are judged. A client that was too slow itself makes a candidate look slower,
never faster: leaving it out would lose the fastest."""
_RAMP = 0.05
"""How far a rising rate passes a bound late, and an end of it where the bound was not passed at all, are the same each time: ratios of such
blocks agree better than they are true. Those of closed loops, where nobody gave the ends, are further apart by themselves (10 to 20 %)."""
_BEYOND = 3.0
"""A rate that rises evenly from nothing is answered at half of where it ends: who is said to hold more than three times what it answered
was begun with beyond anything that it can do. In a closed loop what is answered is the most that is held."""
_ANSWERS = 60.0
"""Of a short block, where nothing says how many it brings."""
_NEVER_MS = 30_000.0
"""As long a call is waited for. It stands for a percentile that so many calls failed for that it has no end."""
_SPARE = 1.2
"""Of the answers that a percentile needs: arrivals are drawn."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The latency that a rate is to hold: of several the highest percentile, and the tightest of those."""

    objective: str
    percent: float
    ms: float


def bound_of(objectives: Iterable[Objective]) -> Bound | None:
    found = [
        Bound(one.name, float(one.qualifier.removeprefix("p")), float(one.bound))
        for one in objectives
        if one.metric == LATENCY and one.direction == "at_most" and one.weight is None and percentile(one) is not None
    ]
    return max(found, key=lambda one: (one.percent, -one.ms, one.objective), default=None)


def percentile(objective: Objective) -> float | None:
    """None for a cohort, or none at all."""
    number = objective.qualifier.removeprefix("p")
    return float(number) if number != objective.qualifier and number.replace(".", "", 1).isdigit() else None


def is_to_sustain(objective: Objective) -> bool:
    """Whether it requires a throughput."""
    return (objective.metric, objective.direction, objective.weight) == (THROUGHPUT, "at_least", None)


@dataclass(frozen=True, slots=True)
class Asked:
    """`steps` are measured one after the other in each turn. `ramps`: each block looks for the highest rate itself. `figures` are what
    trials are compared by, `hard` the objectives without weight that a block can show, `objectives` all that the end can
    show; `unseen` cannot be measured here. The short blocks of a race show no p99: `race` and `race_hard` name the highest percentile that
    they show instead, whose bound is no looser. `finds_rate`: finalists' highest rate is looked for at the end, under `bound`.
    `drawn`: when requests arrive is, so that a throughput that is to be sustained counts from `DRAW` of it on."""

    steps: tuple[Step, ...]
    figures: tuple[Figure, ...]
    race: tuple[Figure, ...]
    hard: tuple[Objective, ...]
    race_hard: tuple[Objective, ...]
    objectives: tuple[Objective, ...]
    unseen: tuple[Objective, ...]
    bound: Bound | None
    ramps: bool
    finds_rate: bool
    drawn: bool
    percents: tuple[float, ...]

    @property
    def answers(self) -> int:
        """Without so many a block cannot show every percentile that a hard objective names."""
        hard = [one for one in self.objectives if one.weight is None and one.metric == LATENCY]
        return max([fewest(percent) for one in hard if (percent := percentile(one)) is not None], default=0)

    @property
    def rate(self) -> float | None:
        """The lowest that is offered, where it is always the same."""
        return min(float(one.text) for one in self.steps) if self.steps[0].shape is Shape.RATE else None


def asked(load: JsonObject, objectives: Sequence[Objective], margin: float, seconds: float) -> Asked:
    """Of a sweep's `load` as it is kept, and its objectives; the shortest blocks of its race last `seconds`."""
    shape = next(one for one in Shape if one.value in load)
    given, finds = Load(shape, str(load[shape.value]), str(load["process"])), bool(load["finds_rate"])
    drawn = finds or shape is not Shape.CONCURRENCY
    known = [_plainly(one, drawn=drawn) for one in objectives]
    wide = any(one.metric == "concurrency" and one.weight is None for one in known)
    ramps = finds and (shape is Shape.FIND_RATE or (shape is Shape.CONCURRENCY and len(given.steps) == 1 and not wide))
    seen = [one for one in known if _measured(one, finds=finds)]
    texts = [plain(one) for one in given.steps] or [given.text]
    steps = tuple(Step(shape, one, given.process) for one in texts)
    figures: tuple[Figure, ...] = (Figure(RATE, True, margin, resolution=_RAMP if ramps else 0.001),)
    hard = tuple(one for one in seen if one.weight is None and one.metric != RATE and not ramps)
    if ramps:
        steps = (Step(Shape.FIND_RATE, given.text if shape is Shape.FIND_RATE else "", given.process),)
    else:
        figures = _figures(steps, seen, margin)
    each = float(given.steps[0]) * seconds if shape is Shape.RATE else _ANSWERS
    early = [_shown_early(one, each) for one in seen]
    percents = {one for objective in seen if (one := percentile(objective)) is not None}
    return Asked(
        steps,
        figures,
        figures if ramps else _figures(steps, early, margin, each),
        hard,
        tuple(_shown_early(one, each) for one in hard),
        tuple(seen),
        tuple(one for one in known if one not in seen and one.metric != "concurrency"),
        bound_of(known) if finds else None,
        ramps,
        finds,
        drawn,
        tuple(sorted({*_PERCENTS, *percents})),
    )


def look_of(asked: Asked, measurements: Sequence[Measurement]) -> Look:
    """Of one look's measurements, with those that failed in it: that could not be measured, or whose requests mostly fail."""
    by_name: dict[str, list[Measurement]] = {}
    for one in measurements:
        by_name.setdefault(one.order.candidate, []).append(one)
    failed, blocks = dict[str, str](), list[Block]()
    for name, own in by_name.items():
        why = _failure(own)
        if why:
            failed[name] = why
            continue
        for turn in sorted({one.order.turn for one in own}):
            block = block_of(asked, [one for one in own if one.order.turn == turn])
            if block is not None:
                blocks.append(block)
    return Look(blocks, failed)


def block_of(asked: Asked, measurements: Sequence[Measurement], *, everything: bool = False) -> Block | None:
    """One candidate's turn, a measurement for each step; None where none shows anything. Of a ladder each step has figures of its
    own; `_judged` says of which step those without a step's name are. Only what candidates are compared or judged by, blocks with failing
    requests among it, or `everything` that others show."""
    shows = _SHOWS if everything else _SHOWS | {Verdict.ERRORS}
    shown = sorted(
        (one for one in measurements if one.verdict in shows and one.seconds > 0), key=lambda one: one.order.place
    )
    if not shown:
        return None
    wanted = {figure.name for figure in (*asked.figures, *asked.race)}
    wanted |= {figure_name(one) for one in (*asked.objectives, *asked.race_hard)}
    each = [_with_failures(one, asked.percents) if one.verdict is Verdict.ERRORS else shown_by(one) for one in shown]
    figures: dict[str, float] = {}
    if len(asked.steps) > 1:
        for one, own in zip(shown, each, strict=True):
            figures |= {at_step(name, one.order.step): value for name, value in own.items()}
    place, own = _judged(asked, shown, each) if len(measurements) > 1 else (0, each[0])
    figures |= own
    return Block(
        shown[0].order.candidate,
        shown[0].order.turn,
        sum(one.seconds for one in shown),
        {name: value for name, value in figures.items() if everything or name in wanted},
        shown[place].completed,
    )


def _judged(
    asked: Asked, shown: Sequence[Measurement], each: Sequence[Mapping[str, float]]
) -> tuple[int, dict[str, float]]:
    """Which of a ladder's steps, and its figures. A throughput that is required and a latency are to hold at one load: the first that brings
    it, else the one that brings the most. Where none is required, latencies are those of the first step, and the throughput is the most."""
    bounds = [float(one.bound) for one in asked.objectives if is_to_sustain(one)]
    brings = [own.get(THROUGHPUT, 0.0) for own in each]
    most = brings.index(max(brings))
    if bounds:
        place = next((at for at, value in enumerate(brings) if value >= max(bounds)), most)
        return place, dict(each[place])
    begins = shown[0].order.step == asked.steps[0]
    found = dict(each[0]) if begins else {}
    return 0, found | ({THROUGHPUT: brings[most]} if brings[most] > 0 else {})


def _with_failures(one: Measurement, percents: Sequence[float]) -> dict[str, float]:
    """A call that failed is beyond any latency, and blocks in which some did are not left out: that would count only the good ones."""
    answered = max(one.completed, 1) / one.seconds
    if one.order.step.shape is Shape.FIND_RATE:
        return {RATE: min(one.figures.get(RATE, answered), answered)}
    known = [percent for percent in percents if fewest(percent) <= one.completed + one.failed]
    return {THROUGHPUT: answered, **{latency(percent): _NEVER_MS for percent in known}, **one.figures}


def shown_by(one: Measurement) -> dict[str, float]:
    """A rate that was kept up is the throughput: how many arrivals it drew says nothing of the candidate. A valid block need not have
    kept it up: a queue that only grows takes a while to be long."""
    found = dict(one.figures)
    if one.order.step.shape is Shape.FIND_RATE:
        answered = one.completed / one.seconds if one.seconds > 0 else 0.0
        return {RATE: min(found[RATE], _BEYOND * answered)} if RATE in found and answered > 0 else {}
    if one.order.step.shape is Shape.RATE and one.verdict is Verdict.VALID and THROUGHPUT in found and one.seconds > 0:
        rate = float(one.order.step.text)
        if found[THROUGHPUT] >= rate * _kept_up(rate, one.seconds):
            found[THROUGHPUT] = rate
    return found


def fell_behind(one: Measurement, bound_ms: float) -> bool:
    """Whether a block at a constant rate was answered at less than that: where the bound is long, a queue that only grows may end before it is as
    long. The last answers may be late by the bound, which in a short block is much: _LATE at the most."""
    if one.order.step.shape is not Shape.RATE or THROUGHPUT not in one.figures or one.seconds <= 0:
        return False
    rate = float(one.order.step.text)
    return one.figures[THROUGHPUT] < rate * (_kept_up(rate, one.seconds) - min(bound_ms / 1000 / one.seconds, _LATE))


def _kept_up(rate: float, seconds: float) -> float:
    """So much of it is answered, by what a constant rate draws."""
    return float(DRAW) - _DEVIATIONS / math.sqrt(rate * seconds)


def at_step(name: str, step: Step) -> str:
    return f"{name} at {step.label}"


def latency(percent: float) -> str:
    return f"{LATENCY} p{percent:g}"


def _failure(own: Sequence[Measurement]) -> str:
    """Empty where it can be measured on."""
    gone = next((one for one in own if one.verdict is Verdict.NOT_MEASURED and one.reasons != (OVERTIME,)), None)
    if gone is not None:
        return gone.failure or "; ".join(gone.reasons) or "it could not be measured"
    errors = [one for one in own if one.verdict is Verdict.ERRORS]
    if 2 * len(errors) >= len(own) and errors:
        return f"{len(errors)} of {len(own)} blocks had failing requests: {'; '.join(errors[0].reasons) or 'no reason'}"
    return ""


def _plainly(objective: Objective, *, drawn: bool) -> Objective:
    """p99.0 is p99; a rate that is to be sustained is judged with what the draw of arrivals takes away, where they are `drawn`."""
    percent = percentile(objective)
    if percent is not None:
        objective = replace(objective, qualifier=f"p{percent:g}")
    if drawn and is_to_sustain(objective):
        return replace(objective, bound=plain(Decimal(objective.bound) * DRAW))
    return objective


def _measured(objective: Objective, *, finds: bool) -> bool:
    if objective.metric == LATENCY:
        return percentile(objective) is not None
    return not objective.qualifier and (objective.metric == THROUGHPUT or (objective.metric == RATE and finds))


def _shown_early(objective: Objective, answers: float) -> Objective:
    """With the percentile that a block of so many answers shows."""
    percent = percentile(objective)
    return objective if percent is None else replace(objective, qualifier=f"p{_early(percent, answers):g}")


def _early(percent: float, answers: float) -> float:
    able = [one for one in (*_PERCENTS, percent) if one <= percent and _SPARE * fewest(one) <= answers]
    return max(able, default=min(percent, _PERCENTS[0]))


def _figures(
    steps: Sequence[Step], seen: Sequence[Objective], margin: float, answers: float = math.inf
) -> tuple[Figure, ...]:
    """A closed loop shows what is answered, an open one how fast; and percentiles, where an objective names one."""
    percents = sorted({one for objective in seen if (one := percentile(objective)) is not None})
    closed = steps[0].shape is Shape.CONCURRENCY
    named = [Figure(THROUGHPUT, True, margin)] if closed else []
    usual = [] if closed else sorted({_early(one, answers) for one in (50.0, 99.0)})
    named += [Figure(latency(one), False, margin) for one in percents or usual]
    if len(steps) == 1:
        return tuple(named)
    return tuple(replace(one, name=at_step(one.name, step)) for step in steps for one in named)
