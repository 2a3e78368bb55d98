# Sweeps, trials, measurements and comparisons on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject, Request


@dataclass(frozen=True, slots=True)
class NewSweep(Request):
    """`model` is NAME or NAME:VERSION,…; `spec` is YAML or JSON as text. What both say must agree on the model; versions, `seed`
    and `seconds` beside the text go before it. `bench` is the address of a server that stands ready for this; None is
    one of our own."""

    model: str = ""
    spec: str = ""
    environment: str | None = None
    """Whose current config is the base; None: the configs are generated."""
    bench: str | None = None
    seed: int | None = None
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class NewTrialProposal(Request):
    """`trial` None is the one that the answer chose. What is not said in words the answer says."""

    environment: str
    trial: int | None = None
    reason: str = ""
    hypothesis: str = ""
    expected_effect: str = ""
    acknowledge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewReplay(Request):
    """`capsule` is the digest of a capsule's document, uploaded before, as is what it needs and the store does not hold. `model` is what the
    new sweep is called by; None: as in the capsule. `bench` as for a sweep."""

    capsule: str
    bench: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """`progress` is what is known so far: stage, blocks done and ordered, seconds left, the leader. `chosen` is the trial that
    the answer is for, once there is one."""

    id: int
    model: str
    state: str
    message: str
    started_by: str
    created_at: str
    began_at: str | None
    finished_at: str | None
    environment: str | None
    bench: str
    progress: JsonObject
    chosen: str | None


@dataclass(frozen=True, slots=True)
class SweepView:
    """`spec` is what was asked for, `space` what that means, `load` under which load and why, `plan` the stages and the
    estimate. `answer` and `evidence` are null until the end."""

    id: int
    model: str
    spec: JsonObject
    spec_digest: str
    space: JsonObject
    load: JsonObject
    plan: JsonObject
    objectives: tuple[JsonObject, ...]
    state: str
    started_by: str
    created_at: str
    environment: str | None
    base_revision: int | None
    bench: str
    began_at: str | None
    finished_at: str | None
    progress: JsonObject
    message: str
    answer: JsonObject | None
    evidence: str | None


@dataclass(frozen=True, slots=True)
class FigureView:
    """`low` to `high` is the interval, null where it has no end."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TrialView:
    """One candidate. `refused` says why it was not tried, `failure` why it could not be measured, with the end of the server's
    `log`. `fates` are what the search decided, in order; `figures` are of the last look, `blocks` how many were measured."""

    sweep: int
    number: int
    name: str
    candidate: str
    version: int
    artifact: str
    config: JsonObject | None
    config_digest: str
    parameters: JsonObject
    base: bool
    refused: tuple[str, ...]
    failure: str
    log: str
    fates: tuple[JsonObject, ...]
    figures: tuple[FigureView, ...]
    blocks: int


@dataclass(frozen=True, slots=True)
class MeasurementView:
    """One block. Histograms are HdrHistogram's V2 encoding in ns, from when a request was due and from when it was sent; they are
    null unless asked for. `server` are sums of the server's own statistics, `batches` executions by batch size."""

    sweep: int
    trial: int
    round: int
    stage: str
    place: int
    turn: int
    step: JsonObject
    asked_seconds: float
    seed: int
    verdict: str
    reasons: tuple[str, ...]
    started_at: str
    finished_at: str
    seconds: float
    offered: int
    sent: int
    completed: int
    failed: int
    late: int
    failure: str
    figures: JsonObject
    histogram: str | None
    histogram_sent: str | None
    server: JsonObject
    batches: JsonObject
    transport: str
    steal_ppm: int | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FingerprintsView:
    """By digest, as measurements name them: the machine, what served, and the packages of whoever measured."""

    fingerprints: JsonObject


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a sweep would do, not started. `trials` are the candidates and the refused choices."""

    model: str
    spec: JsonObject
    spec_digest: str
    space: JsonObject
    load: JsonObject
    plan: JsonObject
    objectives: tuple[JsonObject, ...]
    environment: str | None
    base_revision: int | None
    bench: str
    trials: tuple[TrialView, ...]


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """`ratio` is the second trial's over the first's, null where there is none; `outcome` of the second: better, worse, no difference
    shown or inconclusive."""

    name: str
    ratio: float | None
    low: float | None
    high: float | None
    outcome: str
    pairs: int


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """Trial `other` beside trial `one`, by blocks of the same turns. `margin` is the share by which they may differ without
    mattering."""

    sweep: int
    one: int
    other: int
    margin: float
    figures: tuple[ComparedFigure, ...]
