# Answers that are kept for a day, so that a repeated POST does its work once.
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, Index, String, Text, delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.errors import Conflict, IdempotencyMismatch
from controlplane.storage.types import Base, UtcDateTime

KEPT = timedelta(hours=24)


class IdempotencyKeyRow(Base):
    __tablename__ = "idempotency_keys"

    principal_id: Mapped[int] = mapped_column(ForeignKey("principals.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(71))
    status: Mapped[int]
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "created_at"),)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The HTTP status and body that the first request with this key was answered with."""

    status: int
    body: str


class IdempotencyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, principal_id: int, key: str, request_digest: str, now: datetime) -> KeptAnswer | None:
        """The answer to the same request; None when it is new. Raises IdempotencyMismatch when the key was used for
        another one."""
        row = self._session.get(IdempotencyKeyRow, (principal_id, key))
        if row is None or row.created_at <= now - KEPT:
            return None
        if row.request_digest != request_digest:
            raise IdempotencyMismatch(
                f"the Idempotency-Key {key!r} was used for another request", hint="send a new key with a new request"
            )
        return KeptAnswer(row.status, row.body)

    def keep(self, principal_id: int, key: str, request_digest: str, answer: KeptAnswer, now: datetime) -> None:
        """Keep the answer for a day, and forget what is older. Raises Conflict when another request keeps one under the
        same key at the same time."""
        self.prune(now)
        self._session.add(
            IdempotencyKeyRow(
                principal_id=principal_id,
                key=key,
                request_digest=request_digest,
                status=answer.status,
                body=answer.body,
                created_at=now,
            )
        )
        try:
            self._session.flush()
        except IntegrityError:
            raise Conflict(f"a request with Idempotency-Key {key!r} is being worked on", hint="wait for it") from None

    def answer(self, principal_id: int, key: str, answer: KeptAnswer) -> None:
        """Replace what is kept under the key."""
        self._session.execute(
            update(IdempotencyKeyRow)
            .where(IdempotencyKeyRow.principal_id == principal_id, IdempotencyKeyRow.key == key)
            .values(status=answer.status, body=answer.body)
        )

    def forget(self, principal_id: int, key: str) -> None:
        self._session.execute(
            delete(IdempotencyKeyRow).where(
                IdempotencyKeyRow.principal_id == principal_id, IdempotencyKeyRow.key == key
            )
        )

    def prune(self, now: datetime) -> None:
        self._session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.created_at <= now - KEPT))
