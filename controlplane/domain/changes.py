# Change requests, plans and approvals; the table of legal transitions.
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.domain.environments import Direction, RevisionContent
from controlplane.domain.evidence import Evidence
from controlplane.errors import TransitionIllegal


class ChangeState(StrEnum):
    """What is stored. Approved, stale and blocked are what `blockers` says, never stored."""

    OPEN = "open"
    APPLYING = "applying"
    PAUSED = "paused"
    UNDOING = "undoing"
    STUCK = "stuck"
    APPLIED = "applied"
    UNDONE = "undone"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


_S = ChangeState
TRANSITIONS: dict[ChangeState, frozenset[ChangeState]] = {
    _S.OPEN: frozenset({_S.APPLYING, _S.REJECTED, _S.WITHDRAWN, _S.EXPIRED}),
    _S.APPLYING: frozenset({_S.APPLIED, _S.PAUSED, _S.UNDOING, _S.STUCK, _S.UNDONE}),
    _S.PAUSED: frozenset({_S.APPLYING, _S.APPLIED, _S.UNDOING, _S.UNDONE}),
    _S.UNDOING: frozenset({_S.UNDONE, _S.STUCK}),
    _S.STUCK: frozenset({_S.APPLYING, _S.UNDOING, _S.UNDONE}),
    _S.APPLIED: frozenset(),
    _S.UNDONE: frozenset(),
    _S.REJECTED: frozenset(),
    _S.WITHDRAWN: frozenset(),
    _S.EXPIRED: frozenset(),
}
ACTIVE = frozenset({_S.APPLYING, _S.PAUSED, _S.UNDOING, _S.STUCK})


def check_transition(change: int, old: ChangeState, new: ChangeState) -> None:
    """Raises TransitionIllegal when the table does not have it."""
    if new not in TRANSITIONS[old]:
        never = f": it cannot become {new.value}" if new is not old else " already"
        raise TransitionIllegal(
            f"change {change} is {old.value}{never}",
            hint=f"tritonctl change show {change}",
            details={"change": change, "state": old.value},
        )


class ChangeKind(StrEnum):
    CHANGE = "change"
    ROLLBACK = "rollback"  # desired is an earlier revision
    RECONCILE = "reconcile"  # desired is the current revision, because something else was observed


class ReviewState(StrEnum):
    """Break-glass opens a review that someone else must close."""

    NONE = "none"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class GateResult:
    name: str
    outcome: str  # passed | failed | inconclusive | error | later: judged after the load
    message: str

    def to_json(self) -> JsonObject:
        return {"name": self.name, "outcome": self.outcome, "message": self.message}


@dataclass(frozen=True)  # no slots: the digest is kept
class Plan:
    """The exact work that is approved. `diff` and `gates` explain it and are not part of its digest.

    What the digest covers: reason, what is acknowledged, target selector and wave rule, base and desired revision digests, reload class, gate
    definitions, digests of evidence, and the policy clauses that apply.
    """

    change: int
    number: int
    base_revision: int
    base_digest: str
    desired: RevisionContent
    reason: str
    kind: ChangeKind
    reload_class: str
    clauses: JsonObject
    diff: tuple[JsonObject, ...]
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    made_by: str
    made_at: datetime
    acknowledged: tuple[str, ...] = ()
    """Codes of blockers that the author knows of: the approvers see them, and the digest covers them."""
    evidence: Evidence | None = None

    @cached_property
    def digest(self) -> str:
        gates: list[Json] = [gate.name for gate in self.gates]
        return digest(
            {
                "schema": 1,
                "kind": self.kind.value,
                "reason": self.reason,
                "targets": {"selector": "all", "wave": "one"},
                "base": {"revision": self.base_revision, "digest": self.base_digest},
                "desired": self.desired.digest,
                "reload_class": self.reload_class,
                "gates": gates,
                "evidence": [] if self.evidence is None else [self.evidence.digest],
                "policy": self.clauses,
                "acknowledged": list(self.acknowledged),
            }
        )


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The revision that a rollback goes back to. `accepted_at` is None at revision 0, which is nothing."""

    revision: int
    accepted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Approval:
    """Consent (or its refusal) to one plan digest."""

    change: int
    plan_digest: str
    principal: str
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    id: int
    environment: str
    model: str
    kind: ChangeKind
    state: ChangeState
    reason: str
    hypothesis: str
    expected_effect: str
    author: str
    last_editor: str
    created_at: datetime
    expires_at: datetime
    plan_number: int
    break_glass: str | None = None
    review: ReviewState = ReviewState.NONE
    acknowledged: tuple[str, ...] = ()
    message: str = ""
    finished_at: datetime | None = None
    proofs: tuple[JsonObject, ...] = field(default=())
    found: JsonObject | None = None
    """What a first change found in the repository, unmanaged: see `Found`."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One external effect. `finished_at` is None while it happens, and for ever when its worker died in it.

    `change` is None when accepted content was healed.
    """

    environment: str
    model: str
    change: int | None
    server: str
    direction: Direction
    effect: str
    version: int | None
    because: str
    lease_token: int
    started_at: datetime
    finished_at: datetime | None = None
    error_code: str | None = None
    error: str | None = None
