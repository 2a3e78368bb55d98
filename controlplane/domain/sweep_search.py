# What trials say together: which meet the hard objectives, which are on the Pareto front, and which to choose. Pure.
"""A trial is dominated only with confidence: some other is shown to be no worse in every figure and better in one. Shown to be
no worse means that the interval of the ratio stays above 1 less the figure's declared margin; shown to be better, above 1. All
of these must hold at once, so that the chance to be wrong is that of the weakest alone (an intersection-union test, Berger 1982,
*Multiparameter hypothesis testing and acceptance sampling*), however many figures there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clients.load.statistics import Interval, fewest
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_values import short
from controlplane.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Figure:
    """What trials are compared by, such as `rate` or `latency_ms p99`. All values are positive. `margin`: the share by which a
    trial may be worse and still count as no worse. `of_artifact`: evaluated on the artifact and not under load, as accuracy is, so
    that two equal intervals are one evaluation and no difference. `resolution`: the least spread of a ratio that is believed, as a
    share. Histograms keep three figures, so equal ratios are no proof of no noise."""

    name: str
    more_is_better: bool
    margin: float = 0.0
    of_artifact: bool = False
    resolution: float = 0.001

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InvalidInput(f"the margin of {self.name} is {self.margin}", hint="use a share from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate with its figures, by name; a figure that was not taken is left out. `answers` is how many answers the
    percentiles are of; `untold` says why figures were not taken, where that is known."""

    name: str
    figures: Mapping[str, Interval]
    answers: int
    untold: str = ""


class Met(StrEnum):
    MET = "met"
    MISSED = "missed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a trial is to one hard objective, in words with numbers."""

    objective: str
    met: Met
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`findings` of each trial, one a hard objective; `front`: of those that meet all, the ones that are not dominated, the
    preferred first; `dominated`: by which, and why; `chosen` is None where no trial is shown to meet everything. `reason` says
    why that one, and what the next is beside it."""

    findings: Mapping[str, tuple[Finding, ...]]
    front: tuple[str, ...]
    dominated: Mapping[str, str]
    chosen: str | None
    reason: str


Advantage = Callable[[Figure, str, str], Interval]
"""The ratio of one trial's figure to another's, as an interval; above 1 the first is *better*, whichever way the figure goes. From
0 to infinite where nothing is known."""

UNKNOWN = Interval(math.nan, 0.0, math.inf)
_VAGUE = 25.0
"""An interval around 1 whose ends are further apart tells neither which is the better nor by how much."""


def figure_name(objective: Objective) -> str:
    return f"{objective.metric} {objective.qualifier}".strip()


def apart(trials: Sequence[Trial]) -> Advantage:
    """By the trials' own intervals, as if measured apart: wide and safe. Blocks that were measured by turns tell more
    (sweep_blocks.paired)."""
    by_name = {trial.name: trial.figures for trial in trials}

    def advantage(figure: Figure, one: str, other: str) -> Interval:
        mine, theirs = by_name[one].get(figure.name), by_name[other].get(figure.name)
        if mine is None or theirs is None:
            return UNKNOWN
        if figure.of_artifact and mine == theirs:
            return Interval(1.0, 1.0, 1.0)
        if not figure.more_is_better:
            mine, theirs = theirs, mine
        return Interval(
            _ratio(mine.value, theirs.value),
            _ratio(max(mine.low, 0.0), theirs.high),
            _ratio(mine.high, theirs.low) if theirs.low > 0 else math.inf,
        )

    return advantage


def dominates(figures: Sequence[Figure], advantage: Advantage, one: str, other: str) -> str | None:
    """In words how `one` dominates `other`, or None: not shown."""
    ratios = [(figure, advantage(figure, one, other)) for figure in figures]
    if not ratios or any(ratio.low < 1 - figure.margin for figure, ratio in ratios):
        return None
    if not any(ratio.low > 1 for _, ratio in ratios):
        return None
    return "; ".join(f"{figure.name} {ratio_words(ratio)}" for figure, ratio in ratios)


def sifted(names: Sequence[str], why: Callable[[str, str], str | None]) -> dict[str, tuple[str, str]]:
    """Those of `names`, the best first, that another dominates (`why` says how), with which and why. They leave one at a time, the last
    first, and who left dominates nobody: within margins two may dominate each other, and one of them stays."""
    left, out = list(names), dict[str, tuple[str, str]]()
    for name in reversed(names):
        for rival in left:
            reason = why(rival, name) if rival != name else None
            if reason is not None:
                out[name] = rival, reason
                left.remove(name)
                break
    return out


def finding(objective: Objective, trial: Trial) -> Finding:
    """Whether the interval lies wholly on one side of the bound. A percentile of too few answers is never met, but may be
    missed."""
    name = figure_name(objective)
    bound, unit = float(objective.bound), " ms" if objective.metric.endswith("_ms") else ""
    asked = f"{objective.direction.replace('_', ' ')} {objective.bound}{unit}"
    interval = trial.figures.get(name)
    if interval is None:
        why = f"{trial.untold}; {name}" if trial.untold else f"{name} was not measured; it"
        return Finding(objective.name, Met.CANNOT_TELL, f"{why} is to be {asked}")
    said = f"{name} is {words(interval)}{unit}, to be {asked}"
    most = objective.direction == "at_most"
    missed = interval.low > bound if most else interval.high < bound
    met = interval.high <= bound if most else interval.low >= bound
    if missed:
        return Finding(objective.name, Met.MISSED, said)
    least = _least_answers(objective)
    if trial.answers < least:
        return Finding(objective.name, Met.CANNOT_TELL, f"{said}: {trial.answers} answers, and it takes {least}")
    if met:
        return Finding(objective.name, Met.MET, said)
    return Finding(objective.name, Met.CANNOT_TELL, f"{said}: the interval holds the bound")


def answer(
    trials: Sequence[Trial],
    figures: Sequence[Figure],
    objectives: Sequence[Objective],
    advantage: Advantage | None = None,
) -> Answer:
    """Hard objectives (without a weight) sort out; the front is of those that are shown to meet them all; the weighted ones
    choose. `advantage` compares two trials; without it their intervals do. What not all of those show parts none of them: the reason
    names it."""
    compare = advantage or apart(trials)
    hard = [objective for objective in objectives if objective.weight is None]
    wishes = [objective for objective in objectives if objective.weight is not None]
    findings = {trial.name: tuple(finding(objective, trial) for objective in hard) for trial in trials}
    able = [trial for trial in trials if all(one.met is Met.MET for one in findings[trial.name])]
    shown = set(able[0].figures).intersection(*(trial.figures for trial in able)) if able else set()
    figures, hidden = [one for one in figures if one.name in shown], [one for one in figures if one.name not in shown]
    told = [wish for wish in wishes if figure_name(wish) in shown]
    if able and not (hard or figures or told):
        return Answer(
            findings, (), {}, None, _nothing_shown([*map(figure_name, wishes), *(one.name for one in hidden)])
        )
    able.sort(key=lambda trial: _preference(trial, figures, told))
    names = [trial.name for trial in able]
    out = sifted(names, lambda one, other: dominates(figures, compare, one, other))
    dominated = {name: f"dominated by {rival}: {why}" for name, (rival, why) in out.items()}
    front = [trial for trial in able if trial.name not in dominated]
    if not front:
        return Answer(findings, (), dominated, None, _none_meets(findings))
    return Answer(
        findings,
        tuple(trial.name for trial in front),
        dominated,
        front[0].name,
        _why(front, figures, told, compare)
        + _untold([*map(figure_name, wishes), *(one.name for one in hidden)], shown),
    )


def _preference(trial: Trial, figures: Sequence[Figure], wishes: Sequence[Objective]) -> tuple[float, float, str]:
    """Least first. How far the wishes are missed decides: the weighted mean of log ratios to their bounds, in which twice over a
    bound of weight 1 is as bad as 1.41 times over one of weight 2, and what is better than its bound makes up for
    nothing. Among equals it is the same mean with what is better counted too: a weighted product, whose order does not
    depend on units. Without wishes each figure counts alike."""
    if not wishes:
        return 0.0, -sum(_gain(trial, figure.name, 1.0, figure.more_is_better) for figure in figures), trial.name
    weighed = [
        (float(wish.weight or 0), _gain(trial, figure_name(wish), float(wish.bound), wish.direction == "at_least"))
        for wish in wishes
    ]
    whole = sum(weight for weight, _ in weighed)
    short = sum(weight * -min(gain, 0.0) for weight, gain in weighed) / whole
    return short, -sum(weight * gain for weight, gain in weighed) / whole, trial.name


def _gain(trial: Trial, name: str, bound: float, more_is_better: bool) -> float:
    """Log of how much better than `bound`; what has no such value is as bad as can be. Nothing comes nearer to 0 than another by a ratio:
    with that bound the values alone are compared."""
    interval = trial.figures.get(name)
    if interval is None or not (math.isfinite(interval.value) and interval.value > 0):
        return -math.inf
    return math.log(interval.value / (bound or 1.0)) * (1 if more_is_better else -1)


def _why(ranked: Sequence[Trial], figures: Sequence[Figure], wishes: Sequence[Objective], compare: Advantage) -> str:
    first = ranked[0]
    parts = []
    if not figures and not wishes:
        parts.append(
            f"{first.name} is the first of those that meet the hard objectives, and no figure tells them apart"
        )
    elif wishes:
        told = [_wish_words(wish, first) for wish in wishes]
        parts.append(f"{first.name} comes nearest to what is wished: {'; '.join(told)}")
    else:
        told = [f"{one.name} {words(first.figures[one.name])}" for one in figures if one.name in first.figures]
        parts.append(f"{first.name} has the best product of its figures: {'; '.join(told)}")
    if len(ranked) == 1:
        parts.append("no other that meets the hard objectives is on the front")
    else:
        second = ranked[1].name
        ratios = [f"{figure.name} {ratio_words(compare(figure, first.name, second))}" for figure in figures]
        parts.append(f"beside {second}, the next: {'; '.join(ratios)}")
    return ". ".join(parts)


def _nothing_shown(names: Sequence[str]) -> str:
    listed = " or ".join(dict.fromkeys(names))
    return f"nothing tells candidates apart: not all of those that are left show {listed}. More time, or a higher rate, shows it"


def _untold(names: Sequence[str], shown: Container[str]) -> str:
    untold = [name for name in dict.fromkeys(names) if name not in shown]
    return f". Not all of them show {' and '.join(untold)}, so that decided nothing" if untold else ""


def _wish_words(wish: Objective, trial: Trial) -> str:
    name = figure_name(wish)
    interval = trial.figures.get(name)
    seen = "was not measured" if interval is None else f"is {words(interval)}"
    return f"{name} {seen}, wished {wish.direction.replace('_', ' ')} {wish.bound} with weight {wish.weight}"


def _none_meets(findings: Mapping[str, Sequence[Finding]]) -> str:
    if not findings:
        return "no trial was left at the end: each has its reason"
    lines = []
    for name, found in findings.items():
        open_ = [one for one in found if one.met is not Met.MET]
        lines.append(f"{name}: {'; '.join(f'{one.objective} {one.met}, {one.reason}' for one in open_)}")
    return f"no trial is shown to meet every hard objective. {'. '.join(lines)}"


def _least_answers(objective: Objective) -> int:
    """A qualifier may be a cohort as well, such as `pictures`."""
    number = objective.qualifier.removeprefix("p")
    if number == objective.qualifier or not number.replace(".", "", 1).isdigit():
        return 0
    return fewest(float(number))


def words(interval: Interval) -> str:
    if interval.low <= 0 and math.isinf(interval.high):
        return f"{short(interval.value)} (too few blocks to know how surely)"
    return f"{short(interval.value)} ({short(interval.low)} to {short(interval.high)})"


def ratio_words(ratio: Interval) -> str:
    """As `1.24 times as good (1.1 to 1.4)`; where hardly the order of magnitude is known, that nobody can tell."""
    if math.isnan(ratio.value):
        return "cannot be compared"
    if ratio.low < 1 < ratio.high and ratio.high > _VAGUE * ratio.low:
        return f"cannot be told apart ({ratio.low:.3g} to {ratio.high:.3g} times as good)"
    return f"{ratio.value:.3g} times as good ({ratio.low:.3g} to {ratio.high:.3g})"


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else math.nan
