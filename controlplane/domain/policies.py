# What an environment asks of a change: approvals, gates, freeze windows, expiry.
from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.access import Role
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.evidence_clauses import EvidenceClause, clauses_from_json
from controlplane.domain.latency_gates import LatencyGate, gates_from_json
from controlplane.domain.times import format_instant
from controlplane.errors import PolicyInvalid

GATES = {
    "no_regrets": "the config has no finding that its user would regret",
    "compatible": "the signature that clients see does not change",
    "golden": "every version has recorded inferences to be verified by",
    "headroom": "old and new fit side by side into the host's memory",
}


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """From `starts_at` up to, not including, `ends_at` no change is applied; rollbacks and break-glass are exempt."""

    name: str
    starts_at: datetime
    ends_at: datetime

    def to_json(self) -> JsonObject:
        return {"name": self.name, "starts_at": format_instant(self.starts_at), "ends_at": format_instant(self.ends_at)}


@dataclass(frozen=True, slots=True)
class Policy:
    """`load_timeout_seconds` is the deadline of one load; `rollback_approvals` replaces `approvals` for rollbacks. The
    versions of the last `keep_revisions` revisions keep their directories; a rollback to an older one writes them anew."""

    approvals: int = 1
    approver_roles: tuple[str, ...] = ("approver", "admin")
    self_approval: bool = False
    rollback_approvals: int = 0
    gates: tuple[str, ...] = ()
    expires_after_hours: int = 168
    keep_warm: bool = False
    load_timeout_seconds: int = 120
    break_glass: bool = True
    keep_revisions: int = 20
    latency_gates: tuple[LatencyGate, ...] = ()
    evidence: tuple[EvidenceClause, ...] = ()
    freeze_windows: tuple[FreezeWindow, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("approvals", 0, 20),
            ("rollback_approvals", 0, 20),
            ("expires_after_hours", 1, 8760),
            ("load_timeout_seconds", 1, 86400),
            ("keep_revisions", 1, 10_000),
        ):
            if not low <= getattr(self, name) <= high:
                raise PolicyInvalid(f"{name} is {getattr(self, name)}", hint=f"use {low} to {high}")
        unknown = sorted(set(self.gates) - set(GATES))
        if unknown:
            raise PolicyInvalid(f"unknown gate {unknown[0]!r}", hint=f"the gates are {', '.join(sorted(GATES))}")
        strange = sorted(set(self.approver_roles) - {role.value for role in Role})
        if strange:
            raise PolicyInvalid(
                f"unknown role {strange[0]!r}", hint=f"the roles are {', '.join(role.value for role in Role)}"
            )
        if self.approvals and not self.approver_roles:
            raise PolicyInvalid("approvals are needed, but no role may approve")
        for window in self.freeze_windows:
            if window.starts_at >= window.ends_at:
                raise PolicyInvalid(
                    f"the freeze window {window.name!r} starts at {format_instant(window.starts_at)}, but does not end "
                    f"after that: it ends at {format_instant(window.ends_at)}",
                    hint=f"--freeze {window.name}=START/END, the earlier moment first",
                )

    def clauses(self) -> JsonObject:
        """What a plan binds: every clause but the freeze windows, which are judged when it is applied."""
        tree = self.to_json()
        del tree["freeze_windows"]
        return tree

    def to_json(self) -> JsonObject:
        return {
            "approvals": self.approvals,
            "approver_roles": list(self.approver_roles),
            "self_approval": self.self_approval,
            "rollback_approvals": self.rollback_approvals,
            "gates": list(self.gates),
            "expires_after_hours": self.expires_after_hours,
            "keep_warm": self.keep_warm,
            "load_timeout_seconds": self.load_timeout_seconds,
            "break_glass": self.break_glass,
            "keep_revisions": self.keep_revisions,
            "latency_gates": [gate.to_json() for gate in self.latency_gates],
            "evidence": [clause.to_json() for clause in self.evidence],
            "freeze_windows": [window.to_json() for window in self.freeze_windows],
        }

    @classmethod
    def from_json(cls, tree: JsonObject) -> Policy:
        """Raises PolicyInvalid for unknown clauses and wrong types; what is missing keeps its default."""
        known = {field.name for field in fields(cls)}
        for key in tree:
            if key not in known:
                raise PolicyInvalid(f"unknown clause {key!r}", hint=f"the clauses are {', '.join(sorted(known))}")
        defaults = cls()
        values: dict[str, Any] = {name: _clause(name, value, getattr(defaults, name)) for name, value in tree.items()}
        return cls(**values)


def stricter(live: Policy, bound: Policy) -> tuple[str, ...]:
    """In words, where the live policy asks for more than the one that a plan was made under."""
    found = []
    if live.approvals > bound.approvals:
        found.append(f"approvals went from {bound.approvals} to {live.approvals}")
    if live.rollback_approvals > bound.rollback_approvals:
        found.append(f"rollback_approvals went from {bound.rollback_approvals} to {live.rollback_approvals}")
    if bound.self_approval and not live.self_approval:
        found.append("self_approval is no longer allowed")
    if set(bound.approver_roles) - set(live.approver_roles):
        found.append("fewer roles may approve")
    added = sorted(set(live.gates) - set(bound.gates))
    if added:
        found.append(f"new gates: {', '.join(added)}")
    return tuple(found)


def _clause(name: str, value: Json, default: object) -> object:
    """`value` as the type of the clause's default."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif name == "latency_gates":
        return gates_from_json(value)
    elif name == "evidence":
        return clauses_from_json(value)
    elif name == "freeze_windows":
        if isinstance(value, list):
            return tuple(_window(item) for item in value)
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise PolicyInvalid(f"{name} has the wrong type: {value!r}", hint=f"the default is {default!r}")


def _window(item: Json) -> FreezeWindow:
    if not isinstance(item, dict) or set(item) != {"name", "starts_at", "ends_at"}:
        raise PolicyInvalid(f"a freeze window has name, starts_at and ends_at, not {item!r}")
    return FreezeWindow(str(item["name"]), _moment(item["starts_at"]), _moment(item["ends_at"]))


def _moment(value: Json) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise PolicyInvalid(f"{value!r} is not a moment", hint="write it like 2026-12-24T00:00:00Z, with an offset")
    if not 1970 <= moment.year < 9999:
        raise PolicyInvalid(f"{value!r} is too far away", hint="use a year from 1970 to 9998")
    return moment.astimezone(UTC)
