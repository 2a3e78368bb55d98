# What lies in the audit log's tables, unjudged: for signing and for verification, which trust nothing there.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Text, and_, cast, func, or_, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

from controlplane.domain.merkle import Node
from controlplane.storage.audit_rows import AuditCheckpointRow, AuditEntryRow, AuditSubjectRow, AuditSubtreeRow
from controlplane.storage.triggers import missing_audit_triggers

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class RawEntry:
    """Texts are bytes, because a tampered SQLite file may hold some that are no text."""

    seq: int
    body: bytes
    leaf_hash: bytes
    at: bytes
    actor: bytes
    action: bytes


class RawAudit:
    """Reads in chunks, so that a log of any length needs little memory. Use it in one reading transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def entries(self, after: int | None = None) -> Iterator[Sequence[RawEntry]]:
        """Every row with a greater number, in order, in chunks."""
        row = AuditEntryRow
        columns = (row.body, row.leaf_hash, row.at, row.actor, row.action)
        while True:
            query = select(row.seq, *map(self._bytes, columns)).order_by(row.seq).limit(_CHUNK)
            if after is not None:
                query = query.where(row.seq > after)
            chunk = [RawEntry(seq, *texts) for seq, *texts in self._session.execute(query)]
            if not chunk:
                return
            yield chunk
            after = chunk[-1].seq

    def subjects(self, first: int, last: int) -> Mapping[int, frozenset[tuple[bytes, bytes]]]:
        """Kinds and ids by number, of the entries from `first` to `last`."""
        row = AuditSubjectRow
        query = select(row.seq, self._bytes(row.kind), self._bytes(row.id)).where(row.seq.between(first, last))
        found = defaultdict(set)
        for seq, kind, identifier in self._session.execute(query):
            found[seq].add((kind, identifier))
        return {seq: frozenset(pairs) for seq, pairs in found.items()}

    def subtrees(self, start: int, end: int) -> Mapping[Node, bytes]:
        """Those that the leaves `start` up to, and without, `end` complete, in hexadecimal."""
        row = AuditSubtreeRow
        levels = [
            and_(row.level == level, row.position >= start >> level, row.position < end >> level)
            for level in range(1, end.bit_length())
        ]
        if not levels:
            return {}
        query = select(row.level, row.position, self._bytes(row.hash)).where(or_(*levels))
        return {(level, position): value for level, position, value in self._session.execute(query)}

    def subtrees_reach(self) -> int:
        """The number of entries that the stored subtrees tell of."""
        row = AuditSubtreeRow
        ends = self._session.execute(select(row.level, func.max(row.position)).group_by(row.level))
        return max(((position + 1) << level for level, position in ends), default=0)

    def checkpoints(self) -> Sequence[tuple[int, str]]:
        """Size and signed note, the smallest first."""
        row = AuditCheckpointRow
        return [(size, note) for size, note in self._session.execute(select(row.size, row.note).order_by(row.size))]

    def missing_triggers(self) -> frozenset[str]:
        return missing_audit_triggers(self._session.connection())

    def _bytes(self, column: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[bytes]:
        if self._session.get_bind().dialect.name == "sqlite":
            return cast(type_coerce(column, Text), LargeBinary)
        return func.convert_to(type_coerce(column, Text), "UTF8", type_=LargeBinary)
