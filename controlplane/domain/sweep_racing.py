# The race: from blocks measured by turns, who is dropped with confidence, who goes on, and when finalists are confirmed. Pure.
"""Candidates run in turns: in each, every one that is left has one block, in an order that the seed decides. After each round one *looks*, and looking often finds something by luck. The chance that a given candidate is ever dropped
wrongly, by any rival, any hard objective, at any look, stays below `Rules.error` by the union bound of successive elimination
(Even-Dar, Mannor and Mansour 2006, *Action elimination and stopping conditions for the multi-armed bandit and reinforcement
learning problems*, JMLR 7), which races had from Maron and Moore 1993 (*Hoeffding races*): look k spends error / (k (k + 1)),
which sums to error over any number of looks, divided by all that could drop the candidate.

Who was dropped by a candidate that later fails, or turns out to miss a hard objective, is back in the race.

Everything is derived from the rules and the looks so far: a race that was interrupted goes on as if it had not been."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_blocks import FEWEST_TURNS, Block, Turns, estimated, paired, trial
from controlplane.domain.sweep_search import (
    Advantage,
    Figure,
    Met,
    Trial,
    dominates,
    figure_name,
    finding,
    ratio_words,
    sifted,
    words,
)
from controlplane.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Rules:
    """`hard` are the objectives without weight that a block can show. Blocks last `seconds` in the first round and `growth` times
    longer in each that follows, up to `longest`; there are `turns` in a round, `first_turns` in the first, and at most `looks` rounds before no more than
    `finalists` (and the best in each figure) are confirmed, in `confirm_turns` of `confirm_seconds`."""

    figures: tuple[Figure, ...]
    seed: int
    hard: tuple[Objective, ...] = ()
    error: float = 0.05
    turns: int = 4
    first_turns: int = 4
    seconds: float = 1.0
    growth: float = 2.0
    longest: float = 8.0
    looks: int = 5
    finalists: int = 2
    confirm_turns: int = 6
    confirm_seconds: float = 8.0

    def __post_init__(self) -> None:
        for what, value, least in (
            ("figures", len(self.figures), 1),
            ("turns", self.turns, 1),
            ("first_turns", self.first_turns, 1),
            ("confirm_turns", self.confirm_turns, FEWEST_TURNS),
            ("looks", self.looks, 1),
            ("finalists", self.finalists, 1),
            ("growth", self.growth, 1),
        ):
            if value < least:
                raise InvalidInput(f"a race with {what} {value}", hint=f"use {least} or more")
        if not 0 < self.error < 0.5:
            raise InvalidInput(f"a race with error {self.error}", hint="use 0.05, or another share below 0.5")
        if not (0 < self.seconds <= self.longest and self.confirm_seconds > 0):
            raise InvalidInput(
                f"a race with blocks of {self.seconds} to {self.longest} s, {self.confirm_seconds} s to confirm",
                hint="use more than 0 seconds, and no more for the first than for the longest",
            )


@dataclass(frozen=True, slots=True)
class Look:
    """What a round brought; `failed`: candidates that could not be measured on, and why; `aside`: those that are left, and that the
    caller has no time for in the next round, and why."""

    blocks: Sequence[Block]
    failed: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """What to measure next: `order` has the candidates of each turn."""

    number: int
    seconds: float
    order: tuple[tuple[str, ...], ...]
    confirms: bool

    @property
    def lasts_seconds(self) -> float:
        """Without warm-up and loading."""
        return self.seconds * sum(map(len, self.order))


class Fate(StrEnum):
    DROPPED = "dropped"
    MISSES = "misses a hard objective"
    FAILED = "failed"
    GOES_ON = "goes on"
    SET_ASIDE = "set aside"
    FINALIST = "finalist"
    BACK = "back in the race"
    CONFIRMED = "confirmed"
    OPEN = "not confirmed"


@dataclass(frozen=True, slots=True)
class Decision:
    look: int
    candidate: str
    fate: Fate
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """`left` are still in the race, the best first; `next` is None when it is over. `finalists` then are all that were measured again,
    and `advantage` compares them, both by the blocks of the last round alone: sweep_search.answer takes them."""

    decisions: tuple[Decision, ...]
    left: tuple[str, ...]
    next: Round | None
    finalists: tuple[Trial, ...] = ()
    advantage: Advantage | None = None


def race(rules: Rules, candidates: Sequence[str], looks: Sequence[Look]) -> Standing:
    """Where the race stands after these looks. Raises InvalidInput for candidates that are none or not distinct, and for looks
    beyond the end."""
    if not candidates or len(set(candidates)) != len(candidates):
        raise InvalidInput(
            "a race needs candidates, each once", hint=f"these are {', '.join(candidates)[:200] or 'none'}"
        )
    left, decisions, blocks = list(candidates), list[Decision](), dict[tuple[int, int], Mapping[str, Block]]()
    dropped, aside = dict[str, str](), list[str]()
    ahead: Round | None = _round(rules, 1, left, confirms=False)
    end: Standing | None = None
    for number, look in enumerate(looks, 1):
        if ahead is None:
            raise InvalidInput(f"the race was over after look {number - 1}, and there are {len(looks)}")
        fresh, before = _by_turn(number, look), left
        decisions += [Decision(number, name, Fate.FAILED, look.failed[name]) for name in left if name in look.failed]
        left = [name for name in left if name not in look.failed]
        if ahead.confirms:
            end = _confirmed(rules, number, left, fresh, decisions)
            decisions, left = list(end.decisions), list(end.left)
        back = _back(number, [name for name in before if name not in left], dropped, decisions)
        if ahead.confirms and not left and not back:
            back, aside = aside, []
            decisions += [Decision(number, name, Fate.BACK, "no finalist is left") for name in back]
        if ahead.confirms and not back:
            ahead = None
            continue
        end = None
        blocks |= fresh
        left += back
        tests = max(len(candidates) - 1 + len(rules.hard), 1)
        level = rules.error / (number * (number + 1)) / tests
        advantage = estimated(blocks, level)
        out = _out(rules, left, blocks, level, advantage)
        sure = f"at look {number}, each statement {100 * (1 - level):.5g} % sure"
        decisions += [Decision(number, name, fate, f"{why} ({sure})") for name, (fate, why, _) in out.items()]
        left = _ranked(rules, [name for name in left if name not in out], advantage)
        left += _back(number, [name for name, (fate, *_) in out.items() if fate is Fate.MISSES], dropped, decisions)
        dropped |= {name: rival for name, (fate, _, rival) in out.items() if fate is Fate.DROPPED}
        late = [name for name in left if name in look.aside]
        decisions += [Decision(number, name, Fate.SET_ASIDE, look.aside[name]) for name in late]
        aside += late
        left = [name for name in left if name not in late]
        ahead = _ahead(rules, number, left, blocks, decisions)
        if ahead is not None and ahead.confirms:
            aside += [name for name in left if name not in ahead.order[0]]
            left = [name for name in left if name in ahead.order[0]]
    return end or Standing(tuple(decisions), tuple(left), ahead)


def _back(number: int, gone: Sequence[str], dropped: dict[str, str], decisions: list[Decision]) -> list[str]:
    """Those that were dropped by one of `gone`; they are no longer in `dropped`, which has by whom."""
    back = [name for name, rival in dropped.items() if rival in gone]
    decisions += [
        Decision(number, name, Fate.BACK, f"{dropped.pop(name)}, which dominated it, is out") for name in back
    ]
    return back


def _out(
    rules: Rules, left: Sequence[str], blocks: Turns, level: float, advantage: Advantage
) -> dict[str, tuple[Fate, str, str]]:
    """Those that something speaks against with confidence: what, and the rival, if it is one."""
    trials = {name: trial(name, blocks, level) for name in left}
    found = {name: [finding(objective, trials[name]) for objective in rules.hard] for name in left}
    out: dict[str, tuple[Fate, str, str]] = {}
    for name in left:
        missed = [f"{one.objective}: {one.reason}" for one in found[name] if one.met is Met.MISSED]
        if missed:
            out[name] = Fate.MISSES, "; ".join(missed), ""

    def why(one: str, other: str) -> str | None:
        # Being better counts for nothing if the rival may miss a hard objective that this one meets.
        for objective, seen in zip(rules.hard, found[one], strict=True):
            figure = Figure(figure_name(objective), objective.direction == "at_least")
            if seen.met is not Met.MET and advantage(figure, one, other).low < 1:
                return None
        return dominates(rules.figures, advantage, one, other)

    able = _ranked(rules, [name for name in left if name not in out], advantage)
    dominated = sifted(able, why)
    return out | {
        name: (Fate.DROPPED, f"dominated by {rival}: {reason}", rival) for name, (rival, reason) in dominated.items()
    }


def _ahead(
    rules: Rules,
    number: int,
    left: Sequence[str],
    blocks: Turns,
    decisions: list[Decision],
) -> Round | None:
    if not left:
        return None
    advantage = estimated(blocks, rules.error / 2)
    if len(left) <= rules.finalists:
        why = f"{len(left)} left, at most {rules.finalists} are confirmed"
    elif number >= rules.looks:
        why = f"look {number} is the last"
    elif _told(rules, left, advantage):
        why = "no further look would tell more: all that are left differ surely, or by no more than the margin"
    else:
        ahead = _round(rules, number + 1, left, confirms=False)
        reason = f"not dominated with confidence; next {len(ahead.order)} blocks of {ahead.seconds:g} s"
        decisions += [Decision(number, name, Fate.GOES_ON, reason) for name in left]
        return ahead
    chosen = _finalists(rules, left, advantage)
    for name in left:
        if name in chosen:
            decisions.append(Decision(number, name, Fate.FINALIST, why))
        else:
            ratios = [(one, advantage(one, name, chosen[0])) for one in rules.figures]
            beside = "; ".join(f"{one.name} {ratio_words(ratio)}" for one, ratio in ratios)
            shown = "" if any(one.high < 1 for _, one in ratios) else "not shown to be worse, "
            reason = f"{why}; {shown}by its estimates not among the best: beside {chosen[0]} {beside}"
            decisions.append(Decision(number, name, Fate.SET_ASIDE, reason))
    return _round(rules, number + 1, chosen, confirms=True)


def _confirmed(
    rules: Rules,
    number: int,
    left: Sequence[str],
    blocks: Turns,
    decisions: Sequence[Decision],
) -> Standing:
    """By fresh blocks alone: who got here was chosen by the earlier ones, and owes a part of them to luck."""
    trials = [trial(name, blocks, rules.error / 2) for name in left]
    made, kept = list(decisions), list[str]()
    for one in trials:
        if not one.figures:
            made.append(Decision(number, one.name, Fate.FAILED, "no block of the last round shows any figure"))
            continue
        found = [finding(objective, one) for objective in rules.hard]
        said = "; ".join(
            (*(f"{name} {words(interval)}" for name, interval in one.figures.items()), *(seen.reason for seen in found))
        )
        mets = {seen.met for seen in found}
        fate = Fate.MISSES if Met.MISSED in mets else Fate.OPEN if Met.CANNOT_TELL in mets else Fate.CONFIRMED
        made.append(Decision(number, one.name, fate, f"measured again: {said}"))
        if fate is not Fate.MISSES:
            kept.append(one.name)
    level = rules.error / 2 / max(len(trials) - 1, 1)
    measured = tuple(one for one in trials if one.figures)
    ranked = _ranked(rules, kept, estimated(blocks, level))
    # what was not measured by turns is compared by nobody, so that the answer says so
    return Standing(tuple(made), tuple(ranked), None, measured, paired(blocks, level))


def _finalists(rules: Rules, left: Sequence[str], advantage: Advantage) -> list[str]:
    """The best in each figure, then the best over all, in that order of `left`."""
    best = {_ranked(rules, left, advantage, figure)[0] for figure in rules.figures}
    for name in left:
        if len(best) < rules.finalists:
            best.add(name)
    return [name for name in left if name in best]


def _ranked(rules: Rules, names: Sequence[str], advantage: Advantage, figure: Figure | None = None) -> list[str]:
    """By estimate, the best first: the mean over all others of the product of the figures' ratios; what was not measured last."""
    figures = (figure,) if figure is not None else rules.figures

    def worth(name: str) -> float:
        ratios = [[advantage(one, name, other).value for one in figures] for other in names if other != name]
        known = [sum(map(math.log, ratio)) for ratio in ratios if not any(map(math.isnan, ratio))]
        return sum(known) / len(known) if known else -math.inf

    return sorted(names, key=worth, reverse=True)


def _told(rules: Rules, left: Sequence[str], advantage: Advantage) -> bool:
    """Whether every two of them are known to differ in every figure, or to be equal within its margin. This only ends the race, so
    looking often does no harm."""
    for place, one in enumerate(left):
        for other in left[place + 1 :]:
            for figure in rules.figures:
                ratio = advantage(figure, one, other)
                same = ratio.low >= 1 - figure.margin and ratio.high <= 1 / (1 - figure.margin)
                if not (same or ratio.low > 1 or ratio.high < 1):
                    return False
    return True


def _round(rules: Rules, number: int, names: Sequence[str], *, confirms: bool) -> Round:
    seconds = min(rules.seconds * rules.growth ** (number - 1), rules.longest)
    turns = rules.confirm_turns if confirms else rules.first_turns if number == 1 else rules.turns
    order = tuple(tuple(sorted(names, key=lambda name: _lot(rules.seed, number, turn, name))) for turn in range(turns))
    return Round(number, rules.confirm_seconds if confirms else seconds, order, confirms)


def _lot(seed: int, number: int, turn: int, name: str) -> bytes:
    """A hash draws the same lots on every machine and in every version of every library."""
    return hashlib.sha256(f"{seed}:{number}:{turn}:{name}".encode()).digest()


def _by_turn(number: int, look: Look) -> dict[tuple[int, int], dict[str, Block]]:
    turns: dict[tuple[int, int], dict[str, Block]] = {}
    for block in look.blocks:
        turn = turns.setdefault((number, block.turn), {})
        if block.candidate in turn:
            raise InvalidInput(f"{block.candidate} has two blocks in turn {block.turn} of look {number}")
        turn[block.candidate] = block
    return turns
