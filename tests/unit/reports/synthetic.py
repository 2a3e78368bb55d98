# Sweeps of a server that is a small queueing model: the real search, and seeded numbers instead of measurements.
"""A server answers a batch of k rows in `_FIXED + k * row` seconds; instances beyond the cores share them. Queues grow towards the
limit, delays help throughput and cost latency, blocks scatter by a few percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from clients.load.histogram import encode
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject, digest, digest_bytes
from controlplane.domain.catalog import Objective
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.sweep_answer import concluded
from controlplane.domain.sweep_compare import rates_beside
from controlplane.domain.sweep_course import Ahead, Rounds, raced, terms_of
from controlplane.domain.sweep_figures import RATE
from controlplane.domain.sweep_plan import load_of, plan
from controlplane.domain.sweep_rates import Sought, sought
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Verdict
from controlplane.domain.sweep_spec import Load, Search, Shape, SweepSpec
from controlplane.domain.sweeps import Sweep, SweepState, Taken, Trial, evidence_digest
from controlplane.reports.material import Material

BEGAN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
CORES = 2
_FIXED = 0.0009
_SPREAD = 0.35
_TO_P99 = math.exp(2.33 * _SPREAD)
_ROW = {3: 0.0011, 4: 0.0006}
"""Seconds of a row, by version: the second is quantized."""
FINGERPRINT = Fingerprint(
    Host("Example CPU @ 2.60GHz", 2, 4, 2000, "performance", 8 << 30, (), "6.8.0"),
    Serving("2.51.0", "sha256:5e1f", (("numpy", "1.26.4"), ("onnxruntime", "1.22.1"))),
    local=True,
    packages=(("grpcio", "1.76.0"), ("numpy", "2.3.4")),
    control_plane="0.1.0",
    commit="0123abc",
)


@dataclass(frozen=True, slots=True)
class Setting:
    version: int
    rows: int
    instances: int
    delay_us: int

    @property
    def parameters(self) -> JsonObject:
        return {"max_batch_size": self.rows, "instances": self.instances, "queue_delay_us": self.delay_us}

    @property
    def most(self) -> float:
        """Requests a second with the queue always full."""
        return self.steady(4 * self.rows * self.instances)[1]

    def waits(self, rate: float) -> float:
        """Mean latency in seconds at a constant rate that it can keep up."""
        busy = min(rate / self.most, 0.999)
        size = 1 + busy * (self.rows - 1)
        lasts = (_FIXED + size * _ROW[self.version]) * max(1.0, self.instances / CORES)
        return (lasts + self.delay_us / 1e6 * (1 - busy)) * (1 + busy**2 / (1 - busy) / 2)

    def holds(self, bound_ms: float) -> float:
        """The highest rate at which its p99 is below the bound, about."""
        low, high = 0.0, self.most
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.waits(middle) * _TO_P99 * 1000 <= bound_ms else (low, middle)
        return low

    def steady(self, at_once: float) -> tuple[float, float, float]:
        """Batch size, requests a second and mean latency in seconds with so many requests at once."""
        size = max(1.0, min(self.rows, at_once / self.instances))
        slower = max(1.0, self.instances / CORES) * (1 + 0.08 * (self.instances - 1))
        lasts = (_FIXED + size * _ROW[self.version]) * slower + (self.delay_us / 1e6 if size < self.rows else 0.0)
        rate = min(self.instances * size / lasts, at_once / lasts)
        return size, rate, at_once / rate


ARTIFACTS = {
    version: Manifest((FileEntry("model.onnx", 3, digest_bytes(f"weights {version}".encode())),)) for version in (3, 4)
}
SETTINGS = [
    Setting(version, rows, instances, delay)
    for version in (3, 4)
    for rows in (1, 8, 32)
    for instances in (1, 2, 4)
    for delay in ((0,) if rows == 1 else (0, 500, 2000))
]
SNAPPY = Objective("digits", "snappy", "latency_ms", "p99", "at_most", "40", "the mobile app", None)
CHEAP = Objective("digits", "cheap", "throughput", "", "at_least", "900", "operations", "1")
LADDER = Load(Shape.CONCURRENCY, "1,4,16,64")


def ladder(seed: int = 7, most: int = 14) -> Material:
    """A finished sweep over a ladder of concurrencies, with a wish."""
    return searched(SweepSpec("digits", (3, 4), load=LADDER, search=Search(seed=seed)), most, (SNAPPY, CHEAP))


def rising(seed: int = 7, most: int = 14, *, sweep: int = 12) -> Material:
    """A finished sweep as it is without a spec: for the highest rate at which a p99 holds."""
    return searched(SweepSpec("digits", (3, 4), search=Search(seed=seed)), most, (SNAPPY,), number=sweep)


def searched(
    spec: SweepSpec, most: int, objectives: tuple[Objective, ...], *, rounds: int | None = None, number: int = 12
) -> Material:
    """`rounds`: it was cancelled after so many."""
    random = np.random.default_rng(spec.search.seed)
    picked = [SETTINGS[place] for place in sorted(random.permutation(len(SETTINGS))[:most])]
    there, choice = _trials(picked, number), load_of(spec.load, objectives)
    able = [trial for trial in there if not trial.refused]
    planned = plan(spec.search, choice, len(able), beside=len(able), objectives=objectives)
    load = {**choice.load.to_json(), "finds_rate": choice.finds_rate, "reason": choice.reason}
    sweep = replace(_sweep(spec, load, planned.to_json(), objectives), id=number)
    able = able[: planned.candidates]
    kept = tuple(trial for trial in there if trial.refused or trial in able)
    known = {trial.candidate: (trial, setting) for trial, setting in zip(there, picked, strict=False)}
    terms, taken = terms_of(sweep, {}, 1 << 40), list[Taken]()
    found = Sought({})
    for _ in range(rounds if rounds is not None else 1000):
        now = raced(Rounds(terms, taken, kept), [trial.candidate for trial in able])
        ahead, asked = now.ahead, Rounds(terms, taken, kept)
        if ahead is None and terms.asked.finds_rate:
            raced(asked, [trial.candidate for trial in able])
            starts = {one.name: one.figures[RATE].value for one in now.standing.finalists if RATE in one.figures}
            found = sought(asked, starts, rates_beside(terms.asked, list(starts), [one.measurement for one in taken]))
            ahead = found.ahead
        if ahead is None:
            break
        at = taken[-1].measurement.finished_at if taken else BEGAN + timedelta(seconds=3)
        taken += [Taken(one, 1) for one in _measured(random, sweep.id, ahead, known, at)]
    else:
        cancelled = replace(
            sweep, state=SweepState.CANCELLED, message="cancelled by maria", finished_at=BEGAN + timedelta(minutes=2)
        )
        return Material(cancelled, kept, tuple(one.measurement for one in taken), {FINGERPRINT.digest: FINGERPRINT})
    blocks = tuple(one.measurement for one in taken)
    end = concluded(terms, kept, blocks, now, found if terms.asked.finds_rate else None)
    kept = tuple(_after(trial, end.fates.get(trial.number, ())) for trial in kept)
    sweep = replace(
        sweep, state=SweepState.FINISHED, answer=end.answer, message=end.message, finished_at=blocks[-1].finished_at
    )
    sweep = replace(sweep, evidence=evidence_digest(sweep, kept, blocks))
    return Material(sweep, kept, blocks, {FINGERPRINT.digest: FINGERPRINT}, "Reads a digit from a picture of 28 × 28.")


def queued(state: SweepState = SweepState.QUEUED, message: str = "") -> Material:
    """Nothing was measured yet."""
    spec = SweepSpec("digits", (3, 4), load=LADDER)
    choice = load_of(LADDER, ())
    load = {**LADDER.to_json(), "finds_rate": False, "reason": "as the spec says"}
    sweep = _sweep(spec, load, plan(spec.search, choice, 3, beside=3).to_json(), ())
    return Material(replace(sweep, state=state, message=message), _trials(SETTINGS[:3]), ())


def _trials(settings: Sequence[Setting], sweep: int = 12) -> tuple[Trial, ...]:
    """The first is the base, the last cannot be loaded; two more are refused."""
    ways: list[JsonObject] = [setting.parameters for setting in settings]
    ways[-1] = {"instances": 2, "accelerator": "openvino"}
    found = []
    for number, (setting, parameters) in enumerate(zip(settings, ways, strict=True), 1):
        config: JsonObject = {"name": "digits", **parameters}
        candidate = digest({"version": setting.version, "config": config})
        artifact = ARTIFACTS[setting.version].digest
        found.append(
            Trial(
                sweep,
                number,
                candidate,
                setting.version,
                artifact,
                config,
                digest(config),
                parameters,
                base=number == 1,
            )
        )
    why = (
        ("8 instances of 3 threads are 24 threads on 2 cores, over twice as many",),
        ("requests of 4 rows do not fit into max_batch_size 1", "use 4 or more"),
    )
    refused = [
        replace(found[0], number=len(found) + place, candidate=digest(["refused", place]), base=False, config=None,
                refused=why_not, parameters={"instances": 8, "threads": 2 + place})
        for place, why_not in enumerate(why, 1)
    ]  # fmt: skip
    return (*found, *refused)


def _after(trial: Trial, fates: tuple[JsonObject, ...]) -> Trial:
    failed = _broken(trial)
    log = "E1120 backend.cc:77] OpenVINO is not there\n" if failed else ""
    return replace(trial, fates=fates, failure=_GONE if failed else "", log=log)


_GONE = "it could not be loaded: OpenVINO is not there"


def _broken(trial: Trial) -> bool:
    return trial.parameters.get("accelerator") == "openvino"


def _sweep(spec: SweepSpec, load: JsonObject, planned: JsonObject, objectives: tuple[Objective, ...]) -> Sweep:
    return Sweep(
        id=12,
        model="digits",
        spec=spec.to_json(),
        spec_digest=spec.digest,
        space={
            "choices": "54",
            "reasons": [
                {"path": "instance_group[0].count", "sentence": "1, 2 and 4: beyond the 2 cores they only take turns"},
                {"path": "dynamic_batching.max_queue_delay_microseconds", "sentence": "0, 500 and 2000, as the spec says"},
            ],
        },
        load=load,
        plan=planned,
        objectives=tuple({name: getattr(one, name) for name in Objective.__dataclass_fields__} for one in objectives),
        state=SweepState.RUNNING,
        started_by="maria",
        created_at=BEGAN,
        environment="prod",
        base_revision=5,
        began_at=BEGAN + timedelta(seconds=2),
    )  # fmt: skip


def _measured(
    random: np.random.Generator, sweep: int, ahead: Ahead, known: dict[str, tuple[Trial, Setting]], at: datetime
) -> list[Measurement]:
    found = []
    for order in ahead.blocks:
        trial, setting = known[order.candidate]
        at += timedelta(seconds=0.3)
        found.append(_block(random, Place(sweep, ahead.number, ahead.stage, order, at), trial, setting))
        at = found[-1].finished_at
    return found


@dataclass(frozen=True, slots=True)
class Place:
    sweep: int
    round: int
    stage: Stage
    order: BlockOrder
    at: datetime


def _block(random: np.random.Generator, place: Place, trial: Trial, setting: Setting) -> Measurement:
    order, step = place.order, place.order.step
    row = Measurement(
        place.sweep, place.round, place.stage, order, Verdict.NOT_MEASURED, (), place.at, place.at, failure=_GONE,
        fingerprint=FINGERPRINT.digest,
    )  # fmt: skip
    if _broken(trial):
        return row
    drift = math.exp(random.normal(0, 0.03))
    figures, verdict = {}, Verdict.VALID
    if step.shape is Shape.FIND_RATE:
        figures = {RATE: setting.holds(float(SNAPPY.bound)) * drift}
        rate = figures[RATE]
        size, latency = 1 + rate / setting.most * (setting.rows - 1), setting.waits(rate)
    elif step.shape is Shape.RATE:
        rate = min(float(step.text), setting.most)
        verdict = Verdict.VALID if float(step.text) <= setting.most else Verdict.UNSTABLE
        size, latency = 1 + rate / setting.most * (setting.rows - 1), setting.waits(rate) / drift
    else:
        size, rate, latency = setting.steady(float(step.text))
        rate, latency = rate * drift, latency / drift
    answers = max(int(rate * order.seconds), 20)
    values = latency * np.exp(random.normal(-(_SPREAD**2) / 2, _SPREAD, answers))
    values += (random.random(answers) < 0.004) * random.exponential(2 * latency, answers)
    if not figures:
        figures = {
            f"latency_ms p{percent}": float(np.quantile(values, percent / 100)) * 1000 for percent in (50, 90, 95, 99)
        }
        figures["throughput"] = answers / order.seconds
    ns = np.array(values * 1e9, np.int64)
    total, service = float(ns.mean()), (_FIXED + size * _ROW[setting.version]) * 1e9
    queue = max(total - service, total * 0.05)
    whole, more, executions = int(size), size - int(size), max(int(answers / size), 1)
    shares = ((whole, 0.9 * (1 - more)), (whole + 1, 0.9 * more), (1, 0.1))
    batches: dict[int, int] = {}
    for rows, share in shares:
        if count := int(executions * share):
            batches[rows] = batches.get(rows, 0) + count
    server = {
        "succeeded": answers, "failed": 0, "inferences": answers, "executions": executions, "cache_hits": 0,
        "total_ns": int(total) * answers, "queue_ns": int(queue) * answers, "input_ns": 60_000 * answers,
        "infer_ns": int(max(total - queue - 200_000, 1)) * answers, "output_ns": 40_000 * answers,
    }  # fmt: skip
    return replace(
        row, verdict=verdict, failure="", finished_at=place.at + timedelta(seconds=order.seconds), seconds=order.seconds,
        offered=answers, sent=answers, completed=answers, figures=figures, histogram=encode(ns), histogram_sent=encode(ns),
        server=server, batches=batches, transport="grpc", steal_ppm=1200,
    )  # fmt: skip
