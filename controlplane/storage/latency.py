# What latency gates measured, one row for each gate and server of an attempt.
from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.canonical import JsonObject
from controlplane.domain.latency_gates import LatencyMeasurement, LatencyOutcome
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class LatencyRow(Base):
    __tablename__ = "latency_measurements"
    __table_args__ = (
        ForeignKeyConstraint(["change_id"], ["changes.id"]),
        Index(None, "change_id"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    change_id: Mapped[int]
    server: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    gate: Mapped[JsonObject] = mapped_column(CanonicalJson)
    outcome: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    seen: Mapped[JsonObject] = mapped_column(CanonicalJson)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LatencyStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, measurement: LatencyMeasurement) -> None:
        self._session.add(
            LatencyRow(
                change_id=measurement.change,
                server=measurement.server,
                version=measurement.version,
                gate=measurement.gate,
                outcome=measurement.outcome.value,
                reason=measurement.reason,
                seen=measurement.seen,
                started_at=measurement.started_at,
                finished_at=measurement.finished_at,
            )
        )
        self._session.flush()

    def of_change(self, change: int) -> tuple[LatencyMeasurement, ...]:
        """In the order in which they were made."""
        rows = self._session.scalars(select(LatencyRow).where(LatencyRow.change_id == change).order_by(LatencyRow.id))
        return tuple(
            LatencyMeasurement(
                change=row.change_id,
                server=row.server,
                version=row.version,
                gate=row.gate,
                outcome=LatencyOutcome(row.outcome),
                reason=row.reason,
                seen=row.seen,
                started_at=row.started_at,
                finished_at=row.finished_at,
            )
            for row in rows
        )
