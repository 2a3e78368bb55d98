# Appending to the audit log and reading it.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, tuple_
from sqlalchemy.orm import Session

from controlplane.domain.audit import AuditEntry, AuditFact, read_entry
from controlplane.domain.merkle import Frontier, Node, Range, leaf_hash, peaks, range_hash, range_nodes
from controlplane.errors import AuditBroken
from controlplane.storage.audit_rows import AuditCheckpointRow, AuditEntryRow, AuditSubjectRow, AuditSubtreeRow
from controlplane.storage.locks import Lock, take

# Plain statements: the log is appended to with every change, and mapped rows cost as much as the database does.
_INSERT_ENTRY = insert(AuditEntryRow)
_INSERT_SUBJECT = insert(AuditSubjectRow)
_INSERT_SUBTREE = insert(AuditSubtreeRow)


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
        take(Lock.AUDIT_APPEND, self._session)
        connection = self._session.connection()
        size = self.size()
        frontier = self._edge(size, size + len(self._queue))
        for fact in self._queue:
            self._write(connection, AuditEntry.of(frontier.size, self._now(), fact), frontier)
        self._queue.clear()

    def _write(self, connection: Connection, entry: AuditEntry, frontier: Frontier) -> None:
        body = entry.body()
        leaf = leaf_hash(body)
        values = {
            "seq": entry.seq,
            "body": body.decode(),
            "leaf_hash": leaf.hex(),
            "at": entry.at,
            "actor": entry.actor.name,
            "action": entry.action,
        }
        connection.execute(_INSERT_ENTRY, values)
        subjects = [{"kind": kind, "id": value, "seq": entry.seq} for kind, value in entry.subjects.items()]
        if subjects:
            connection.execute(_INSERT_SUBJECT, subjects)
        subtrees = [
            {"level": level, "position": position, "hash": node.hex()}
            for (level, position), node in frontier.append(leaf)
        ]
        if subtrees:
            connection.execute(_INSERT_SUBTREE, subtrees)

    def _edge(self, size: int, later: int) -> Frontier:
        """The frontier of `size` entries, good for growing to `later`: peaks that such growth does not join stay on the
        left and are not read."""
        joined = (size ^ later).bit_length()
        nodes = peaks(size)
        hashes = self._nodes([node for node in nodes if node[0] < joined])
        return Frontier(size, [hashes.get(node, b"") for node in nodes])

    def size(self) -> int:
        """How many entries there are, which is also the next one's number."""
        last = self._session.scalar(select(func.max(AuditEntryRow.seq)))
        return 0 if last is None else last + 1

    def entries(
        self,
        *,
        subject: tuple[str, str] | None = None,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> tuple[AuditEntry, ...]:
        """The newest first; `subject` is kind and id, `before` a number that is not included. Raises AuditBroken when an
        entry cannot be read."""
        query = select(AuditEntryRow.body).order_by(AuditEntryRow.seq.desc()).limit(limit)
        if subject is not None:
            row = AuditSubjectRow
            query = query.join(row, row.seq == AuditEntryRow.seq).where(row.kind == subject[0], row.id == subject[1])
        if actor is not None:
            query = query.where(AuditEntryRow.actor == actor)
        if action is not None:
            query = query.where(AuditEntryRow.action == action)
        if before is not None:
            query = query.where(AuditEntryRow.seq < before)
        return tuple(read_entry(body) for body in self._session.scalars(query))

    def root(self, size: int) -> bytes:
        """Of the first `size` entries, from the stored subtrees. Raises AuditBroken when one is missing."""
        return self.frontier(size).root()

    def hashes(self, subtrees: Sequence[Range]) -> list[bytes]:
        """The hashes that a proof is made of. Raises AuditBroken when a completed subtree is missing."""
        wanted = [node for subtree in subtrees for node in range_nodes(subtree)]
        found = self._nodes(wanted)
        return [range_hash(subtree, found) for subtree in subtrees]

    def lock_signing(self) -> None:
        """Until the commit nobody else signs a checkpoint."""
        take(Lock.AUDIT_SIGN, self._session)

    def latest_checkpoint(self) -> str | None:
        """The signed note over the most entries."""
        return self._session.scalar(select(AuditCheckpointRow.note).order_by(AuditCheckpointRow.size.desc()).limit(1))

    def add_checkpoint(self, size: int, note: str) -> None:
        self._session.add(AuditCheckpointRow(size=size, note=note, signed_at=self._now()))

    def frontier(self, size: int) -> Frontier:
        """Of the first `size` entries, from the stored subtrees. Raises AuditBroken when one is missing."""
        nodes = peaks(size)
        hashes = self._nodes(nodes)
        return Frontier(size, [hashes[node] for node in nodes])

    def _nodes(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        """Hashes of completed subtrees and leaves, every one of them."""
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
        missing = sorted(set(wanted) - found.keys())
        if missing:
            level, position = missing[0]
            raise AuditBroken(
                f"the audit log lacks the hash of entries {position << level} to {((position + 1) << level) - 1}",
                hint="tritonctl audit verify",
            )
        return found
