# Suite `comparison`: how often two simulated candidates are called different, the same ones and slower ones.
"""Sweep acceptance 3, with more seeds and worse hosts than tests/unit/load/test_comparison.py has."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.load.comparison import Block, Comparison, latency, throughput
from clients.load.statistics import Samples, mean
from tests.bench.report import Report
from tests.unit.load.candidates import Host, Simulation, correlated, identical, independent, remembering, slower

SEEDS = 300
SLOWER = 1.1
MARGIN = 0.05
MOST_DIFFERENT = 0.10
FEWEST_WORSE = 0.90
FEW = {"rounds": 20, "calls": 500}

Figure = Callable[[list[Block], list[Block], float], Comparison]
FIGURES: dict[str, Figure] = {
    "throughput": throughput,
    "p50": lambda a, b, margin: latency(a, b, 50.0, margin),
    "p99": lambda a, b, margin: latency(a, b, 99.0, margin),
}


def strongly_correlated(random: np.random.Generator, count: int) -> Samples:
    return np.asarray(np.exp(0.5 * remembering(random, count, 0.9)))


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    simulate: Simulation
    host: Host
    rounds: int
    calls: int


SCENES = (
    Scene("independent latencies", independent, Host(), 120, 1000),
    Scene("autocorrelated latencies", correlated, Host(), 120, 1000),
    Scene("strongly autocorrelated latencies", strongly_correlated, Host(), 200, 4000),
    Scene("a host that takes 30 % in every tenth block", independent, Host(loss=0.3), 260, 1000),
    Scene("a host that drifts by 60 %", independent, Host(drift=0.6, wave=0.2), 120, 1000),
    Scene("candidates that wander by 3 % on their own", independent, Host(own=0.03), 200, 1000),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = range(parser.parse_args().seeds)
    begin = time.monotonic()
    report = Report("comparison")
    missed = [miss for scene in SCENES for miss in _scene(report, seeds, scene)]
    _beside_pooling(report, seeds)
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")
    if missed:
        raise SystemExit("; ".join(missed))


def _scene(report: Report, seeds: range, scene: Scene) -> list[str]:
    same: dict[str, list[Comparison]] = {figure: [] for figure in FIGURES}
    other: dict[str, list[Comparison]] = {figure: [] for figure in FIGURES}
    for seed in seeds:
        a, b = identical(scene.simulate, seed, rounds=scene.rounds, calls=scene.calls, host=scene.host)
        planted = slower(b, SLOWER)
        for figure, compare in FIGURES.items():
            same[figure].append(compare(a, b, 0))
            other[figure].append(compare(a, planted, MARGIN))
    missed = []
    for figure in FIGURES:
        title = f"{figure}, {scene.name}, {scene.rounds} rounds of {scene.calls} calls"
        different = float(np.mean([found.outcome in {"better", "worse"} for found in same[figure]]))
        worse = float(np.mean([found.outcome == "worse" for found in other[figure]]))
        report.add(f"{title}: the same called different", "share", [different], [0.05], "promised")
        report.add(f"{title}: 10 % slower called worse by over 5 %", "share", [worse], [FEWEST_WORSE], "asked for")
        widths = [found.ratio.precision for found in same[figure]]
        report.figure(f"{title}: half of the interval, median", "share of the ratio", float(np.median(widths)))
        if different > MOST_DIFFERENT or worse < FEWEST_WORSE:
            missed.append(f"{title}: {different:.1%} different, {worse:.1%} worse")
    return missed


def _beside_pooling(report: Report, seeds: range) -> None:
    """What was left: one percentile over all samples of a candidate, with whole rounds resampled."""
    for percent in (50.0, 99.0):
        ways: dict[str, list[tuple[bool, bool]]] = {"by round": [], "pooled, jackknife": [], "pooled, bootstrap": []}
        for seed in seeds:
            a, b = identical(independent, seed, host=Host(loss=0.3), **FEW)
            first, second = (np.stack([block.latencies for block in blocks]) for blocks in (a, b))
            ratio = latency(a, b, percent, 0).ratio
            low, high = np.log([ratio.low, ratio.high])
            ways["by round"].append(_called(float(low), float(high)))
            ways["pooled, jackknife"].append(_called(*_jackknife(first, second, percent)))
            ways["pooled, bootstrap"].append(
                _called(*_bootstrap(first, second, percent, np.random.default_rng((seed, 2))))
            )
        for way, called in ways.items():
            different, found = np.mean(called, axis=0)
            title = f"p{percent:g}, {FEW['rounds']} rounds of {FEW['calls']} calls, {way}"
            report.figure(f"{title}: the same called different", "share", float(different))
            report.figure(f"{title}: 10 % slower called slower", "share", float(found))


def _called(low: float, high: float) -> tuple[bool, bool]:
    """Different, when they are the same; slower, when one is: the logarithm of its ratio is just higher then."""
    return low > 0 or high < 0, low + np.log(SLOWER) > 0


def _pooled(a: Samples, b: Samples, percent: float, rounds: NDArray[np.int64] | list[int]) -> float:
    first, second = (np.quantile(one[rounds], percent / 100, method="inverted_cdf") for one in (a, b))
    return float(np.log(second / first))


def _jackknife(a: Samples, b: Samples, percent: float) -> tuple[float, float]:
    rounds = list(range(len(a)))
    whole = _pooled(a, b, percent, rounds)
    without = np.array([_pooled(a, b, percent, [one for one in rounds if one != left]) for left in rounds])
    found = mean(len(a) * whole - (len(a) - 1) * without)
    return found.low, found.high


def _bootstrap(a: Samples, b: Samples, percent: float, random: np.random.Generator) -> tuple[float, float]:
    drawn = [_pooled(a, b, percent, random.integers(0, len(a), len(a))) for _ in range(100)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
