# The audit log's tables. Every one is append-only: storage/triggers.py.
from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.storage.types import Base, UtcDateTime


class AuditEntryRow(Base):
    """`body` is the truth: the canonical text that `leaf_hash` (hexadecimal) is taken over. `at`, `actor` and `action`
    repeat what it says so that it can be searched; `audit verify` compares them."""

    __tablename__ = "audit_entries"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[str] = mapped_column(Text)
    leaf_hash: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(60))

    __table_args__ = (Index(None, "actor", "seq"), Index(None, "action", "seq"))


class AuditSubjectRow(Base):
    """What an entry is about, again for searching."""

    __tablename__ = "audit_subjects"

    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    seq: Mapped[int] = mapped_column(ForeignKey("audit_entries.seq"), primary_key=True, autoincrement=False)

    __table_args__ = (Index(None, "seq"),)


class AuditSubtreeRow(Base):
    """The hash of a completed subtree: leaves `position * 2**level` up to, and without, `(position + 1) * 2**level`.
    Level 0 is the entries' own leaf hashes."""

    __tablename__ = "audit_subtrees"

    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))


class AuditCheckpointRow(Base):
    """A signed note over the first `size` entries. `signed_at` is for people; the signature does not cover it."""

    __tablename__ = "audit_checkpoints"

    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[str] = mapped_column(Text)
    signed_at: Mapped[datetime] = mapped_column(UtcDateTime)
