# Load acceptance 5: suite `coverage`, how often intervals hold the truth of simulated servers, and how wide they are.
from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy import signal, stats

from clients.load.outcomes import rate
from clients.load.processes import Records
from clients.load.statistics import Interval, Samples, percentile, warm_up
from tests.bench.report import Report

SEEDS = 500
CALLS = 20_000
LEAST = 0.92
BUSY = 0.7

Simulation = Callable[[np.random.Generator], Samples]
"""Latencies of one client's calls in their order, in ms."""


def independent(random: np.random.Generator) -> Samples:
    return random.lognormal(0, 0.5, CALLS)


def correlated(random: np.random.Generator) -> Samples:
    """Each value hangs on the one before (0.9), with the same distribution as if it did not."""
    noise = random.standard_normal(CALLS + 500) * np.sqrt(1 - 0.9**2)
    return np.asarray(np.exp(0.5 * signal.lfilter([1], [1, -0.9], noise)[500:]))


def queue(random: np.random.Generator) -> Samples:
    """One server, Poisson arrivals, exponential service of 1 ms, busy for 70 % of the time: waiting and service."""
    count = CALLS + 5000
    service = random.exponential(1, count)
    steps = service[:-1] - random.exponential(1 / BUSY, count - 1)
    walk = np.concatenate([[0], np.cumsum(steps)])
    waiting = walk - np.minimum.accumulate(np.minimum(walk, 0))
    return np.asarray((waiting + service)[5000:])


def _lognormal(share: float) -> float:
    return float(np.exp(0.5 * stats.norm.ppf(share)))


def _queued(share: float) -> float:
    return float(-np.log(1 - share) / (1 - BUSY))


def main() -> None:
    begin = time.monotonic()
    report = Report("coverage")
    servers: tuple[tuple[str, Simulation, Callable[[float], float]], ...] = (
        ("independent latencies", independent, _lognormal),
        ("autocorrelated latencies", correlated, _lognormal),
        ("a queue at 70 % load", queue, _queued),
    )
    short = []
    for name, simulate, truth in servers:
        figures = {f"p{percent:g}": (percent, truth(percent / 100)) for percent in (50.0, 99.0)}
        for figure, (percent, value) in figures.items():
            short += _cover(report, f"{figure}, {name}", value, _percentiles(simulate, percent))
        if simulate is not queue:  # whose rate is its arrivals': nothing of the server is in it
            short += _cover(report, f"throughput, {name}", 1000 / np.exp(0.125), _rates(simulate))
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")
    if short:
        raise SystemExit(f"below {LEAST:.0%}: {'; '.join(short)}")


def _percentiles(simulate: Simulation, percent: float) -> list[Interval]:
    return [percentile(_kept(simulate(np.random.default_rng(seed))), percent) for seed in range(SEEDS)]


def _rates(simulate: Simulation) -> list[Interval]:
    """One call after the other, as a closed loop of one sends them."""
    return [rate(_answered(_kept(simulate(np.random.default_rng(seed))))) for seed in range(SEEDS)]


def _kept(latencies: Samples) -> Samples:
    """Without what a measurement takes for warm-up, though these servers have none."""
    return latencies[warm_up(latencies) :]


def _answered(latencies: Samples) -> Records:
    records = np.zeros((len(latencies), 5), np.int64)
    records[:, 2] = np.cumsum(latencies * 1e6).astype(np.int64)
    return records


def _cover(report: Report, name: str, truth: float, intervals: list[Interval]) -> list[str]:
    held = [float(one.low <= truth <= one.high) for one in intervals]
    share = float(np.mean(held))
    widths = sorted(one.precision for one in intervals)
    width = widths[len(widths) // 2]
    report.add(f"{name}: held by 95 % intervals", "share", [share], [0.95], "promised")
    report.figure(f"{name}: half of their width, median", "share of the value", width)
    return [] if share >= LEAST else [f"{name} {share:.1%}"]


if __name__ == "__main__":
    main()
