# The highest rate at which the latency holds: finalists side by side, each on a staircase of rates, and the best measured again. Pure.
"""A block at a constant rate either holds every latency objective or does not. A finalist's next one is at a rate a step higher where it held,
and lower where it did not: the up-and-down method (Dixon and Mood 1948, *A method for obtaining and analyzing sensitivity data*, JASA 43). It settles where
a block holds as often as not, a single stall moves it by one step and no more, and what the host does meanwhile meets all that are
measured by turns. A dozen such blocks tell how high the rate is better than which of two equals is ahead: that is decided together with what
their race showed by turns. Whether a rate is recommended is decided by fresh blocks below it alone, for the ones that found it were
chosen by luck too: five that all hold, or seven of eight. A rate whose blocks miss as often as they
hold passes with a chance of 1 in 20 (1/32, and 5/32 by 1/8); the least and most of five cover the median block with 94 %, the second and the seventh of
eight with 93 %. Processors that the hypervisor takes away only make a candidate slower: what holds in spite of that holds, and what misses
is measured again before it counts, once at each rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clients.load.statistics import Interval
from controlplane.domain.canonical import digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_course import Ahead, Rounds, Terms
from controlplane.domain.sweep_figures import LATENCY, OVERTIME, RATE, THROUGHPUT, fell_behind
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import figure_name
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweep_values import short

STOLEN = 0.02
"""Of the processors, while a block was measured: who misses by less was not stopped by the host."""
_MOST_ASIDE, _MOST_ASIDE_AGAIN = 3, 1
"""So many misses of a candidate are set aside for that while its rate is looked for, and when it is measured again."""
AGAIN = (5, 7)
"""So many fresh blocks of a rate hold before it is recommended, where none missed, and where one did."""
_FEWEST_AGAIN = (3, 5)
"""As many where the time is over, those that held at higher rates counted: the chance is then 1 in 8, and more the oftener it went back."""
_COUNTED, _FEWEST_COUNTED = 16, 4
"""Blocks with a small step, of whose rates the mean is what a staircase settled at; with fewer than so many it did not."""
_SMALL_STEP, _LEAST_STEP = 0.1, 0.05
"""In logs. Steps halve wherever the direction turns."""
_MOST_TURNS = 40
_RACED = 0.8
"""Of the distance between two that settled, what their race showed counts so much, and their staircases the rest. In four sweeps, three of
them between equals, staircases put these 1.06 to 1.38 times apart, and the race 1.01 to 1.05 times."""
_BACK = (1.15, 1.15, 1.25, 1.5, 2.0)
"""Steps down: before a rate is measured again, since what holds as often as not is no rate to recommend, and whenever it does not hold."""
_CLEARLY = 1.5
"""So many times the rate of one that is being measured again, or was, must another's be, for its turn to come: those blocks are not by
turns. Of two that settled it does not come at all: what the first does not hold any more is taken to be the host's doing, and lowers both."""
_SLOWER = 1.3
"""So many times what is confirmed a block held as often as not before: a reader should know."""
_GRACE = 0.04
"""Of the time that is kept back, for whoever has no answer yet."""
_LAST_BACK = 1.5
"""Where there is time for one more try alone: a rate that surely holds is worth more than a better one without proof."""
BEGIN = 0.8
"""Of what is estimated: arrivals that wait for no answer come in crowds, and the steady rate is 10 to 30 % lower."""
_SHORT = 0.5
"""Of the blocks that are planned: twice as many turns tell more of two finalists than blocks twice as long."""
_AGAIN_SECONDS, _AGAIN_SHARE = 2.0, 1 / 90
"""Blocks that measure a rate again are no shorter than this, nor than that share of the time if it is less: in a second a queue hardly
grows, and of ten rates that held in five such blocks four did not in longer ones right after."""
_STRIDES = (1.15, 1.2, 1.5, 2.0, 3.0)
_LONG, _FAR = 2, 3.0
"""Where a race began near the rate two small ones reach it, and the first turn back makes a small step. Which stride follows a latency that is so many times what it may be."""
_SPARE_TURNS = 4
"""For rates that do not hold when they are measured again."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one candidate's highest rate: `good` held, `bad` did not; 0 and infinite where none did. `settled`: at this its
    blocks held as often as not, as staircases and race tell together; 0 where it did not settle. `again` are the fresh blocks at `good`,
    of which `missed` did not hold, and `above` were at higher rates; without them it is not confirmed. `failure`: it could not be measured on."""

    good: float = 0.0
    bad: float = math.inf
    settled: float = 0.0
    again: tuple[Measurement, ...] = ()
    missed: int = 0
    above: int = 0
    failure: str = ""

    @property
    def confirmed(self) -> bool:
        return bool(self.again)

    @property
    def interval(self) -> Interval:
        return Interval(self.good, self.good, self.bad)

    def figures(self, objectives: Sequence[Objective]) -> dict[str, Interval]:
        """With what the fresh blocks showed at that rate of the latencies that are named: the median block, the least and the most;
        where one missed, the next to them."""
        found = {RATE: self.interval, THROUGHPUT: self.interval}
        for name in sorted({figure_name(one) for one in objectives if one.metric == LATENCY}):
            values = sorted(one.figures[name] for one in self.again if name in one.figures)
            if values:
                out = min(self.missed, (len(values) - 1) // 2)
                found[name] = Interval(values[len(values) // 2], values[out], values[-1 - out])
        return found


@dataclass(frozen=True, slots=True)
class Sought:
    """Where the search for rates stands."""

    found: Mapping[str, Found]
    ahead: Ahead | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Stairs:
    """`step` is None until the direction turned for the first time; before that strides grow."""

    rate: float
    stride: int = 0
    step: float | None = None
    way: int = 0
    aside: int = 0
    held: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def over(self) -> bool:
        return bool(self.failure) or self.rate < 0.01

    def look(self, one: Measurement, objectives: Sequence[Objective]) -> None:
        if one.verdict is Verdict.NOT_MEASURED:
            self.failure = one.failure or "; ".join(one.reasons)
            return
        holds = held(one, objectives)
        if not holds and disturbed(one) and self.aside < _MOST_ASIDE:
            self.aside += 1  # the same rate once more
            return
        (self.held if holds else self.missed).append(self.rate)
        if self.step is not None and self.step <= _SMALL_STEP:
            self.counted.append(self.rate)
        if not holds and not self.held and _far(one, objectives):
            self.stride = max(self.stride, _LONG)
        self._go(1 if holds else -1)

    def _go(self, way: int) -> None:
        if self.way == -way:
            last = math.log(_STRIDES[min(self.stride, len(_STRIDES)) - 1]) if self.step is None else self.step
            self.step = max(last / 2, _LEAST_STEP)
        self.way = way
        if self.step is None:
            self.rate *= _STRIDES[min(self.stride, len(_STRIDES) - 1)] ** way
            self.stride += 1
        else:
            self.rate *= math.exp(way * self.step)

    @property
    def settled(self) -> float:
        """0 where it did not."""
        enough = len(self.counted) >= _FEWEST_COUNTED
        return math.exp(sum(map(math.log, self.counted)) / len(self.counted)) if enough else 0.0

    def found(self, settled: float) -> Found:
        settled = settled if self.held else 0.0
        good = settled or max(self.held, default=0.0)
        return Found(
            good, min((one for one in self.missed if one > good), default=math.inf), settled, failure=self.failure
        )


def _far(one: Measurement, objectives: Sequence[Objective]) -> bool:
    """Whether a bound was missed by so much that the next rate is to be a much lower one."""
    return any(
        one.figures.get(figure_name(each), math.inf) > _FAR * float(each.bound)
        for each in objectives
        if each.weight is None and each.metric == LATENCY and each.direction == "at_most"
    )


def disturbed(one: Measurement) -> bool:
    """Whether the hypervisor took so much meanwhile that a miss tells nothing of the candidate."""
    return one.steal_ppm is not None and one.steal_ppm > STOLEN * 1e6


def held(one: Measurement, objectives: Sequence[Objective]) -> bool:
    """Whether every hard latency objective holds, and the rate was kept up. What cannot be told does not: the answer errs to the safe side. A
    client that was late itself only adds to the latency from when requests were due, so what holds in spite of that holds."""
    hard = [each for each in objectives if each.weight is None and each.metric == LATENCY]
    shown = [(one.figures.get(figure_name(each), math.nan), each) for each in hard]
    if one.verdict in {Verdict.ERRORS, Verdict.NOT_MEASURED} or fell_behind(
        one, min((float(o.bound) for o in hard), default=0.0)
    ):
        return False
    return all(v <= float(o.bound) if o.direction == "at_most" else v >= float(o.bound) for v, o in shown)


def sought(rounds: Rounds, starts: Mapping[str, float], raced: Mapping[str, float]) -> Sought:
    """`starts` are the rates at which each of the finalists begins, as they are estimated, the one that is ahead first; `raced` is how their
    rates were to each other in the turns of the race, for those of which that is known. Who does not fit into
    the memory beside that one has its turn only if that one cannot be measured on: not by turns, nothing would tell which is better."""
    found = dict[str, Found]()
    for group in rounds.beside(list(starts)):
        at = _sought(rounds, {name: starts[name] for name in group}, raced)
        found |= at.found
        if at.ahead is not None or any(not one.failure for one in at.found.values()) or not at.found:
            apart = [name for name in starts if name not in found]
            why = f"the memory does not hold {' and '.join(apart)} beside it: no highest rate was looked for"
            return replace(at, found=found, notes=(*at.notes, why) if apart and found else at.notes)
    return Sought(found)


def _sought(rounds: Rounds, starts: Mapping[str, float], raced: Mapping[str, float]) -> Sought:
    """Of those that fit beside each other."""
    terms = rounds.terms
    stairs = {name: _Stairs(max(start * BEGIN, 0.1)) for name, start in starts.items()}
    for turn in range(_MOST_TURNS):
        names = [name for name, one in stairs.items() if not one.over]
        if all(len(stairs[name].counted) >= _COUNTED for name in names):
            break
        rates = {name: _written(stairs[name].rate) for name in names}
        budget = rounds.budget()
        each = [terms.seconds_at(float(rate), _SHORT) + budget.overhead for rate in rates.values()]
        lasts = max(terms.seconds_at(float(rate), _again_share(terms)) for rate in rates.values()) + budget.overhead
        again = (AGAIN[-1] + _SPARE_TURNS) * lasts if any(one.held for one in stairs.values()) else 0.0
        if budget.left < sum(each) + again:
            if not turn and budget.left < each[0]:
                said = f"a block at {next(iter(rates.values()))}/s takes {each[0]:.0f} s"
                why = f"the time did not suffice to look for the highest rate, of which {said}: more search.seconds"
                return Sought({}, notes=(why,))
            if turn:
                break
            rates = {names[0]: rates[names[0]]}  # the one that is ahead, alone
        rows, missing = _measured(rounds, rates, tuple(stairs), _SHORT)
        if missing is not None:
            return Sought(_found(stairs, raced), missing)
        for one in rows:
            if one.reasons == (OVERTIME,):
                continue
            own = stairs[one.order.candidate]
            own.rate = float(one.order.step.text)
            own.look(one, terms.asked.objectives)
    return _again(rounds, _found(stairs, raced))


def _found(stairs: Mapping[str, _Stairs], raced: Mapping[str, float]) -> dict[str, Found]:
    """How high they are all together is the staircases' alone that settled, how far apart the race's as well; of one that did not
    settle the race's alone."""
    settled = {name: one.settled for name, one in stairs.items()}
    logs = {name: math.log(settled[name] / ratio) for name, ratio in raced.items() if settled.get(name)}
    if logs:
        level = math.exp(sum(logs.values()) / len(logs))  # the rate of one whose ratio is 1
        for name, ratio in raced.items():
            if name in settled:
                known = level * ratio
                settled[name] = known**_RACED * settled[name] ** (1 - _RACED) if settled[name] else known
    return {name: one.found(settled[name]) for name, one in stairs.items()}


@dataclass(slots=True)
class _Fresh:
    """Of one rate; `aside` more were disturbed. `above` held at the higher rates that were gone back from."""

    above: tuple[Measurement, ...] = ()
    blocks: list[Measurement] = field(default_factory=list)
    missed: int = 0
    aside: int = 0

    @property
    def held(self) -> int:
        return len(self.blocks) - self.missed

    @property
    def suffices(self) -> bool:
        """Where the time is over."""
        return self.held > 0 and self.missed < len(_FEWEST_AGAIN) and self.all_held >= _FEWEST_AGAIN[self.missed]

    @property
    def all_held(self) -> int:
        return self.held + len(self.above)

    def lower(self, objectives: Sequence[Objective]) -> _Fresh:
        return _Fresh((*self.above, *(one for one in self.blocks if held(one, objectives))))

    def confirm(self, known: Found, rate: str, above: tuple[Measurement, ...] = ()) -> Found:
        again = (*self.blocks, *above)
        return replace(known, good=float(rate), again=again, missed=self.missed, above=len(above))


def _again(rounds: Rounds, found: dict[str, Found]) -> Sought:
    """Fresh blocks of the one that may have the highest rate, below where it settled; who does not hold goes back and begins again,
    and then another may be ahead."""
    terms = rounds.terms
    fresh = {name: _Fresh() for name in found}
    goals = {name: one.good / _BACK[0] for name, one in found.items()}
    steps = dict.fromkeys(found, 1)
    name: str | None = None
    while (name := _ahead(found, goals, name)) is not None:
        budget, rate, known = rounds.budget(), _written(goals[name]), found[name]
        lasts = terms.seconds_at(float(rate), _again_share(terms)) + budget.overhead
        # what is left for the end is better spent on an answer
        grace = 0.0 if any(one.confirmed for one in found.values()) else _GRACE * terms.seconds
        if budget.left + grace < lasts:
            found = _accepted(found, goals, fresh)
            return Sought(found, notes=_slowed(found) or _untold(found))
        rows, missing = _measured(rounds, {name: rate}, tuple(found), _again_share(terms))
        if missing is not None:
            return Sought(found, missing)
        turns = budget.left / lasts - 1
        for one in rows:
            if one.reasons == (OVERTIME,):
                continue
            if one.verdict is Verdict.NOT_MEASURED:
                found[name] = replace(known, failure=one.failure or "; ".join(one.reasons))
                continue
            holds, own = held(one, terms.asked.objectives), fresh[name]
            if not holds and disturbed(one) and own.aside < _MOST_ASIDE_AGAIN:
                own.aside += 1
                continue
            own.blocks.append(one)
            own.missed += not holds
            if own.missed < len(AGAIN):
                if own.held >= AGAIN[own.missed]:
                    found[name] = own.confirm(known, rate)
            else:
                fresh[name] = own.lower(terms.asked.objectives)
                back = max(_BACK[min(steps[name], len(_BACK) - 1)], _LAST_BACK if turns < 2 * _FEWEST_AGAIN[0] else 1.0)
                steps[name] += 1
                for other in _alike(found, name):
                    goals[other] /= back
                found[name] = replace(known, good=goals[name], bad=min(known.bad, float(rate)))
    return Sought(found, notes=_slowed(found))


def _alike(found: Mapping[str, Found], name: str) -> list[str]:
    """Whose goals go back together with this one's: of those that settled by turns it is known how far they are apart."""
    settled = (
        [other for other, one in found.items() if one.settled and not one.confirmed] if found[name].settled else []
    )
    return [name, *(other for other in settled if other != name)]


def _ahead(found: Mapping[str, Found], goals: Mapping[str, float], now: str | None) -> str | None:
    """Whoever has its turn `now` as long as no other is clearly better; None where nobody is left that may be clearly better than
    what is confirmed."""
    best = max((one.good for one in found.values() if one.confirmed), default=0.0)
    open_ = [name for name, one in found.items() if not one.confirmed and not one.failure]
    able = [name for name in open_ if goals[name] > max(0.01, _CLEARLY * best)]
    ahead = max(able, key=lambda name: goals[name], default=None)
    if ahead is not None and now in able and goals[ahead] <= _CLEARLY * goals[now]:
        return now
    return ahead


def _accepted(found: Mapping[str, Found], goals: Mapping[str, float], fresh: Mapping[str, _Fresh]) -> dict[str, Found]:
    """With fewer fresh blocks where the time was over, if there are enough to say anything."""
    return {
        name: fresh[name].confirm(one, _written(goals[name]), fresh[name].above)
        if not (one.confirmed or one.failure) and fresh[name].suffices
        else one
        for name, one in found.items()
    }


def _slowed(found: Mapping[str, Found]) -> tuple[str, ...]:
    """Of what is confirmed."""
    slower = [one for one in found.values() if one.confirmed and one.settled > _SLOWER * one.good]
    return tuple(
        f"{short(one.settled)}/s held as often as not while candidates were compared, but only {short(one.good)}/s when measured again: the "
        "machine became slower meanwhile, or answers stall now and then"
        for one in slower
    )


def _untold(found: Mapping[str, Found]) -> tuple[str, ...]:
    if any(one.confirmed for one in found.values()):
        return ()
    return ("the time did not suffice to measure the highest rate again, so it is not confirmed: more search.seconds",)


def _again_share(terms: Terms) -> float:
    """How much longer than planned the blocks are that measure a rate again."""
    assert terms.stages.rate is not None
    return max(1.0, min(_AGAIN_SECONDS, _AGAIN_SHARE * terms.seconds) / terms.stages.rate.seconds)


def _measured(
    rounds: Rounds, rates: Mapping[str, str], loaded: Sequence[str], share: float
) -> tuple[list[Measurement], Ahead | None]:
    """One turn, in an order that is drawn."""
    terms, number = rounds.terms, rounds.number + 1
    drawn = sorted(rates, key=lambda name: digest_bytes(f"{terms.seed}:{number}:{name}".encode()))

    def steps(name: str) -> list[tuple[Step, float]]:
        rate = rates[name]
        return [(Step(Shape.RATE, rate, terms.asked.steps[0].process), terms.seconds_at(float(rate), share))]

    return rounds.measured(Stage.RATE, [drawn], steps, loaded)


def _written(rate: float) -> str:
    return f"{rate:.3f}".rstrip("0").rstrip(".")
