# What the choice of a sweep is worth beside the base config, in words with numbers. Pure.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clients.load.statistics import Interval
from controlplane.domain.sweep_blocks import paired
from controlplane.domain.sweep_compare import LEVEL, blocks_by_turn
from controlplane.domain.sweep_figures import Asked
from controlplane.domain.sweep_rates import Found
from controlplane.domain.sweep_rounds import Measurement, Stage
from controlplane.domain.sweep_search import Figure, ratio_words
from controlplane.domain.sweeps import Trial


@dataclass(frozen=True, slots=True)
class Baseline:
    """`better`: shown to be, in anything; then `said` speaks for the choice, else it is to be known before it is taken."""

    better: bool
    said: str


def beside_base(
    asked: Asked,
    trials: Sequence[Trial],
    measurements: Sequence[Measurement],
    chosen: Trial,
    rates: Mapping[str, Found],
) -> Baseline | None:
    """None where there is no base config to compare with, or the choice is it."""
    base = next((one for one in trials if one.base and not one.refused), None)
    if base is None or base.candidate == chosen.candidate:
        return None
    mine, theirs = rates.get(chosen.candidate), rates.get(base.candidate)
    if mine is not None and mine.confirmed and theirs is not None and theirs.bad <= mine.good:
        times = mine.good / theirs.bad
        more = f": {times:.3g} times as much, or more" if times >= 1.01 else ""
        return Baseline(
            True, f"{mine.good:g}/s held, and on the base config, trial {base.name}, {theirs.bad:g}/s did not{more}"
        )
    known = _ratios(asked, measurements, chosen, base)
    if not known:
        return Baseline(
            False,
            f"it was never measured in one turn with the base config, trial {base.name}: whether it is better is not shown",
        )
    shown = "; ".join(f"{one.name} {ratio_words(ratio)}" for one, ratio in known)
    if any(ratio.low > 1 for _, ratio in known):
        return Baseline(True, f"beside the base config, trial {base.name}: {shown}")
    return Baseline(
        False,
        f"not shown to be better than the base config, trial {base.name}: {shown}. Nothing is lost by staying with that",
    )


def _ratios(
    asked: Asked, measurements: Sequence[Measurement], chosen: Trial, base: Trial
) -> list[tuple[Figure, Interval]]:
    """How many times as good the choice is, in each figure that is known; by fresh blocks, where the base was among the finalists."""
    figures = {one.name: one for one in (*asked.figures, *asked.race)}.values()
    for stages in ({Stage.CONFIRM}, {Stage.RACE, Stage.CONFIRM}):
        advantage = paired(blocks_by_turn(asked, [one for one in measurements if one.stage in stages]), LEVEL)
        ratios = [(one, advantage(one, chosen.candidate, base.candidate)) for one in figures]
        if known := [(one, ratio) for one, ratio in ratios if not math.isnan(ratio.value)]:
            return known
    return []
