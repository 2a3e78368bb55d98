# The audit log: entries, checkpoints, proofs.
from __future__ import annotations

import base64

from clients.control import types
from controlplane.api import pages, wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.audit import AuditEntry
from controlplane.domain.checkpoints import claimed_checkpoint
from controlplane.errors import InvalidInput, NotFound


def list_entries(
    *,
    caller: Caller,
    rooms: Rooms,
    subject: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    cursor: str | None = None,
    limit: pages.Limit = 50,
) -> types.Page[types.AuditEntry]:
    """The newest first; `subject` is KIND:ID, such as `change:12`."""
    found = rooms.audit.list(
        caller,
        subject=_subject(subject),
        actor=actor,
        action=action,
        before=pages.after(cursor),
        limit=limit + 1,
    )
    following = pages.cursor(found[limit - 1].seq) if len(found) > limit else None
    return types.Page(tuple(_entry(entry) for entry in found[:limit]), following)


def show_checkpoint(rooms: Rooms) -> types.Checkpoint:
    """The latest signed one."""
    note = rooms.audit.latest_note()
    if note is None:
        raise NotFound("no checkpoint is signed yet", hint="the worker signs them: tritonctl worker")
    return types.Checkpoint(claimed_checkpoint(note).size, note, rooms.audit.key)


def sign_checkpoint(caller: Caller, rooms: Rooms) -> types.Checkpoint:
    """Signs the log as it is now."""
    found = rooms.audit.checkpoint(caller)
    assert found is not None  # the caller's own principal is in the log
    return types.Checkpoint(found.size, found.note, rooms.audit.key)


def prove_consistency(old: int, new: int, caller: Caller, rooms: Rooms) -> types.Consistency:
    """That the first `old` entries are the beginning of the first `new` (RFC 9162)."""
    hashes = rooms.audit.consistency(caller, old, new)
    return types.Consistency(tuple(base64.b64encode(item).decode() for item in hashes))


def prove_change(change: int, caller: Caller, rooms: Rooms) -> types.ProofFile:
    """Every entry about a change, provable offline with the log's key alone."""
    return types.ProofFile(rooms.audit.prove(caller, change).text())


def _subject(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    kind, colon, identifier = text.partition(":")
    if not colon:
        raise InvalidInput(f"the subject {text!r} is not KIND:ID", hint="such as change:12 or model:digits")
    return kind, identifier


def _entry(entry: AuditEntry) -> types.AuditEntry:
    return wire.of(types.AuditEntry, entry, actor=entry.actor.name, actor_kind=entry.actor.kind.value)
