# What the blocks of a sweep say: of each trial, at each load, its figures, latencies, times in the server and batches. Pure.
"""A point is of one stage, the latest that has figures: who was confirmed got there partly by luck, so the blocks before do not
count. Figures are geometric means over the blocks with 95 % intervals, as the search has them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from clients.load.histogram import Values, decode
from clients.load.server import PARTS
from clients.load.statistics import Interval
from controlplane.domain.sweep_blocks import Block, trial
from controlplane.domain.sweep_compare import LEVEL
from controlplane.domain.sweep_figures import Asked, block_of, shown_by
from controlplane.domain.sweep_rounds import Measurement, Stage, Step
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweeps import Trial
from controlplane.reports.material import Material
from controlplane.reports.wording import number

_WEIGHT = {Stage.RACE: 0, Stage.COMPARE: 1, Stage.RATE: 2, Stage.CONFIRM: 3}


@dataclass(frozen=True, slots=True)
class Point:
    """`load` is the number of a rate or a concurrency, None of other shapes."""

    trial: Trial
    step: Step
    stage: Stage
    blocks: tuple[Measurement, ...]
    figures: Mapping[str, Interval]

    @property
    def load(self) -> float | None:
        return load_of(self.step)

    @property
    def answers(self) -> int:
        return sum(block.completed for block in self.blocks)


def load_of(step: Step) -> float | None:
    return float(Decimal(step.text)) if step.shape in {Shape.RATE, Shape.CONCURRENCY} else None


def step_words(step: Step) -> str:
    """As a caption says it."""
    words = {
        Shape.RATE: f"{_number(step)} requests/s",
        Shape.CONCURRENCY: f"{step.text} at once",
        Shape.FIND_RATE: "a rising rate" if step.text else "as many at once as the bound allows",
    }
    return words.get(step.shape, step.label)


def step_short(step: Step) -> str:
    """As there is room for beside an axis."""
    words = {Shape.RATE: f"{_number(step)}/s", Shape.FIND_RATE: "rising rate" if step.text else "within the bound"}
    return words.get(step.shape, step_words(step))


def points(material: Material) -> tuple[Point, ...]:
    """By trial, then by load."""
    groups: dict[tuple[str, str], dict[Stage, list[tuple[Measurement, Block]]]] = defaultdict(lambda: defaultdict(list))
    for one in material.measurements:
        shown = _shown(material.asked, one)
        if shown is not None and one.order.candidate in material.by_candidate:
            groups[one.order.candidate, _same(one.order.step)][one.stage].append((one, shown))
    found = []
    for (candidate, _), by_stage in groups.items():
        stage = max(by_stage, key=_WEIGHT.__getitem__)
        rows = by_stage[stage]
        turns = {(one.round, one.order.place): {candidate: shown} for one, shown in rows}
        figures = trial(candidate, turns, LEVEL).figures
        blocks = tuple(one for one, _ in rows)
        found.append(Point(material.by_candidate[candidate], blocks[0].order.step, stage, blocks, figures))
    return tuple(sorted(found, key=lambda point: (point.trial.number, point.load or 0.0, point.step.label)))


def main_points(found: Sequence[Point], chosen: int | None, bounds: Mapping[str, float]) -> dict[int, Point]:
    """Of each trial its point under one load, by which trials are held against each other: of the loads that most were measured
    under the heaviest at which the chosen trial keeps below the `bounds` of its latencies, or else the heaviest."""
    common = [point for point in found if point.stage is not Stage.RATE] or list(found)
    if not common:
        return {}
    counts = Counter(_same(point.step) for point in common)
    most = max(counts.values())
    there = [point for point in common if counts[_same(point.step)] == most]
    held = [
        point
        for point in there
        if point.trial.number == chosen
        and all(point.figures[name].value <= bound for name, bound in bounds.items() if name in point.figures)
    ]
    best = _same(max(held or there, key=lambda point: (point.load or 0.0, point.step.label)).step)
    return {point.trial.number: point for point in common if _same(point.step) == best}


def latencies(blocks: Iterable[Measurement]) -> tuple[Values, Values]:
    """Every bucket of the blocks' histograms together, in ns from when requests were due, with its count: exact, because all
    histograms have the same buckets."""
    parts = [decode(one.histogram) for one in blocks if one.histogram]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, places = np.unique(np.concatenate([value for value, _ in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([count for _, count in parts]))
    return values, counts


def times_in_server(blocks: Iterable[Measurement]) -> dict[str, float]:
    """Of the mean request, in ms by part, `other` what lies between the parts; empty where the server told nothing."""
    sums: Counter[str] = Counter()
    for one in blocks:
        sums.update(one.server)
    if not sums["succeeded"]:
        return {}
    mean = {part: sums[f"{part}_ns"] / sums["succeeded"] / 1e6 for part in PARTS}
    whole = mean.pop("total")
    return mean | {"other": max(whole - sum(mean.values()), 0.0)}


def executions(blocks: Iterable[Measurement]) -> dict[int, int]:
    """By batch size."""
    sums: Counter[int] = Counter()
    for one in blocks:
        sums.update(one.batches)
    return dict(sorted(sums.items()))


def knee(curve: Sequence[Point], latency: str) -> Point | None:
    """Where a heavier load begins to cost more waiting than it brings: the most throughput for its latency (Kleinrock 1979, *Power
    and deterministic rules of thumb for probabilistic problems in computer communications*). None below three loads,
    and at an end of the curve: the bend, if there is one, was not measured."""
    if len(curve) < 3:
        return None
    power = [point.figures["throughput"].value / point.figures[latency].value for point in curve]
    best = power.index(max(power))
    return curve[best] if 0 < best < len(curve) - 1 else None


def _number(step: Step) -> str:
    load = load_of(step)
    return step.text if load is None else number(load)


def _shown(asked: Asked, one: Measurement) -> Block | None:
    """What the search takes it for; None where it shows nothing."""
    found = block_of(asked, [one], everything=True)
    if found is None:
        return None
    figures = {name: found.figures[name] for name in shown_by(one)}
    return replace(found, figures=figures) if figures else None


def _same(step: Step) -> str:
    """Steps of one name are one load. A search for the rate looks wherever it looks."""
    return step.shape.value if step.shape is Shape.FIND_RATE else f"{step.label} {step.process}"
