# What lies in the audit log's tables, unjudged: for signing and for verification, which trust nothing there.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import String, and_, func, or_, select, type_coerce
from sqlalchemy.orm import Session

from controlplane.domain.merkle import Node
from controlplane.storage.audit_rows import AuditCheckpointRow, AuditEntryRow, AuditSubjectRow, AuditSubtreeRow

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class RawEntry:
    seq: int
    body: str
    leaf_hash: str
    at: str
    actor: str
    action: str


class RawAudit:
    """Reads in chunks, so that a log of any length needs little memory. Use it in one reading transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def entries(self, after: int | None = None) -> Iterator[Sequence[RawEntry]]:
        """Every row with a greater number, in order, in chunks."""
        row = AuditEntryRow
        columns = (row.seq, row.body, row.leaf_hash, type_coerce(row.at, String), row.actor, row.action)
        while True:
            query = select(*columns).order_by(row.seq).limit(_CHUNK)
            if after is not None:
                query = query.where(row.seq > after)
            chunk = [RawEntry(*found) for found in self._session.execute(query)]
            if not chunk:
                return
            yield chunk
            after = chunk[-1].seq

    def subjects(self, first: int, last: int) -> Mapping[int, dict[str, str]]:
        """By number, of the entries from `first` to `last`."""
        row = AuditSubjectRow
        found: dict[int, dict[str, str]] = {}
        for seq, kind, identifier in self._session.execute(
            select(row.seq, row.kind, row.id).where(row.seq.between(first, last))
        ):
            found.setdefault(seq, {})[kind] = identifier
        return found

    def subtrees(self, start: int, end: int) -> Mapping[Node, str]:
        """Those that the leaves `start` up to, and without, `end` complete."""
        row = AuditSubtreeRow
        levels = [
            and_(row.level == level, row.position >= start >> level, row.position < end >> level)
            for level in range(1, end.bit_length())
        ]
        if not levels:
            return {}
        query = select(row.level, row.position, row.hash).where(or_(*levels))
        return {(level, position): value for level, position, value in self._session.execute(query)}

    def subtree_count(self) -> int:
        return self._session.scalar(select(func.count()).select_from(AuditSubtreeRow)) or 0

    def subtrees_reach(self) -> int:
        """The number of entries that the stored subtrees tell of."""
        row = AuditSubtreeRow
        ends = self._session.execute(select(row.level, func.max(row.position)).group_by(row.level))
        return max(((position + 1) << level for level, position in ends), default=0)

    def checkpoints(self) -> Sequence[tuple[int, str]]:
        """Size and signed note, the smallest first."""
        row = AuditCheckpointRow
        return [(size, note) for size, note in self._session.execute(select(row.size, row.note).order_by(row.size))]
