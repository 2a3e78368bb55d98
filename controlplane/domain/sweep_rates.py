# The highest rate at which the latency holds: finalists side by side, rates doubled and halved, and the chosen ones measured again. Pure.
"""A block at a constant rate either holds every latency objective or does not. Whether a rate is recommended is decided by fresh
blocks alone, for the ones that found it were chosen by luck too: all of them have to hold. With five, a rate whose blocks miss as often as they
hold passes with a chance of 1 in 32; least and most of five cover the median block with 94 %."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clients.load.statistics import Interval, fewest
from controlplane.domain.canonical import digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_course import Ahead, Rounds
from controlplane.domain.sweep_figures import LATENCY, RATE, THROUGHPUT
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import figure_name
from controlplane.domain.sweep_spec import Shape

WITHIN = 0.05
AGAIN = 5
"""Fresh blocks of a rate before it is recommended."""
_FEWEST_AGAIN = 3
_MOST_TURNS = 8
_BACK = (1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
"""Steps down from a rate that did not hold when it was measured again."""
BEGIN = 0.8
"""Of what is estimated: while a rate rises the queue has not grown yet, and the steady rate is 10 to 30 % lower."""
_STRIDES = (1.15, 1.3, 1.7, 2.0)
_SPARE = 1.3
"""Of the answers that a percentile needs: some are cut as warm-up, and arrivals are drawn."""
_SHORTEST, _LONGEST = 0.5, 60.0


_Seconds = Callable[[float], float]
"""How long a block at a rate is to be."""


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

    def figures(self) -> dict[str, Interval]:
        """With what the fresh blocks showed at that rate: the median block, the least and the most."""
        found = {RATE: self.interval, THROUGHPUT: self.interval}
        names = {name for one in self.again for name in one.figures if name.startswith(LATENCY)}
        for name in sorted(names):
            values = sorted(one.figures[name] for one in self.again if name in one.figures)
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
    state: Found = field(default_factory=Found)

    @property
    def done(self) -> bool:
        found = self.state
        return bool(found.failure) or (found.good > 0 and found.bad / found.good - 1 <= WITHIN) or found.bad < 0.01

    def look(self, one: Measurement, objectives: Sequence[Objective]) -> None:
        if one.verdict is Verdict.NOT_MEASURED:
            self.state = replace(self.state, failure=one.failure or "it could not be measured")
        elif held(one, objectives):
            self.state = replace(self.state, good=max(self.state.good, self.rate))
        else:
            self.state = replace(self.state, bad=min(self.state.bad, self.rate))
        self._step()

    def _step(self) -> None:
        good, bad = self.state.good, self.state.bad
        if good > 0 and bad < math.inf:
            self.rate = math.sqrt(good * bad)
            return
        factor = _STRIDES[min(self.stride, len(_STRIDES) - 1)]
        self.stride += 1
        self.rate = good * factor if good > 0 else bad / factor


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
    asked, planned = rounds.terms.asked, rounds.terms.stages.rate
    assert asked.bound is not None
    assert planned is not None
    need = max([fewest(percent) for o in asked.objectives if (percent := _percent(o)) is not None], default=0)

    def seconds(rate: float) -> float:
        return round(min(max(planned.seconds, _SHORTEST, _SPARE * need / rate), _LONGEST), 3)

    brackets = {name: _Bracket(max(start * BEGIN, 0.1)) for name, start in starts.items()}
    for turn in range(_MOST_TURNS):
        names = [name for name, one in brackets.items() if not one.done]
        if not names:
            break
        rates = {name: _written(brackets[name].rate) for name in names}
        budget = rounds.budget()
        lasts = sum(seconds(float(rate)) + budget.overhead for rate in rates.values())
        if budget.left < lasts * (1 + _FEWEST_AGAIN) and turn:
            break
        rows, missing = _measured(rounds, [names], rates, seconds, tuple(brackets))
        if missing is not None:
            return Sought({name: one.state for name, one in brackets.items()}, missing)
        for one in rows:
            bracket = brackets[one.order.candidate]
            bracket.rate = float(one.order.step.text)
            bracket.look(one, asked.objectives)
    return _again(rounds, {name: one.state for name, one in brackets.items()}, seconds)


def _again(rounds: Rounds, found: dict[str, Found], seconds: _Seconds) -> Sought:
    """Fresh blocks for those that may have the highest rate; who does not hold goes back, first by 5 %, and is tried again."""
    asked = rounds.terms.asked
    for back in _BACK:
        best = max((one.good for one in found.values() if not one.failure), default=0.0)
        names = [
            name
            for name, one in found.items()
            if one.good > 0 and not one.confirmed and not one.failure and one.bad > best
        ]
        if not names:
            return Sought(found)
        rates = {name: _written(found[name].good) for name in names}
        budget = rounds.budget()
        lasts = sum(seconds(float(rate)) + budget.overhead for rate in rates.values())
        turns = min(AGAIN, int(budget.left / lasts))
        if turns < _FEWEST_AGAIN:
            why = "the time did not suffice to measure the highest rate again: it is not confirmed"
            return Sought(found, notes=(why,))
        rows, missing = _measured(rounds, [names] * turns, rates, seconds, tuple(found))
        if missing is not None:
            return Sought(found, missing)
        for name in names:
            own, known = tuple(one for one in rows if one.order.candidate == name), found[name]
            if gone := [one.failure for one in own if one.verdict is Verdict.NOT_MEASURED]:
                found[name] = replace(known, failure=gone[0] or "it could not be measured")
            elif all(held(one, asked.objectives) for one in own):
                found[name] = replace(known, good=float(rates[name]), again=own)
            else:
                found[name] = replace(known, good=known.good / back, bad=min(known.bad, known.good))
    return Sought(found, notes=("the highest rate did not hold when it was measured again",))


def _measured(
    rounds: Rounds,
    turns: Sequence[Sequence[str]],
    rates: Mapping[str, str],
    seconds: _Seconds,
    loaded: Sequence[str],
) -> tuple[list[Measurement], Ahead | None]:
    process, seed, number = rounds.terms.asked.steps[0].process, rounds.terms.seed, rounds.number + 1
    drawn = [
        sorted(names, key=lambda name: digest_bytes(f"{seed}:{number}:{turn}:{name}".encode()))
        for turn, names in enumerate(turns)
    ]
    return rounds.measured(
        Stage.RATE,
        drawn,
        lambda name: [(Step(Shape.RATE, rates[name], process), seconds(float(rates[name])))],
        loaded,
    )


def _written(rate: float) -> str:
    return f"{rate:.3f}".rstrip("0").rstrip(".")


def _percent(objective: Objective) -> float | None:
    if objective.metric != LATENCY or objective.weight is not None:
        return None
    return float(objective.qualifier.removeprefix("p"))
