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


@dataclass(frozen=True, slots=True)
class Requests:
    """What is sent: the recorded inferences of `golden`, a blob, in turns, each of `rows` rows where the model has a batch
    dimension. `sequences`: each request is a sequence of its own."""

    golden: str
    rows: int = 1
    sequences: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One load of a candidate: a single step of sweep_spec.Load. Of `find_rate`, `text` is the LOW:HIGH between which the rate
    rises during the block until the bound no longer holds; empty, the bench finds where to look while it warms up."""

    shape: Shape
    text: str
    process: str = "poisson"

    @property
    def label(self) -> str:
        return f"{self.shape.value} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """The `place`-th block of its round, counted from 0. The seed decides arrivals and the order of requests."""

    place: int
    turn: int
    candidate: str
    step: Step
    seconds: float
    seed: int


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
            "place": order.place,
            "turn": order.turn,
            "candidate": order.candidate,
            "step": {"shape": order.step.shape.value, "text": order.step.text, "process": order.step.process},
            "asked_seconds": repr(float(order.seconds)),
            "seed": order.seed,
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
        step = _object(tree["step"])
        order = BlockOrder(
            place=_int(tree["place"]),
            turn=_int(tree["turn"]),
            candidate=str(tree["candidate"]),
            step=Step(Shape(str(step["shape"])), str(step["text"]), str(step["process"])),
            seconds=float(str(tree["asked_seconds"])),
            seed=_int(tree["seed"]),
        )
        reasons, steal = tree["reasons"], tree["steal_ppm"]
        if not isinstance(reasons, list):
            raise TypeError("reasons is not a list")
        return cls(
            sweep=_int(tree["sweep"]),
            round=_int(tree["round"]),
            stage=Stage(str(tree["stage"])),
            order=order,
            verdict=Verdict(str(tree["verdict"])),
            reasons=tuple(str(reason) for reason in reasons),
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
    """One measurement for each ordered block, in that order, as far as it got; the bench's fingerprint, without steal."""

    measurements: tuple[Measurement, ...]
    failed: tuple[CandidateFailure, ...]
    fingerprint: Fingerprint

    def to_json(self) -> JsonObject:
        return {
            "measurements": [one.to_json() for one in self.measurements],
            "failed": [asdict(one) for one in self.failed],
            "fingerprint": self.fingerprint.to_json(),
        }


def _object(tree: Json) -> Mapping[str, Json]:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{str(tree)[:60]!r} is not an object")
    return tree


def _int(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{str(value)[:60]!r} is not a whole number")
    return value
