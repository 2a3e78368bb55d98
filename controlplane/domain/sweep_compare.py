# Two trials of a sweep side by side, by the blocks of the turns that both were in. Pure.
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clients.load.comparison import Outcome
from clients.load.statistics import Interval
from controlplane.domain.sweep_blocks import Block, paired, trial
from controlplane.domain.sweep_figures import LATENCY, RATE, Asked, block_of
from controlplane.domain.sweep_rounds import Measurement, Stage
from controlplane.domain.sweep_search import Figure

LEVEL = 0.025
"""Each end of an interval is wrong with this chance: 95 % between them."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure. `ratio` is the second trial's over the first's, from 0 to infinite where nothing is known; `outcome` is that of the
    second: with the whole interval within the margin there is no difference shown, with all of it beyond it is better or worse,
    else it is inconclusive. `pairs` are the turns that it is of."""

    name: str
    ratio: Interval
    outcome: Outcome
    pairs: int


def compared(
    asked: Asked, measurements: Iterable[Measurement], one: str, other: str, margin: float
) -> tuple[Compared, ...]:
    """By candidates' digests. The figures that the search compares by come first. Blocks that look for a rate are left out: each
    has a load of its own."""
    turns = blocks_by_turn(asked, [m for m in measurements if m.order.candidate in {one, other}])
    both = [turn for turn in turns.values() if one in turn and other in turn]
    names = dict.fromkeys(figure.name for figure in asked.figures)
    names |= dict.fromkeys(sorted({name for turn in both for block in turn.values() for name in block.figures}))
    advantage = paired(turns, LEVEL)
    found = []
    for name in names:
        figure = Figure(name, not name.startswith(LATENCY))
        pairs = sum(1 for turn in both if all(turn[each].figures.get(name, 0) > 0 for each in (one, other)))
        better = advantage(figure, other, one)
        ratio = better if figure.more_is_better else _turned(better)
        found.append(Compared(name, ratio, _outcome(better, 1 + margin), pairs))
    return tuple(found)


def rates_beside(asked: Asked, names: Sequence[str], measurements: Iterable[Measurement]) -> dict[str, float]:
    """How many times the first one's its highest rate was, by the turns of the race that both were in; without those that too few turns
    tell of."""
    advantage = paired(blocks_by_turn(asked, measurements), LEVEL)
    ratios = {name: advantage(Figure(RATE, more_is_better=True), name, names[0]) for name in names}
    return {name: ratio.value for name, ratio in ratios.items() if math.isfinite(ratio.high)}


def blocks_by_turn(
    asked: Asked, measurements: Iterable[Measurement], *, everything: bool = True
) -> Mapping[tuple[int, int], Mapping[str, Block]]:
    """By round and turn, with all that blocks show, or, as `block_of` has it, with what candidates are judged by."""
    rows: dict[tuple[int, int, str], list[Measurement]] = {}
    for one in measurements:
        if one.stage is not Stage.RATE:
            rows.setdefault((one.round, one.order.turn, one.order.candidate), []).append(one)
    found: dict[tuple[int, int], dict[str, Block]] = {}
    for (number, turn, name), own in rows.items():
        block = block_of(asked, own, everything=everything)
        if block is not None:
            found.setdefault((number, turn), {})[name] = block
    return found


def figures_seen(
    asked: Asked, measurements: Sequence[Measurement], *, everything: bool = True
) -> Mapping[str, Mapping[str, Interval]]:
    """By candidate, what its blocks showed: all of the race, or, where it was measured again, those alone, as they owe nothing to luck."""
    turns = blocks_by_turn(asked, measurements, everything=everything)
    confirmed = {one.round for one in measurements if one.stage is Stage.CONFIRM}
    names = {name for turn in turns.values() for name in turn}
    found = {}
    for name in names:
        again = {key: turn for key, turn in turns.items() if key[0] in confirmed and name in turn}
        found[name] = trial(name, again or turns, LEVEL).figures
    return found


def _turned(ratio: Interval) -> Interval:
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low if ratio.low > 0 else float("inf"))


def _outcome(better: Interval, bound: float) -> Outcome:
    if better.low >= 1 / bound and better.high <= bound:
        return "no difference shown"
    if better.low > bound:
        return "better"
    return "worse" if better.high < 1 / bound else "inconclusive"
