# Appending to the audit log and reading it.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, insert, select, text, tuple_
from sqlalchemy.orm import Session

from controlplane.domain.audit import AuditEntry, AuditFact
from controlplane.domain.merkle import Frontier, Node, leaf_hash, peaks
from controlplane.storage.audit_rows import AuditEntryRow, AuditSubjectRow, AuditSubtreeRow

_APPEND_LOCK = 0x7463_7061  # any constant; it only has to differ from other advisory locks


class AuditStore:
    """The log inside one transaction. `append` queues; the unit of work writes the queue as its last statements."""

    def __init__(self, session: Session, now: Callable[[], datetime]) -> None:
        self._session = session
        self._now = now
        self._queue: list[AuditFact] = []

    def append(self, fact: AuditFact) -> None:
        """Record the fact with this transaction: numbered and stamped when it commits, gone when it rolls back."""
        self._queue.append(fact)

    def write_queued(self) -> None:
        """Called by the unit of work when everything else is flushed. Holds the log's lock until the commit."""
        if not self._queue:
            return
        self._lock()
        frontier = self._frontier(self.size())
        for fact in self._queue:
            self._write(AuditEntry.of(frontier.size, self._now(), fact), frontier)
        self._queue.clear()

    def _write(self, entry: AuditEntry, frontier: Frontier) -> None:
        body = entry.body()
        leaf = leaf_hash(body)
        values = {
            "seq": entry.seq,
            "body": body.decode("utf-8"),
            "leaf_hash": leaf.hex(),
            "at": entry.at,
            "actor": entry.actor.name,
            "action": entry.action,
        }
        self._session.execute(insert(AuditEntryRow), values)
        subjects = [{"kind": kind, "id": value, "seq": entry.seq} for kind, value in entry.subjects.items()]
        if subjects:
            self._session.execute(insert(AuditSubjectRow), subjects)
        subtrees = [
            {"level": level, "position": position, "hash": node.hex()}
            for (level, position), node in frontier.append(leaf)
        ]
        if subtrees:
            self._session.execute(insert(AuditSubtreeRow), subtrees)

    def size(self) -> int:
        """How many entries there are, which is also the next one's number."""
        last = self._session.scalar(select(func.max(AuditEntryRow.seq)))
        return 0 if last is None else last + 1

    def _lock(self) -> None:
        """Until the commit nobody else appends. SQLite's writing transactions are alone already."""
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _APPEND_LOCK})

    def _frontier(self, size: int) -> Frontier:
        nodes = peaks(size)
        hashes = self.nodes(nodes)
        return Frontier(size, [hashes[node] for node in nodes])

    def nodes(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        """Hashes of completed subtrees and leaves; a missing one is left out."""
        found: dict[Node, bytes] = {}
        leaves = [position for level, position in wanted if level == 0]
        if leaves:
            rows = select(AuditEntryRow.seq, AuditEntryRow.leaf_hash).where(AuditEntryRow.seq.in_(leaves))
            found |= {(0, seq): bytes.fromhex(value) for seq, value in self._session.execute(rows)}
        inner = [node for node in wanted if node[0] > 0]
        if inner:
            row = AuditSubtreeRow
            query = select(row.level, row.position, row.hash).where(tuple_(row.level, row.position).in_(inner))
            found |= {
                (level, position): bytes.fromhex(value) for level, position, value in self._session.execute(query)
            }
        return found
