# Staircases: the highest rate at which latencies hold, of several configs by turns, as suite `sweep` measures them again.
"""Each turn has one block of every config, at a constant rate that goes up a step where the objectives held and down where they did not: the
up-and-down method of Dixon and Mood (1948, *A method for obtaining and analyzing sensitivity data*, JASA 43). It settles where a block holds as
often as not; a block that stalled moves a rate by one step, and the next block moves it back. What the host does meanwhile meets all configs.
Every config has as
many staircases as any other: one with more blocks than the rest could be the warmer for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from controlplane.bench.rounds import LocalBench
from controlplane.bench.scratch import Blobs
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_rates import disturbed, held
from controlplane.domain.sweep_rounds import (
    BenchModel,
    BlockOrder,
    Measurement,
    Requests,
    RoundOrder,
    Stage,
    Step,
)
from controlplane.domain.sweep_spec import Shape

SETTLING = 10
"""Turns before a staircase counts."""
COPIES = 2
"""Staircases of each config."""
_BLOCK_SECONDS = 2.0
_FIRST, _LEAST = 0.4, 0.05
"""Steps, in logs: halved wherever the direction turns, down to the least."""


@dataclass
class Interleaved:
    """What is measured, and where: `percent` and `bound_ms` are what a search would look for, `objectives` what has to hold."""

    bench: LocalBench
    store: Blobs
    models: Sequence[BenchModel]
    requests: Mapping[int, Requests]
    objectives: Sequence[Objective]
    percent: float
    bound_ms: float
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    _turn: int = 0

    def turn(self, rates: Sequence[tuple[str, float]]) -> list[Measurement]:
        """One block for each candidate and rate, in an order that is drawn, with the same arrivals for all at one rate; as `rates` are."""
        self._turn += 1
        drawn = [int(place) for place in self.random.permutation(len(rates))]
        blocks = tuple(
            BlockOrder(at, 0, rates[place][0], Step(Shape.RATE, f"{rates[place][1]:.1f}"), _BLOCK_SECONDS, self._turn)
            for at, place in enumerate(drawn)
        )
        order = RoundOrder(
            *(0, self._turn, Stage.COMPARE, tuple(self.models), self.requests, blocks),
            percent=self.percent,
            bound_ms=self.bound_ms,
        )
        taken = self.bench.measure(order, self.store, done=lambda _: None, go_on=lambda: None).measurements
        by_place = {drawn[one.order.place]: one for one in taken}
        return [by_place[place] for place in range(len(rates))]

    def holds(self, one: Measurement) -> bool:
        return held(one, self.objectives)


@dataclass
class _Stairs:
    rate: float
    step: float = _FIRST
    went: int = 0
    logs: list[float] = field(default_factory=list)

    def go(self, way: int) -> None:
        if self.went == -way:
            self.step = max(self.step / 2, _LEAST)
        self.went = way
        self.rate *= math.exp(way * self.step)


def stairs(where: Interleaved, start: float, *, repeats: int, turns: int) -> dict[str, list[float]]:
    """By candidate the geometric mean of its rates in each repeat of so many turns, after all have settled. A miss while the hypervisor took
    processors away moves nothing."""
    names = [one.candidate for one in where.models]
    each = [(name, _Stairs(start)) for name in names * COPIES]
    for turn in range(SETTLING + repeats * turns):
        for (_, own), one in zip(each, where.turn([(name, own.rate) for name, own in each]), strict=True):
            if turn >= SETTLING:
                own.logs.append(math.log(own.rate))
            if where.holds(one):
                own.go(1)
            elif not disturbed(one):
                own.go(-1)
    logs = {name: np.mean([one.logs for other, one in each if other == name], axis=0) for name in names}
    return {
        name: [math.exp(float(np.mean(own[at * turns : (at + 1) * turns]))) for at in range(repeats)]
        for name, own in logs.items()
    }
