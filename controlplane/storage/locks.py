# Locks that transactions hold until they end: SQLite's writers are alone already, PostgreSQL's take an advisory lock.
from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session


class Lock(IntEnum):
    """The numbers only have to differ, from each other and from those of other programs in the same database."""

    UPGRADE = 0x7463_7001
    AUDIT_APPEND = 0x7463_7002
    AUDIT_SIGN = 0x7463_7003
    ACCESS = 0x7463_7004


def take(lock: Lock, where: Session | Connection) -> None:
    """Wait for the lock. Statements after it see what its last holder committed (READ COMMITTED)."""
    bind = where.get_bind() if isinstance(where, Session) else where
    if bind.dialect.name == "postgresql":
        where.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(lock)})
