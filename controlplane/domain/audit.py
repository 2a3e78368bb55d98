# Audit entries: what is recorded, the registry of actions, and the canonical bytes that are hashed.
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import cast

from controlplane.domain.access import Actor, PrincipalKind
from controlplane.domain.canonical import Json, JsonObject, canonical_bytes
from controlplane.domain.times import format_instant, parse_instant
from controlplane.errors import AuditBroken

SCHEMA = 1


class Action(StrEnum):
    """Every fact that can be recorded, as `subject.action` in the past tense. Rooms add theirs; none is ever renamed or
    removed, because old entries carry it."""

    INSTALLATION_BOOTSTRAPPED = "installation.bootstrapped"
    PRINCIPAL_CREATED = "principal.created"
    PRINCIPAL_DISABLED = "principal.disabled"
    PRINCIPAL_ENABLED = "principal.enabled"
    ROLE_GRANTED = "role.granted"
    ROLE_REVOKED = "role.revoked"
    TOKEN_ISSUED = "token.issued"  # noqa: S105 - the name of a fact
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - the name of a fact
    PERMISSION_REFUSED = "permission.refused"

    MODEL_REGISTERED = "model.registered"
    MODEL_ADOPTED = "model.adopted"
    VERSION_REGISTERED = "version.registered"
    OBJECTIVE_SET = "objective.set"
    OBJECTIVE_REMOVED = "objective.removed"
    CATALOG_PRUNED = "catalog.pruned"

    ENVIRONMENT_CREATED = "environment.created"
    ENVIRONMENT_REMOVED = "environment.removed"
    POLICY_SET = "policy.set"
    SERVER_ADDED = "server.added"
    SERVER_CHANGED = "server.changed"
    SERVER_REMOVED = "server.removed"

    CHANGE_PROPOSED = "change.proposed"
    CHANGE_REPLANNED = "change.replanned"
    CHANGE_APPROVED = "change.approved"
    CHANGE_REJECTED = "change.rejected"
    CHANGE_WITHDRAWN = "change.withdrawn"
    CHANGE_EXPIRED = "change.expired"
    CHANGE_REFUSED = "change.refused"
    CHANGE_STARTED = "change.started"
    CHANGE_MEASURED = "change.measured"
    CHANGE_APPLIED = "change.applied"
    CHANGE_PAUSED = "change.paused"
    CHANGE_RESUMED = "change.resumed"
    CHANGE_PREEMPTED = "change.preempted"
    CHANGE_TURNED_BACK = "change.turned_back"
    CHANGE_UNDONE = "change.undone"
    CHANGE_STUCK = "change.stuck"
    GLASS_BROKEN = "glass.broken"
    REVIEW_CLOSED = "review.closed"

    DEPLOYMENT_HEALED = "deployment.healed"
    DEPLOYMENT_DRIFTED = "deployment.drifted"
    DEPLOYMENT_RECONCILED = "deployment.reconciled"

    SWEEP_STARTED = "sweep.started"
    SWEEP_FINISHED = "sweep.finished"
    SWEEP_FAILED = "sweep.failed"
    SWEEP_CANCELLED = "sweep.cancelled"
    SWEEP_RESUMED = "sweep.resumed"
    SWEEP_EXPORTED = "sweep.exported"

    WEBHOOK_ADDED = "webhook.added"
    WEBHOOK_REMOVED = "webhook.removed"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_ENABLED = "webhook.enabled"


@dataclass(frozen=True, slots=True)
class AuditFact:
    """What a service wants recorded; number and time are given when it is written.

    `subjects` says what it is about, kind to id (`{"change": "12", "model": "digits"}`), and is what entries are
    searched by. `details` is JSON without floats; put digests there, not large contents and never secrets.
    """

    actor: Actor
    action: Action
    subjects: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Json] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One appended fact. `seq` counts from 0 and is also the entry's leaf index in the Merkle tree. `action` is plain
    text, because another version of this program may have written it."""

    seq: int
    at: datetime
    actor: Actor
    action: str
    subjects: Mapping[str, str]
    details: Mapping[str, Json]
    request_id: str | None = None

    @classmethod
    def of(cls, seq: int, at: datetime, fact: AuditFact) -> AuditEntry:
        return cls(seq, at, fact.actor, fact.action.value, fact.subjects, fact.details, fact.request_id)

    def body(self) -> bytes:
        """The canonical bytes that are stored and hashed."""
        tree: JsonObject = {
            "schema": SCHEMA,
            "seq": self.seq,
            "at": format_instant(self.at),
            "actor": {"name": self.actor.name, "kind": self.actor.kind.value},
            "action": self.action,
            "subjects": dict(self.subjects),
            "details": dict(self.details),
            "request_id": self.request_id,
        }
        return canonical_bytes(tree)


def read_entry(body: str) -> AuditEntry:
    """The inverse of `AuditEntry.body`. Raises AuditBroken for anything that this program would not have written."""
    try:
        tree = json.loads(body)
        if tree["schema"] != SCHEMA:
            raise AuditBroken(  # noqa: TRY301 - passes through below
                f"audit entry {tree['seq']} has schema {tree['schema']}, this program reads {SCHEMA}",
                hint="use the program's newer version",
            )
        entry = AuditEntry(
            seq=tree["seq"],
            at=parse_instant(tree["at"]),
            actor=Actor(tree["actor"]["name"], PrincipalKind(tree["actor"]["kind"])),
            action=tree["action"],
            subjects=tree["subjects"],
            details=cast("Mapping[str, Json]", tree["details"]),
            request_id=tree["request_id"],
        )
        written = entry.body()
    except AuditBroken:
        raise
    except Exception as error:  # whoever altered the text may have put anything there
        raise AuditBroken(f"an audit entry cannot be read: {error!r}") from None
    if written != body.encode("utf-8", "surrogatepass"):
        raise AuditBroken(f"audit entry {entry.seq} is not in canonical form")
    return entry
