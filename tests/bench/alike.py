# Suite `alike`: on a live server, how often a candidate is called different from its twin, and one that is 10 % slower worse.
"""Sweep acceptance 3, the live half of it; `tests.bench.comparison` has the many on simulated hosts. All three are measured in the same
turns, in random order, as a sweep does. The delay is planted: the models sleep."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from controlplane.bench.rounds import LocalBench, embedded_bench
from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_compare import Compared, compared
from controlplane.domain.sweep_figures import THROUGHPUT, asked
from controlplane.domain.sweep_rounds import BenchModel, BlockOrder, Measurement, Requests, Step
from controlplane.domain.sweep_spec import Search, Shape
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.install import install
from tests.bench.report import ROOT, Report
from tests.live.bench_models import ROWS, Shelf, measured, open_shelf, order

COMPARISONS, TURNS, SECONDS = 20, 12, 0.5
MILLISECONDS = 10.0
SLOWER = 1.1
STEP = Step(Shape.CONCURRENCY, "2")
LOAD: JsonObject = {"concurrency": STEP.text, "process": "poisson", "rows": 1, "finds_rate": False}
MOST_DIFFERENT, FEWEST_WORSE = 0.10, 0.90
MARGINS = 0.0, float(Search().margin_percent) / 100
"""Any difference, and the one that a sweep is to declare unless its spec says otherwise."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comparisons", type=int, default=COMPARISONS)
    count, begin, report = parser.parse_args().comparisons, time.monotonic(), Report("alike")
    runtime = ROOT / "build" / "runtime"
    install(runtime, progress=lambda words, _share: print(words, flush=True))
    with tempfile.TemporaryDirectory(prefix="tritonctl-bench-") as name:
        shelf = open_shelf(Path(name) / "shelf")
        with embedded_bench(Path(name) / "bench", find(runtime, None), keep_awake=True) as bench:
            models = [_sleeping(shelf, "one", 1.0), _sleeping(shelf, "twin", 1.0), _sleeping(shelf, "slow", SLOWER)]
            rows = [_rows(number, models, shelf, bench) for number in range(count)]
    for margin in MARGINS:
        found = [_outcomes(models, each, margin) for each in rows]
        different = sum(twin.outcome in {"better", "worse"} for twin, _ in found) / count
        worse = sum(slow.outcome == "worse" for _, slow in found) / count
        what = f"{count} comparisons of {TURNS} turns of {SECONDS:g} s, margin {margin:.0%}"
        report.add(
            f"a twin called different, {what}", "share", [different], [MOST_DIFFERENT], "the most that is asked for"
        )
        report.add(f"10 % slower called worse, {what}", "share", [worse], [FEWEST_WORSE], "the least that is asked for")
    # a difference that lasts, of two processes that do the same, is none of chance
    for name, ratios in (("a twin", [twin for twin, _ in found]), ("10 % slower", [slow for _, slow in found])):
        values = [one.ratio.value for one in ratios]
        report.add(f"throughput of {name}, to the first", "", values, [1.0] * count, "the first")
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")


def _sleeping(shelf: Shelf, name: str, times: float) -> BenchModel:
    return shelf.python(name, f"time.sleep({MILLISECONDS * times / 1000})")


def _rows(number: int, models: Sequence[BenchModel], shelf: Shelf, bench: LocalBench) -> list[Measurement]:
    random, blocks = np.random.default_rng(number), list[BlockOrder]()
    for turn in range(TURNS):
        for at in random.permutation(len(models)):
            blocks.append(BlockOrder(len(blocks), turn, models[at].candidate, STEP, SECONDS, seed=turn))
    return list(measured(bench, shelf, order(models, Requests(shelf.golden(ROWS)), blocks))[0].measurements)


def _outcomes(models: Sequence[BenchModel], rows: Sequence[Measurement], margin: float) -> tuple[Compared, Compared]:
    """Of the throughput: what the twin and the slow one are beside the first."""
    terms = asked(LOAD, [], 0.0, SECONDS)
    first, *others = (model.candidate for model in models)
    twin, slow = (
        next(one for one in compared(terms, rows, first, other, margin) if one.name == THROUGHPUT) for other in others
    )
    return twin, slow


if __name__ == "__main__":
    main()
