# Sweep acceptance 1 and 2: suite `sweep`, how long a default sweep takes, and what its recommendation is worth beside an exhaustive one.
"""`python -m tests.bench.sweep --seeds 10 --reference-seconds 1800` is what the acceptance asks for, and takes over an hour; without
options it is one seed beside a shorter reference. Every recommendation, and the base config, is measured again beside the reference's winner: each is
bisected to the highest rate at which p99 holds, all by turns, again and again, and ratios are taken within a repeat."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from controlplane.bench.rounds import embedded_bench
from controlplane.demo import digits
from controlplane.domain.access import Principal
from controlplane.domain.artifacts import Manifest
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_course import terms_of
from controlplane.domain.sweep_figures import LATENCY
from controlplane.domain.sweep_rates import held
from controlplane.domain.sweep_rounds import BenchModel, BlockOrder, Measurement, Requests, RoundOrder, Stage, Step
from controlplane.domain.sweep_spec import Method, Search, Shape, SweepSpec
from controlplane.domain.sweeps import ACTIVE, Sweep, SweepState, Trial
from controlplane.services.catalog import Registration
from controlplane.services.rooms import Services
from controlplane.services.sweep_drafts import Material, material
from controlplane.settings import Settings, load_settings
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.install import install as install_runtime
from controlplane.wiring import SystemClock, build_services, build_worker, open_artifacts
from tests.bench.report import ROOT, Report

MODEL = "digits"
BOUND_MS = 20
_LONGEST = 180.0
"""Acceptance 1: a default sweep ends in so many seconds."""
_BLOCK_SECONDS = 3.0
_LOWEST, _HIGHEST = 100.0, 6400.0
_HALVINGS = 8
_WITHIN = 0.95


@dataclass
class House:
    """An installation without environments: what sweeps need, a worker in a process of its own included."""

    settings: Settings
    storage: Storage
    services: Services
    admin: Principal

    def register(self) -> None:
        artifacts = open_artifacts(self.settings)
        entry = artifacts.add_file(digits.MLP, "model.onnx")
        samples = self.settings.home / "samples.npz"
        np.savez(samples, image=digits.load().images[:8])
        blob = artifacts.add_file(samples, "samples.npz")
        wish = Registration(MODEL, Manifest((entry,)), None, samples=blob.sha256)
        self.services.catalog.register_version(self.admin, wish)
        fast = Objective(MODEL, "fast", LATENCY, "p99", "at_most", str(BOUND_MS), "product", None)
        self.services.catalog.set_objective(self.admin, fast)

    def sweep(self, search: Search) -> Sweep:
        sweep = self.services.sweeps.start(self.admin, SweepSpec(MODEL, search=search))
        while (found := self.services.sweeps.get(self.admin, sweep.id)).state in ACTIVE:
            time.sleep(0.5)
        assert found.state is SweepState.FINISHED, found.message
        return found

    def chosen(self, sweep: Sweep) -> Trial | None:
        """None where the sweep chose nothing."""
        assert sweep.answer is not None
        name = sweep.answer["chosen"]
        seen = self.services.sweeps.trials(self.admin, sweep.id)
        return next((one.trial for one in seen if one.trial.name == name), None)

    def material(self, sweep: Sweep) -> Material:
        with self.storage.read() as unit:
            return material(unit, sweep)


@click.command()
@click.option("--seeds", default=1, show_default=True, help="Default sweeps, each with its own seed.")
@click.option("--reference-seconds", default=420, show_default=True, help="The time of the exhaustive reference.")
@click.option("--repeats", default=3, show_default=True, help="How often all are bisected at the end.")
def main(seeds: int, reference_seconds: int, repeats: int) -> None:
    begin = time.monotonic()
    report = Report("sweep")
    runtime = Path(os.environ.get("TRITONCTL_TEST_RUNTIME") or ROOT / "build" / "runtime")
    install_runtime(runtime, progress=lambda words, _share: print(words, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="tritonctl-bench-") as name, _house(Path(name), runtime) as house:
        house.register()
        reference = house.sweep(Search(Method.EXHAUSTIVE, seconds=reference_seconds, candidates=10_000))
        best = house.chosen(reference)
        if best is None:
            report.unproven("recommended rate", "1/s", f"the reference found nothing: {reference.message}")
        else:
            chosen = [_default(report, house, seed) for seed in range(1, seeds + 1)]
            base = next(one.trial for one in house.services.sweeps.trials(house.admin, reference.id) if one.trial.base)
            found = [one for one in chosen if one is not None]
            _again(report, house, reference, best=best, chosen=found, base=base, repeats=repeats)
    _rival(report)
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")


def _default(report: Report, house: House, seed: int) -> Trial | None:
    began = time.monotonic()
    sweep = house.sweep(Search(seed=seed))
    report.add(f"default sweep, seed {seed}", "s", [time.monotonic() - began], [_LONGEST], "the most that it may take")
    trial = house.chosen(sweep)
    if trial is None:
        report.unproven(f"recommended rate, seed {seed}", "1/s", sweep.message)
    return trial


def _again(
    report: Report, house: House, sweep: Sweep, *, best: Trial, chosen: Sequence[Trial], base: Trial, repeats: int
) -> None:
    """The recommendations and the base config beside the winner. Equal configs are measured once."""
    trials = {one.candidate: one for one in (best, base, *chosen)}
    found = _bisected(house, sweep, list(trials.values()), repeats)
    theirs = [rates for rates, _ in found[best.candidate]]
    near = 0
    for one in chosen:
        own = [rate for rate, _ in found[one.candidate]]
        report.add(f"rate of {_said(one)}", "1/s", own, theirs, "the exhaustive winner, by turns")
        near += float(np.median([mine / rate for mine, rate in zip(own, theirs, strict=True)])) >= _WITHIN
    report.figure(f"of {len(chosen)} seeds within 5 % of the exhaustive winner", "", near)
    own = [rate for rate, _ in found[base.candidate]]
    report.add("rate of the base config", "1/s", own, theirs, "the exhaustive winner, by turns")
    holds = [good for one in chosen for _, good in found[one.candidate]]
    if holds:
        report.figure("share of re-measurements in which p99 held at the rate found", "", sum(holds) / len(holds))


def _bisected(house: House, sweep: Sweep, trials: Sequence[Trial], repeats: int) -> dict[str, list[tuple[float, bool]]]:
    """By candidate and repeat: the highest rate that held, and whether it held once more."""
    what, asked = house.material(sweep), terms_of(sweep, {}, 0).asked
    found: dict[str, list[tuple[float, bool]]] = {one.candidate: [] for one in trials}
    random, store, number = np.random.default_rng(7), open_artifacts(house.settings), 0
    runtime = find(house.settings.runtime_dir, house.settings.tritonserver)
    with embedded_bench(house.settings.home / "again", runtime) as bench:

        def block_each(rates: dict[str, float]) -> dict[str, Measurement]:
            nonlocal number
            number += 1
            names = [list(rates)[one] for one in random.permutation(len(rates))]
            blocks = [
                BlockOrder(place, 0, name, Step(Shape.RATE, f"{rates[name]:.1f}"), _BLOCK_SECONDS, number)
                for place, name in enumerate(names)
            ]
            order = _order(number, trials, what, tuple(blocks))
            taken = bench.measure(order, store, done=lambda _: None, go_on=lambda: None).measurements
            return {one.order.candidate: one for one in taken}

        for _ in range(repeats):
            low, high = dict.fromkeys(found, _LOWEST), dict.fromkeys(found, _HIGHEST)
            for _ in range(_HALVINGS):
                rates = {name: math.sqrt(low[name] * high[name]) for name in found}
                for name, one in block_each(rates).items():
                    (low if held(one, asked.objectives) else high)[name] = rates[name]
            for name, one in block_each(low).items():
                found[name].append((low[name], held(one, asked.objectives)))
    return found


def _order(number: int, trials: Sequence[Trial], what: Material, blocks: tuple[BlockOrder, ...]) -> RoundOrder:
    models = tuple(
        BenchModel(one.candidate, one.version, one.config or {}, what.manifests[one.version]) for one in trials
    )
    requests: dict[int, Requests] = {one.version: what.requests[one.version] for one in trials}
    return RoundOrder(0, number, Stage.COMPARE, models, requests, blocks, percent=99.0, bound_ms=float(BOUND_MS))


def _said(trial: Trial) -> str:
    return ", ".join(f"{name} {value}" for name, value in trial.parameters.items()) or "the base config"


def _rival(report: Report) -> None:
    missing = [name for name in ("model-analyzer", "perf_analyzer") if shutil.which(name) is None]
    why = f"{' and '.join(missing)} not on the path" if missing else "comparing with it is not written yet"
    report.unproven("seconds to the recommendation beside Model Analyzer's", "s", why)


@contextmanager
def _house(home: Path, runtime: Path) -> Iterator[House]:
    (home / "runtime").symlink_to(runtime.absolute())
    settings = load_settings(home=home)
    database = create_database(settings.database_url)
    upgrade(database)
    storage = Storage(database, SystemClock().now)
    services = build_services(settings, storage)
    admin, _ = services.access.bootstrap("admin", None)
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(settings,), daemon=False)
    worker.start()
    try:
        yield House(settings, storage, services, admin)
    finally:
        worker.terminate()
        worker.join()
        database.close()


def _work(settings: Settings) -> None:
    storage = Storage(create_database(settings.database_url), SystemClock().now)
    build_worker(settings, storage, name="bench").run(threading.Event())


if __name__ == "__main__":
    main()
