# Webhooks in SQL: their delivery state, and the claims by which workers take turns at them.
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    ForeignKey,
    String,
    Text,
    Update,
    delete,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.audit import AuditEntry, read_entry
from controlplane.domain.webhooks import EVENTS, Event, Webhook
from controlplane.errors import LeaseLost, NotFound
from controlplane.storage.audit_rows import AuditEntryRow
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime

_TOLD = tuple(str(action) for action in EVENTS)


class WebhookRow(Base):
    """`secret` is here as it was shown, because each letter is signed with it: whoever reads this table can forge
    letters, though nothing of ours. Numbers are never used again, so that a delivery's name stays unique."""

    __tablename__ = "webhooks"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(100))
    events: Mapped[list[str]] = mapped_column(CanonicalJson)
    environment: Mapped[str | None] = mapped_column(String(100), ForeignKey("environments.name"))
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cursor: Mapped[int]
    failures: Mapped[int]
    attempted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claim_token: Mapped[int]
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WebhookStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, webhook: Webhook, secret: str) -> Webhook:
        """With a number of its own; that of `webhook` is not looked at."""
        row = WebhookRow(
            url=webhook.url,
            secret=secret,
            events=sorted(webhook.events),
            environment=webhook.environment,
            created_by=webhook.created_by,
            created_at=webhook.created_at,
            cursor=webhook.cursor,
            failures=0,
            claim_token=0,
        )
        self._session.add(row)
        self._session.flush()
        return _webhook(row)

    def all(self) -> tuple[Webhook, ...]:
        return tuple(_webhook(row) for row in self._session.scalars(select(WebhookRow).order_by(WebhookRow.id)))

    def get(self, number: int) -> Webhook:
        """Raises NotFound."""
        return _webhook(self._known(number))

    def secret(self, number: int) -> str:
        """Raises NotFound."""
        return self._known(number).secret

    def remove(self, number: int) -> None:
        """With its secret. Raises NotFound."""
        self._known(number)
        self._session.execute(delete(WebhookRow).where(WebhookRow.id == number))

    def disable(self, number: int, at: datetime) -> Webhook:
        """Raises NotFound."""
        row = self._known(number)
        row.disabled_at = at
        return _webhook(row)

    def enable(self, number: int, cursor: int) -> Webhook:
        """It goes on at `cursor` at once, whatever failed before. Raises NotFound."""
        row = self._known(number)
        row.disabled_at, row.cursor, row.failures, row.next_attempt_at = None, cursor, 0, None
        row.claim_token, row.claimed_until = row.claim_token + 1, None
        return _webhook(row)

    # delivering

    def due(self, now: datetime) -> tuple[int, ...]:
        """Those that nobody delivers to, that may be tried again, and that the log may have something for."""
        news = exists().where(AuditEntryRow.seq >= WebhookRow.cursor, AuditEntryRow.action.in_(_TOLD))
        return tuple(self._session.scalars(select(WebhookRow.id).where(*_free(now), news).order_by(WebhookRow.id)))

    def claim(self, number: int, now: datetime, seconds: float) -> int | None:
        """The token of the claim; None when it is not free, or gone."""
        statement = (
            update(WebhookRow)
            .where(WebhookRow.id == number, *_free(now))
            .values(claim_token=WebhookRow.claim_token + 1, claimed_until=now + timedelta(seconds=seconds))
        )
        return self._known(number).claim_token if self._changed(statement) else None

    def held(self, number: int, token: int) -> Webhook:
        """Raises LeaseLost when the claim is no longer the caller's, or the webhook is disabled or removed."""
        row = self._session.scalar(select(WebhookRow).where(*_held(number, token)))
        if row is None:
            raise _lost(number)
        return _webhook(row)

    def settle(self, number: int, token: int, **values: object) -> None:
        """Write what came of an attempt. Raises LeaseLost as `held` does."""
        if not self._changed(update(WebhookRow).where(*_held(number, token)).values(**values)):
            raise _lost(number)

    def entries(self, cursor: int, limit: int) -> Sequence[AuditEntry]:
        """Of the log from `cursor` on, the oldest first: those that are told to anybody. Raises AuditBroken."""
        row = AuditEntryRow
        query = select(row.body).where(row.seq >= cursor, row.action.in_(_TOLD)).order_by(row.seq).limit(limit)
        return [read_entry(body) for body in self._session.scalars(query)]

    def _known(self, number: int) -> WebhookRow:
        row = self._session.get(WebhookRow, number, populate_existing=True)
        if row is None:
            raise NotFound(f"there is no webhook {number}", hint="tritonctl webhook list")
        return row

    def _changed(self, statement: Update) -> bool:
        result = cast("CursorResult[Any]", self._session.execute(statement, execution_options=_PLAIN))
        return result.rowcount == 1


_PLAIN = {"synchronize_session": False}


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    row = WebhookRow
    return (
        row.disabled_at.is_(None),
        or_(row.claimed_until.is_(None), row.claimed_until <= now),
        or_(row.next_attempt_at.is_(None), row.next_attempt_at <= now),
    )


def _held(number: int, token: int) -> tuple[ColumnElement[bool], ...]:
    row = WebhookRow
    return (row.id == number, row.claim_token == token, row.disabled_at.is_(None))


def _lost(number: int) -> LeaseLost:
    return LeaseLost(f"webhook {number} was taken over, disabled or removed")


def _webhook(row: WebhookRow) -> Webhook:
    return Webhook(
        id=row.id,
        url=row.url,
        events=frozenset(Event(name) for name in row.events),
        environment=row.environment,
        created_by=row.created_by,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        cursor=row.cursor,
        failures=row.failures,
        attempted_at=row.attempted_at,
        status=row.status,
        error=row.error,
        next_attempt_at=row.next_attempt_at,
    )
