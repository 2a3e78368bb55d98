# What a sweep is going to do before it starts: its load, the stages of its search, how long they take, and what does not fit.
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from clients.load.statistics import fewest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Objective
from controlplane.domain.config_tree import messages, number
from controlplane.domain.sweep_candidates import Candidate
from controlplane.domain.sweep_figures import bound_of, percentile
from controlplane.domain.sweep_spec import Load, Method, Search, Shape
from controlplane.domain.sweep_values import plain
from controlplane.errors import SweepInvalid

_SHAPED = frozenset({Shape.RAMP, Shape.BURSTS, Shape.CURVE})
FINALISTS, HIGHEST, PREDICTED = "finalists", "highest rate", "predicted"
_PROCESS_BYTES = 80 << 20
"""One instance without its weights, as seen of our own backend."""
_FINALISTS = 2
_FEWEST_TO_PREDICT = 8
_PREDICTED = 3
"""Where not all are tried, each so many that are spread over the space predict one more."""
_SHORTEST_RAMP = 0.5
"""A bound of some ms takes its time to break."""
_FEWEST_TURNS, _TURNS = 3, 6
_LENGTHS = (4.0, 2.0, 1.0, 0.5)
"""Of blocks, in seconds: those of finalists are twice as long, those of the first round half."""
_QUICK_TURNS = 2
"""Of the first round, where fewer candidates would be tried otherwise: nobody is dropped by so few, but more of a space that is new are
worth more than the same ones once more."""
_KEPT, _DEVIATIONS = 1.1, 3.0
MOST_RESERVED = 0.4
"""Of the time, for finalists, and for their highest rate."""
_RATES = 18
"""Blocks of each finalist until its rate has settled, and those in which the better one's is measured again."""


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """`finds_rate`: at the end the highest rate is looked for at which the hard objectives hold; `load` is what candidates are
    compared under before."""

    load: Load
    finds_rate: bool
    reason: str


def load_of(wish: Load | None, objectives: Sequence[Objective]) -> LoadChoice:
    """The spec's load, or the one that the hard objectives ask for: a rate to sustain, a concurrency, or a ladder."""
    hard = [one for one in objectives if one.weight is None]
    limited = bound_of(objectives) is not None
    if wish is not None:
        return LoadChoice(wish, wish.shape is Shape.FIND_RATE, f"{wish.shape.value} {wish.text}, as the spec says")
    for metric, shape, words in (
        ("throughput", Shape.RATE, "requests a second are to be sustained"),
        ("concurrency", Shape.CONCURRENCY, "requests are to be answered at once"),
    ):
        bounds = {Decimal(one.bound): one.name for one in hard if one.metric == metric and one.direction == "at_least"}
        if bounds and (most := max(bounds)) > 0:
            most_said = plain(most.to_integral_value("ROUND_CEILING") if shape is Shape.CONCURRENCY else most)
            return LoadChoice(
                Load(shape, most_said),
                finds_rate=limited,
                reason=f"{most_said} {words}, says the objective {bounds[most]}",
            )
    if limited:
        # one load that keeps the queue filled: what a candidate answers then is near the most that it can sustain
        why = "no objective names a rate, so the highest one is looked for at which the latency holds"
        return LoadChoice(Load(Shape.CONCURRENCY, "16"), finds_rate=True, reason=why)
    return LoadChoice(
        Load(Shape.CONCURRENCY, "1,4,16,64"),
        finds_rate=False,
        reason="a ladder: no objective names a rate or a latency",
    )


@dataclass(frozen=True, slots=True)
class Costs:
    """What the machine needs, in seconds: to load or unload one candidate, and beside each block (to warm up, to settle)."""

    load: float = 1.2
    block: float = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """At most so many `candidates` have a block of `seconds` in each of the `turns`, at each of the load's `steps`."""

    name: str
    candidates: int
    turns: int
    steps: int
    seconds: float
    loads: int

    @property
    def blocks(self) -> int:
        return self.candidates * self.turns * self.steps

    def lasts(self, costs: Costs) -> float:
        return self.blocks * (self.seconds + costs.block) + self.loads * costs.load


@dataclass(frozen=True, slots=True)
class Plan:
    """`candidates` of those there are fit into the time. `seconds` is the estimate; `notes` say what was cut, and what cannot be
    told in so short a time."""

    method: Method
    stages: tuple[Stage, ...]
    candidates: int
    seconds: int
    notes: tuple[str, ...]

    @property
    def blocks(self) -> int:
        return sum(stage.blocks for stage in self.stages)

    @property
    def loads(self) -> int:
        return sum(stage.loads for stage in self.stages)

    def to_json(self) -> JsonObject:
        return {
            "method": self.method.value,
            "stages": [
                {
                    "name": stage.name,
                    "candidates": stage.candidates,
                    "turns": stage.turns,
                    "steps": stage.steps,
                    "milliseconds": round(stage.seconds * 1000),
                    "loads": stage.loads,
                }
                for stage in self.stages
            ],
            "candidates": self.candidates,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def plan(
    search: Search,
    choice: LoadChoice,
    there: int,
    *,
    beside: int,
    objectives: Sequence[Objective] = (),
    costs: Costs | None = None,
) -> Plan:
    """For `there` candidates, `beside` of them loaded at once. Blocks are as long as the budget allows, and last as long as the load's
    shape; where the shortest are too long, a race or an optuna search tries fewer candidates. Raises SweepInvalid when not even two fit, or, for an
    exhaustive search, not all."""
    if there < 1:
        raise SweepInvalid("there is no candidate to measure", hint="see why each was refused, and widen the space")
    told, most = costs or Costs(), min(there, search.candidates)
    steps, whole = max(1, len(choice.load.steps)), period(choice.load.shape, choice.load.text)
    for count in range(most, 0, -1):
        for seconds, first_turns in _ways(search.method):
            more = min(most - count, beside - count)
            stages = _stages(
                search.method,
                count,
                steps,
                seconds,
                max(1, beside),
                more=more,
                finds_rate=choice.finds_rate,
                first_turns=first_turns,
            )
            if whole:
                stages = tuple(_shaped(one, whole, fewest_turns=seconds == _LENGTHS[-1]) for one in stages)
            lasts = math.ceil(sum(stage.lasts(told) for stage in stages))
            if lasts <= search.seconds:
                notes = [_tried(count, there, stages, search)] if count < there else []
                notes += _apart(count, beside)
                notes += _untold(choice, stages, objectives, search.seconds)
                if choice.load.shape is Shape.TRACE:
                    notes.append(_beginning(stages))
                return Plan(search.method, stages, count, lasts, tuple(notes))
        if search.method is Method.EXHAUSTIVE or count <= 2:
            shape = choice.load.shape.value
            blocks = f" in blocks that send the whole {shape} of {whole:g} s" if whole else ""
            raise SweepInvalid(
                f"{count} candidates need {lasts} s{blocks}, and the budget is {search.seconds} s",
                hint=f"give it the time: --seconds {lasts}, or search.seconds: {lasts} in its spec"
                + (", or take steps away from the load" if steps > 1 else "")
                + (f", or make load.{shape} shorter" if whole else ""),
                details={"seconds": lasts},
            )
    raise AssertionError("count ends at 1")


def period(shape: Shape, text: str) -> float:
    """Seconds after which a load has been all that it is; 0 where it is always the same, and of a trace, which lies on the bench's host."""
    numbers = [float(one) for one in re.split("[:,]", text)] if shape in _SHAPED else []
    match shape:
        case Shape.RAMP:
            return numbers[2]
        case Shape.BURSTS:
            return numbers[1] + numbers[2]
        case Shape.CURVE:
            return numbers[-2]
        case _:
            return 0.0


def groups(
    candidates: Sequence[Candidate], sizes: Mapping[int, int], memory_bytes: int
) -> tuple[tuple[Candidate, ...], ...]:
    """Those that are loaded side by side, in order, within the memory. One that is too large by itself stands alone."""
    found: list[list[Candidate]] = []
    left = 0
    for one in candidates:
        need = memory_of(one, sizes.get(one.version, 0))
        if not found or need > left:
            found.append([])
            left = memory_bytes
        found[-1].append(one)
        left -= need
    return tuple(tuple(group) for group in found)


def memory_of(candidate: Candidate, weights: int) -> int:
    """In bytes, by its instances: each has the weights for itself. Without a group Triton makes two."""
    listed = messages(candidate.config.get("instance_group"))
    instances = sum(max(1, number(group.get("count"))) for group in listed) if listed else 2
    return instances * (_PROCESS_BYTES + weights)


def _ways(method: Method) -> list[tuple[float, int]]:
    """Lengths of blocks and turns of the first round, those that tell most first."""
    quick = [(_LENGTHS[-1], _QUICK_TURNS)] if method is Method.RACING else []
    return [*((seconds, _FEWEST_TURNS) for seconds in _LENGTHS), *quick]


def _stages(
    method: Method,
    count: int,
    steps: int,
    seconds: float,
    beside: int,
    *,
    more: int,
    finds_rate: bool,
    first_turns: int,
) -> tuple[Stage, ...]:
    """`more` candidates there are beyond `count`, and room beside them."""
    found: list[Stage] = []
    if method is Method.RACING:
        left, longer, before = count, max(seconds / 2, _SHORTEST_RAMP if finds_rate else 0.0), 0
        while left > _FINALISTS or not found:  # half are expected to go in each round, while blocks get twice as long
            blocks = left + _linking(left, beside)
            turns = _FEWEST_TURNS if found or count <= _FINALISTS else first_turns
            found.append(Stage(f"round {len(found) + 1}", blocks, turns, steps, longer, _loads(left, before, beside)))
            before, left, longer = left, max(_FINALISTS, left // 2), min(longer * 2, 2 * seconds)
        predicted = min(more, math.ceil(count / _PREDICTED))
        if count >= _FEWEST_TO_PREDICT and predicted > 0:  # beside one of the first
            found.insert(1, Stage(PREDICTED, predicted + 1, first_turns, steps, found[0].seconds, predicted))
    else:
        name = "all" if method is Method.EXHAUSTIVE else "asked for"
        found.append(Stage(name, count, 3, steps, seconds, count))
    finalists = min(_FINALISTS, count)
    loads = _loads(finalists, found[-1].candidates, beside)
    turns = _FEWEST_TURNS if finds_rate else _TURNS  # blocks at constant rates follow, which confirm more than ramps do
    found.append(Stage(FINALISTS, finalists, turns, steps, 2 * seconds, loads))
    if finds_rate:
        found.append(Stage(HIGHEST, finalists, _RATES, 1, 2 * seconds, 0))
    return tuple(found)


def _shaped(stage: Stage, whole: float, *, fewest_turns: bool) -> Stage:
    """With blocks of whole periods: part of one is another load."""
    turns = min(stage.turns, _FEWEST_TURNS) if fewest_turns else stage.turns
    return replace(stage, turns=turns, seconds=math.ceil(stage.seconds / whole) * whole)


def _beginning(stages: Sequence[Stage]) -> str:
    least, most = min(one.seconds for one in stages), max(one.seconds for one in stages)
    return f"of the trace, blocks send the first {least:g} to {most:g} s: how long it is, only the bench's host knows"


def _apart(count: int, beside: int) -> list[str]:
    if beside >= count:
        return []
    if beside <= 1:
        return [
            "the memory holds one candidate at a time: measured minutes apart, none can be shown to be better than another"
        ]
    return [
        f"the memory holds {beside} of the {count} candidates at once: they race in groups, and one that is in each links them"
    ]


def _linking(now: int, beside: int) -> int:
    """Where the memory does not hold them all at once, one has a block in each further group, beside fewer new ones."""
    return max(0, math.ceil((now - 1) / (beside - 1)) - 1) if beside > 1 else 0


def _loads(now: int, before: int, beside: int) -> int:
    """Who was loaded beside all the others stays so."""
    return 0 if 0 < before <= beside else now


def _tried(count: int, there: int, stages: Sequence[Stage], search: Search) -> str:
    more = sum(stage.loads for stage in stages if stage.name == PREDICTED)
    them = f", and {more} more that these predict to be better" if more else ""
    return f"{count} of {there} candidates are tried{them}: {_cut(count, search)}"


def _cut(count: int, search: Search) -> str:
    if count == search.candidates:
        return "no more are asked for (search.candidates)"
    return f"more do not fit into {search.seconds} s (search.seconds)"


def planned_answers(needed: int) -> float:
    """So many in the mean, that hardly a block has fewer than are needed: arrivals are drawn, and some are cut as warm-up."""
    return _KEPT * needed + _DEVIATIONS * math.sqrt(_KEPT * needed)


def shown_at(confirm: Stage, rate: float, answers: int, seconds: float) -> Stage:
    """The finalists' stage of a search of so many `seconds`, with blocks long enough for `answers` each at that rate, as far as the
    time goes: few turns of blocks that show a percentile are worth more than many that do not."""
    need, most = planned_answers(answers) / rate, MOST_RESERVED * seconds
    a_turn = confirm.candidates * confirm.steps
    turns = min(confirm.turns, max(_FEWEST_TURNS, int(most / a_turn / need))) if need > 0 else confirm.turns
    return replace(confirm, turns=turns, seconds=round(max(confirm.seconds, min(need, most / a_turn / turns)), 3))


def _untold(choice: LoadChoice, stages: Sequence[Stage], objectives: Sequence[Objective], seconds: int) -> list[str]:
    """Percentiles that need more answers than a block of the finalists brings at a known rate: those of hard objectives, for which blocks are
    made longer, those that are wished, and where none is named those that candidates are compared by."""
    if choice.load.shape is not Shape.RATE:
        return []
    confirm = next(one for one in stages if one.name == FINALISTS)
    rate = float(min(choice.load.steps))
    named = [(f"p{percent:g}", one.weight is None) for one in objectives if (percent := percentile(one)) is not None]
    found = []
    for name, hard in sorted({*(named or [("p50", False), ("p99", False)])}):
        need = fewest(float(name[1:]))
        each = shown_at(confirm, rate, need, seconds).seconds if hard else confirm.seconds
        if each * rate < need:
            found.append(too_few(name, need, each, rate))
    return found


def too_few(percentile: str, need: int, seconds: float, rate: float) -> str:
    """Why blocks of so many seconds do not show it."""
    brings = f"a block of {seconds:g} s at {rate:g}/s brings about {seconds * rate:.0f}"
    return f"{percentile} needs {need} answers, and {brings}: more search.seconds"
