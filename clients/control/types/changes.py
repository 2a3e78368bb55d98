# Change requests, plans and votes on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject, Request
from clients.control.types.catalog import File
from clients.control.types.environments import VersionRef


@dataclass(frozen=True, slots=True)
class NewChange(Request):
    """`versions` None keeps what is deployed; `config` replaces the whole config; `sets` and `unsets` are applied to it."""

    environment: str
    model: str
    reason: str
    hypothesis: str = ""
    expected_effect: str = ""
    versions: tuple[int, ...] | None = None
    config: str | None = None
    """config.pbtxt as text."""
    generate: bool = False
    """A config made from the highest version."""
    beside: tuple[File, ...] | None = None
    """All files that lie beside the config, uploaded before; None keeps what is deployed."""
    adopted_from: str = ""
    """The directory that an adoption describes."""
    sets: tuple[tuple[str, str], ...] = ()
    unsets: tuple[str, ...] = ()
    undeploy: bool = False
    from_environment: str | None = None
    reconcile: bool = False
    acknowledge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vote(Request):
    """`plan` is the digest of the plan that was looked at."""

    plan: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Application(Request):
    """`break_glass` is the justification for applying without approvals and gates."""

    break_glass: str | None = None


@dataclass(frozen=True, slots=True)
class Resumption(Request):
    """`decision` is `retry`, `accept`, `undo` or `restart`."""

    decision: str


@dataclass(frozen=True, slots=True)
class Comment(Request):
    comment: str


@dataclass(frozen=True, slots=True)
class NewRollback(Request):
    """`to` None is the revision before the current one."""

    reason: str
    to: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    name: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The trial of a sweep that a change rests on. `config` and `objectives` are digests, `rows` the sweep's evidence digest.
    `figures` have the value and both ends of the interval, as text; `findings` say what was measured of each hard objective, `load` at which load.
    `fingerprint` is null where the trial was measured in more than one class of environment."""

    digest: str
    sweep: int
    trial: int
    candidate: str
    version: int
    artifact: str
    config: str
    objectives: str
    rows: str
    fingerprint: JsonObject | None
    measured_at: str
    figures: JsonObject
    findings: tuple[JsonObject, ...]
    load: str


@dataclass(frozen=True, slots=True)
class Plan:
    number: int
    digest: str
    base_revision: int
    base_digest: str
    desired_digest: str
    versions: tuple[VersionRef, ...]
    config: JsonObject | None
    beside: tuple[File, ...]
    reload_class: str
    policy: JsonObject
    diff: tuple[JsonObject, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]
    made_by: str
    made_at: str
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    plan_digest: str
    principal: str
    comment: str
    at: str


@dataclass(frozen=True, slots=True)
class Blocker:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    server: str
    direction: str
    effect: str
    version: int | None
    because: str
    started_at: str
    finished_at: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """A latency gate judged on one server. `seen` are the numbers, times in µs: the percentile (`value_us`) with its interval
    (`low_us` to `high_us`, null where the samples cannot tell), how many requests were `offered` and `answered`, the
    generator's verdict and its calibration."""

    server: str
    version: int
    gate: JsonObject
    outcome: str
    reason: str
    seen: JsonObject
    started_at: str
    finished_at: str


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    id: int
    environment: str
    model: str
    kind: str
    state: str
    reason: str
    hypothesis: str
    expected_effect: str
    author: str
    last_editor: str
    created_at: str
    expires_at: str
    plan_number: int
    break_glass: str | None
    review: str
    message: str
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The revision that a rollback goes back to. `accepted_at` is None at revision 0, which is nothing."""

    revision: int
    accepted_at: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """`target` is where a rollback goes. `direction` is `forward` or `back` while it is being applied. `counted` are the approvals that count now, of `needed`; it may be applied when `blockers` is empty."""

    summary: ChangeSummary
    plan: Plan
    target: RollbackTarget | None
    direction: str | None
    approvals: tuple[Approval, ...]
    counted: tuple[str, ...]
    needed: int
    blockers: tuple[Blocker, ...]
    journal: tuple[JournalEntry, ...]
    latency: tuple[LatencyMeasurement, ...]
    proofs: tuple[JsonObject, ...]
