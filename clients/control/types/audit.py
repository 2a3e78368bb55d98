# Audit entries and checkpoints on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject


@dataclass(frozen=True, slots=True)
class AuditEntry:
    seq: int
    at: str
    actor: str
    actor_kind: str
    action: str
    subjects: dict[str, str]
    details: JsonObject
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`note` is the signed note; `key` the log's verification key (C2SP vkey)."""

    size: int
    note: str
    key: str


@dataclass(frozen=True, slots=True)
class Consistency:
    """Hashes of a consistency proof, base64."""

    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProofFile:
    text: str
