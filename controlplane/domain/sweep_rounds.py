# What a bench is asked to measure, and what it answers: all that passes between the search and whoever measures.
"""A round needs no database: artifacts are fetched by digest, and everything here goes through JSON to another machine and back.
Numbers with a fraction go as their shortest text, so that digests are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from controlplane.domain.artifacts import Manifest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.times import format_instant, parse_instant

SCRATCH = "sweep-"
"""How the names of scratch models begin; no registered model of this bench is touched."""


class Stage(StrEnum):
    """Why a block is measured."""

    RACE = "race"
    CONFIRM = "confirm"
    RATE = "rate"
    COMPARE = "compare"


class Verdict(StrEnum):
    """Of one block, in the load generator's words; `not_measured`: the candidate could not be loaded or went away."""

    VALID = "valid"
    UNSTABLE = "unstable"
    CLIENT_LIMITED = "client_limited"
    TOO_FEW_SAMPLES = "too_few_samples"
    ERRORS = "errors"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One candidate as a bench loads it. `candidate` is its digest; `config` the codec's normal form under the model's own name,
    without version policy; `manifest` has the version's files, `beside` those beside the config."""

    candidate: str
    version: int
    config: JsonObject
    manifest: Manifest
    beside: Manifest = field(default_factory=lambda: Manifest(()))

    @property
    def scratch_name(self) -> str:
        return SCRATCH + self.candidate.removeprefix("sha256:")[:16]

    def to_json(self) -> JsonObject:
        return {
            "candidate": self.candidate,
            "version": self.version,
            "config": self.config,
            "manifest": self.manifest.to_json(),
            "beside": self.beside.to_json(),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> BenchModel:
        """As of all here: of what `to_json` made. Raises KeyError, TypeError, ValueError or ArtifactInvalid for anything else."""
        return cls(
            str(tree["candidate"]),
            _int(tree["version"]),
            dict(_object(tree["config"])),
            Manifest.from_json(dict(_object(tree["manifest"]))),
            Manifest.from_json(dict(_object(tree["beside"]))),
        )


@dataclass(frozen=True, slots=True)
class Requests:
    """What is sent: the recorded inferences of `golden`, a blob, in turns, each of `rows` rows where the model has a batch
    dimension. `sequences`: each request is a sequence of its own."""

    golden: str
    rows: int = 1
    sequences: bool = False

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Requests:
        return cls(str(tree["golden"]), _int(tree["rows"]), _flag(tree["sequences"]))


@dataclass(frozen=True, slots=True)
class Step:
    """One load of a candidate: a single step of sweep_spec.Load. Of `find_rate`, `text` is the LOW:HIGH between which the rate
    rises during the block until the bound no longer holds; empty, the bench keeps as many in flight as the bound allows."""

    shape: Shape
    text: str
    process: str = "poisson"

    @property
    def label(self) -> str:
        return f"{self.shape.value} {self.text}".strip()

    def to_json(self) -> JsonObject:
        return {"shape": self.shape.value, "text": self.text, "process": self.process}

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Step:
        return cls(Shape(str(tree["shape"])), str(tree["text"]), str(tree["process"]))


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """The `place`-th block of its round, counted from 0. The seed decides arrivals and the order of requests."""

    place: int
    turn: int
    candidate: str
    step: Step
    seconds: float
    seed: int

    def to_json(self) -> JsonObject:
        return {
            "place": self.place,
            "turn": self.turn,
            "candidate": self.candidate,
            "step": self.step.to_json(),
            "asked_seconds": repr(float(self.seconds)),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> BlockOrder:
        return cls(
            place=_int(tree["place"]),
            turn=_int(tree["turn"]),
            candidate=str(tree["candidate"]),
            step=Step.from_json(_object(tree["step"])),
            seconds=float(str(tree["asked_seconds"])),
            seed=_int(tree["seed"]),
        )


@dataclass(frozen=True, slots=True)
class RoundOrder:
    """Blocks in the order in which they are measured, on one server, all `models` loaded beside each other. `percent` and
    `bound_ms`: the latency that a rate is to hold, None without one; percentiles that objectives name are in `percents`."""

    sweep: int
    number: int
    stage: Stage
    models: tuple[BenchModel, ...]
    requests: Mapping[int, Requests]
    blocks: tuple[BlockOrder, ...]
    percents: tuple[float, ...] = (50.0, 90.0, 95.0, 99.0)
    percent: float | None = None
    bound_ms: float | None = None

    def to_json(self) -> JsonObject:
        return {
            "sweep": self.sweep,
            "number": self.number,
            "stage": self.stage.value,
            "models": [model.to_json() for model in self.models],
            "requests": {str(version): asked.to_json() for version, asked in sorted(self.requests.items())},
            "blocks": [block.to_json() for block in self.blocks],
            "percents": [repr(float(percent)) for percent in self.percents],
            "percent": None if self.percent is None else repr(float(self.percent)),
            "bound_ms": None if self.bound_ms is None else repr(float(self.bound_ms)),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> RoundOrder:
        percent, bound = tree["percent"], tree["bound_ms"]
        return cls(
            sweep=_int(tree["sweep"]),
            number=_int(tree["number"]),
            stage=Stage(str(tree["stage"])),
            models=tuple(BenchModel.from_json(_object(model)) for model in _list(tree["models"])),
            requests={int(key): Requests.from_json(_object(one)) for key, one in _object(tree["requests"]).items()},
            blocks=tuple(BlockOrder.from_json(_object(block)) for block in _list(tree["blocks"])),
            percents=tuple(float(str(one)) for one in _list(tree["percents"])),
            percent=None if percent is None else float(str(percent)),
            bound_ms=None if bound is None else float(str(bound)),
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """One block of one candidate, measured or not: every ordered block has one. `figures` are by the names that objectives use
    (`throughput` in requests a second, `latency_ms p99`, `sustainable_rate`); what could not be told is left out. Histograms are
    HdrHistogram's V2 encoding, in ns: from when a request was due, and from when it was sent. `server` are sums of the server's own
    statistics in ns and counts, by the names of clients.load.server.Shares; `batches` executions by batch size."""

    sweep: int
    round: int
    stage: Stage
    order: BlockOrder
    verdict: Verdict
    reasons: tuple[str, ...]
    started_at: datetime
    finished_at: datetime
    seconds: float = 0.0
    offered: int = 0
    sent: int = 0
    completed: int = 0
    failed: int = 0
    late: int = 0
    failure: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    histogram: str = ""
    histogram_sent: str = ""
    server: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[int, int] = field(default_factory=dict)
    transport: str = ""
    steal_ppm: int | None = None
    fingerprint: str = ""
    """The digest of the one that the round was measured under, without its steal."""

    def to_json(self) -> JsonObject:
        """As it is kept, exported and digested."""
        order = self.order
        return {
            "sweep": self.sweep,
            "round": self.round,
            "stage": self.stage.value,
            **order.to_json(),
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "started_at": format_instant(self.started_at),
            "finished_at": format_instant(self.finished_at),
            "seconds": repr(float(self.seconds)),
            "offered": self.offered,
            "sent": self.sent,
            "completed": self.completed,
            "failed": self.failed,
            "late": self.late,
            "failure": self.failure,
            "figures": {name: repr(float(value)) for name, value in sorted(self.figures.items())},
            "histogram": self.histogram,
            "histogram_sent": self.histogram_sent,
            "server": {name: str(value) for name, value in sorted(self.server.items())},
            "batches": {str(size): str(count) for size, count in sorted(self.batches.items())},
            "transport": self.transport,
            "steal_ppm": self.steal_ppm,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> Measurement:
        """Of what `to_json` made. Raises KeyError, TypeError or ValueError for anything else."""
        steal = tree["steal_ppm"]
        return cls(
            sweep=_int(tree["sweep"]),
            round=_int(tree["round"]),
            stage=Stage(str(tree["stage"])),
            order=BlockOrder.from_json(tree),
            verdict=Verdict(str(tree["verdict"])),
            reasons=tuple(str(reason) for reason in _list(tree["reasons"])),
            started_at=parse_instant(str(tree["started_at"])),
            finished_at=parse_instant(str(tree["finished_at"])),
            seconds=float(str(tree["seconds"])),
            offered=_int(tree["offered"]),
            sent=_int(tree["sent"]),
            completed=_int(tree["completed"]),
            failed=_int(tree["failed"]),
            late=_int(tree["late"]),
            failure=str(tree["failure"]),
            figures={name: float(str(value)) for name, value in _object(tree["figures"]).items()},
            histogram=str(tree["histogram"]),
            histogram_sent=str(tree["histogram_sent"]),
            server={name: int(str(value)) for name, value in _object(tree["server"]).items()},
            batches={int(size): int(str(count)) for size, count in _object(tree["batches"]).items()},
            transport=str(tree["transport"]),
            steal_ppm=None if steal is None else _int(steal),
            fingerprint=str(tree["fingerprint"]),
        )


@dataclass(frozen=True, slots=True)
class CandidateFailure:
    """A candidate that cannot be measured on: what Triton said, and the end of its log from the moment it was tried."""

    candidate: str
    reason: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One measurement for each ordered block, in that order, as far as it got; the bench's fingerprint, without steal. `also` are those of
    other hosts of the same class that measured some of its turns."""

    measurements: tuple[Measurement, ...]
    failed: tuple[CandidateFailure, ...]
    fingerprint: Fingerprint
    also: tuple[Fingerprint, ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "measurements": [one.to_json() for one in self.measurements],
            "failed": [asdict(one) for one in self.failed],
            "fingerprint": self.fingerprint.to_json(),
            "also": [one.to_json() for one in self.also],
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Json]) -> RoundResult:
        failed = [_object(one) for one in _list(tree["failed"])]
        return cls(
            tuple(Measurement.from_json(_object(one)) for one in _list(tree["measurements"])),
            tuple(CandidateFailure(str(one["candidate"]), str(one["reason"]), str(one["log"])) for one in failed),
            Fingerprint.from_json(tree["fingerprint"]),
            tuple(map(Fingerprint.from_json, _list(tree["also"]))),
        )


def _object(tree: Json) -> Mapping[str, Json]:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{str(tree)[:60]!r} is not an object")
    return tree


def _list(tree: Json) -> list[Json]:
    if not isinstance(tree, list):
        raise TypeError(f"{str(tree)[:60]!r} is not a list")
    return tree


def _flag(value: Json) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{str(value)[:60]!r} is not true or false")
    return value


def _int(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{str(value)[:60]!r} is not a whole number")
    return value
