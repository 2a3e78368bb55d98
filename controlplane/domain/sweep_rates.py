# The highest rate at which the latency holds: finalists side by side, rates doubled and halved, and the chosen ones measured again. Pure.
"""A block at a constant rate either holds every latency objective or does not. Whether a rate is recommended is decided by fresh
blocks alone, for the ones that found it were chosen by luck too: all of them have to hold. With five, a rate whose blocks miss as often as they
hold passes with a chance of 1 in 32; least and most of five cover the median block with 94 %. Processors that the hypervisor takes away
only make a candidate slower: what holds in spite of that holds, and what misses is measured again before it counts. Where a fresh block was set
aside for that, the chance is 1 in 9."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clients.load.statistics import Interval
from controlplane.domain.canonical import digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_course import Ahead, Rounds
from controlplane.domain.sweep_figures import LATENCY, OVERTIME, RATE, THROUGHPUT
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import figure_name
from controlplane.domain.sweep_spec import Shape

WITHIN = 0.05
STOLEN = 0.02
"""Of the processors, while a block was measured: who misses by less was not stopped by the host."""
_MOST_ASIDE, _MOST_ASIDE_AGAIN = 3, 1
"""So many misses of a candidate are set aside for that while its rate is looked for, and when it is measured again."""
AGAIN = 5
"""Fresh blocks of a rate before it is recommended."""
_FEWEST_AGAIN = 3
_MOST_TURNS = 12
_BACK = (1.05, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
"""Steps down: before a rate is measured again, since what held once need not hold each time, and whenever it does not."""
_GRACE = 0.04
"""Of the time that is kept back, for whoever has no answer yet."""
_LAST_BACK = 2.0
"""Where there is time for one more try alone: a rate that surely holds is worth more than a better one without proof."""
BEGIN = 0.8
"""Of what is estimated: arrivals that wait for no answer come in crowds, and the steady rate is 10 to 30 % lower."""
_STRIDES = (1.15, 1.5, 2.0, 3.0)
_LONG, _FAR = 2, 3.0
"""Which stride follows a latency that is so many times what it may be."""
_SPARE_TURNS = 2
"""For rates that do not hold when they are measured again."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one candidate's highest rate: `good` held, `bad` did not; 0 and infinite where none did. `again` are the
    fresh blocks at `good` that all held; without them it is not confirmed. `failure`: it could not be measured on."""

    good: float = 0.0
    bad: float = math.inf
    again: tuple[Measurement, ...] = ()
    failure: str = ""

    @property
    def confirmed(self) -> bool:
        return bool(self.again)

    @property
    def interval(self) -> Interval:
        return Interval(self.good, self.good, self.bad)

    def figures(self, objectives: Sequence[Objective]) -> dict[str, Interval]:
        """With what the fresh blocks showed at that rate of the latencies that are named: the median block, the least and the most."""
        found = {RATE: self.interval, THROUGHPUT: self.interval}
        for name in sorted({figure_name(one) for one in objectives if one.metric == LATENCY}):
            values = sorted(one.figures[name] for one in self.again if name in one.figures)
            if values:
                found[name] = Interval(values[len(values) // 2], values[0], values[-1])
        return found


@dataclass(frozen=True, slots=True)
class Sought:
    """Where the search for rates stands."""

    found: Mapping[str, Found]
    ahead: Ahead | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Bracket:
    rate: float
    stride: int = 0
    aside: int = 0
    state: Found = field(default_factory=Found)

    @property
    def done(self) -> bool:
        found = self.state
        return bool(found.failure) or (found.good > 0 and found.bad / found.good - 1 <= WITHIN) or found.bad < 0.01

    def look(self, one: Measurement, objectives: Sequence[Objective]) -> None:
        if one.verdict is Verdict.NOT_MEASURED:
            self.state = replace(self.state, failure=one.failure or "; ".join(one.reasons))
        elif held(one, objectives):
            self.state = replace(self.state, good=max(self.state.good, self.rate))
        elif disturbed(one) and self.aside < _MOST_ASIDE:
            self.aside += 1  # the same rate once more
            return
        else:
            self.state = replace(self.state, bad=min(self.state.bad, self.rate))
            if not self.state.good and _far(one, objectives):
                self.stride = max(self.stride, _LONG)
        self._step()

    def _step(self) -> None:
        good, bad = self.state.good, self.state.bad
        if good > 0 and bad < math.inf:
            self.rate = math.sqrt(good * bad)
            return
        factor = _STRIDES[min(self.stride, len(_STRIDES) - 1)]
        self.stride += 1
        self.rate = good * factor if good > 0 else bad / factor


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
    """Whether every hard latency objective holds. What cannot be told does not: the answer errs to the safe side. A client that was late
    itself only adds to the latency from when requests were due, so what holds in spite of that holds."""
    hard = [each for each in objectives if each.weight is None and each.metric == LATENCY]
    shown = [(one.figures.get(figure_name(each)), each) for each in hard]
    return one.verdict not in {Verdict.ERRORS, Verdict.NOT_MEASURED} and all(
        value is not None
        and (value <= float(each.bound) if each.direction == "at_most" else value >= float(each.bound))
        for value, each in shown
    )


def sought(rounds: Rounds, starts: Mapping[str, float]) -> Sought:
    """`starts` are the rates at which each of the finalists begins, as they are estimated."""
    terms = rounds.terms
    brackets = {name: _Bracket(max(start * BEGIN, 0.1)) for name, start in starts.items()}
    for turn in range(_MOST_TURNS):
        names = [name for name, one in brackets.items() if not one.done]
        if not names:
            break
        rates = {name: _written(brackets[name].rate) for name in names}
        budget = rounds.budget()
        each = [terms.seconds_at(float(rate)) + budget.overhead for rate in rates.values()]
        again = (AGAIN + _SPARE_TURNS) * max(each) if any(one.state.good > 0 for one in brackets.values()) else 0.0
        if budget.left < sum(each) + again:
            if not turn and budget.left < each[0]:
                said = f"a block at {next(iter(rates.values()))}/s takes {each[0]:.0f} s"
                why = f"the time did not suffice to look for the highest rate, of which {said}: more search.seconds"
                return Sought({}, notes=(why,))
            if turn:
                break
            rates = {names[0]: rates[names[0]]}  # the one that is ahead, alone
        rows, missing = _measured(rounds, rates, tuple(brackets))
        if missing is not None:
            return Sought({name: one.state for name, one in brackets.items()}, missing)
        for one in rows:
            if one.reasons == (OVERTIME,):
                continue
            bracket = brackets[one.order.candidate]
            bracket.rate = float(one.order.step.text)
            bracket.look(one, terms.asked.objectives)
    return _again(rounds, {name: one.state for name, one in brackets.items()})


def _again(rounds: Rounds, found: dict[str, Found]) -> Sought:
    """Fresh blocks, turn by turn, for those that may have the highest rate, a little below what held once; who does not hold goes
    back and begins again. Where the time does not suffice for all, it is the best one's."""
    terms = rounds.terms
    fresh: dict[str, list[Measurement]] = {name: [] for name in found}
    goals = {name: one.good / _BACK[0] for name, one in found.items()}
    steps, aside = dict.fromkeys(found, 1), dict.fromkeys(found, 0)
    while names := _contenders(found, goals):
        budget = rounds.budget()
        rates = {name: _written(goals[name]) for name in names}
        lasts = {name: terms.seconds_at(float(rates[name])) + budget.overhead for name in names}
        if budget.left < sum(lasts.values()):
            rates = {names[0]: rates[names[0]]}
        # what is left for the end is better spent on an answer
        grace = 0.0 if any(one.confirmed for one in found.values()) else _GRACE * terms.seconds
        if budget.left + grace < sum(lasts[name] for name in rates):
            return Sought(_accepted(found, goals, fresh), notes=_untold(found, goals, fresh))
        rows, missing = _measured(rounds, rates, tuple(found))
        if missing is not None:
            return Sought(found, missing)
        turns = budget.left / lasts[names[0]] - 1
        for one in rows:
            name = one.order.candidate
            known = found[name]
            if one.reasons == (OVERTIME,):
                continue
            if one.verdict is Verdict.NOT_MEASURED:
                found[name] = replace(known, failure=one.failure or "; ".join(one.reasons))
            elif held(one, terms.asked.objectives):
                fresh[name].append(one)
                if len(fresh[name]) >= AGAIN:
                    found[name] = replace(known, good=float(rates[name]), again=tuple(fresh[name]))
            elif disturbed(one) and aside[name] < _MOST_ASIDE_AGAIN:
                aside[name] += 1
            else:
                fresh[name].clear()
                back = max(_BACK[min(steps[name], len(_BACK) - 1)], _LAST_BACK if turns < 2 * _FEWEST_AGAIN else 1.0)
                steps[name] += 1
                goals[name] = goals[name] / back
                found[name] = replace(known, good=goals[name], bad=min(known.bad, float(rates[name])))
    return Sought(found)


def _contenders(found: Mapping[str, Found], goals: Mapping[str, float]) -> list[str]:
    """The best first. Who did not hold what another held when it was measured again, or may still hold, needs no more."""
    best = max((one.good for one in found.values() if one.confirmed), default=0.0)
    open_ = [name for name, one in found.items() if goals[name] > 0.01 and not one.confirmed and not one.failure]
    ahead = max([best, *(goals[name] for name in open_)])
    return sorted(
        (name for name in open_ if found[name].bad > ahead and goals[name] > best / (1 + WITHIN)),
        key=lambda name: -goals[name],
    )


def _accepted(
    found: Mapping[str, Found], goals: Mapping[str, float], fresh: Mapping[str, Sequence[Measurement]]
) -> dict[str, Found]:
    """With fewer fresh blocks where the time was over, if there are enough to say anything."""
    return {
        name: replace(one, good=float(_written(goals[name])), again=tuple(fresh[name]))
        if not one.confirmed and not one.failure and len(fresh[name]) >= _FEWEST_AGAIN
        else one
        for name, one in found.items()
    }


def _untold(
    found: Mapping[str, Found], goals: Mapping[str, float], fresh: Mapping[str, Sequence[Measurement]]
) -> tuple[str, ...]:
    if any(one.confirmed for one in _accepted(found, goals, fresh).values()):
        return ()
    return ("the time did not suffice to measure the highest rate again, so it is not confirmed: more search.seconds",)


def _measured(
    rounds: Rounds, rates: Mapping[str, str], loaded: Sequence[str]
) -> tuple[list[Measurement], Ahead | None]:
    """One turn, in an order that is drawn."""
    terms, number = rounds.terms, rounds.number + 1
    drawn = sorted(rates, key=lambda name: digest_bytes(f"{terms.seed}:{number}:{name}".encode()))

    def steps(name: str) -> list[tuple[Step, float]]:
        rate = rates[name]
        return [(Step(Shape.RATE, rate, terms.asked.steps[0].process), terms.seconds_at(float(rate)))]

    return rounds.measured(Stage.RATE, [drawn], steps, loaded)


def _written(rate: float) -> str:
    return f"{rate:.3f}".rstrip("0").rstrip(".")
