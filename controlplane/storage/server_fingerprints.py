# The machines of servers, as a worker on the same host last saw them.
from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.storage.types import Base, UtcDateTime


class ServerFingerprintRow(Base):
    """`server` is the digest of its spec: of a server that was changed or added anew nothing is known. `fingerprint` is a digest."""

    __tablename__ = "server_fingerprints"
    server: Mapped[str] = mapped_column(String(71), primary_key=True)
    environment: Mapped[str] = mapped_column(String(100), index=True)
    fingerprint: Mapped[str] = mapped_column(String(71))
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ServerFingerprintStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def set(self, environment: str, server: str, fingerprint: str, at: datetime) -> None:
        """`server` is the digest of its spec, `fingerprint` of one that is kept."""
        row = self._session.get(ServerFingerprintRow, server)
        if row is None:
            row = ServerFingerprintRow(server=server)
            self._session.add(row)
        row.environment, row.fingerprint, row.seen_at = environment, fingerprint, at
        self._session.flush()

    def of_environment(self, environment: str) -> dict[str, str]:
        """Digests of fingerprints by the digest of a server's spec; servers of the past are among them."""
        rows = self._session.scalars(
            select(ServerFingerprintRow).where(ServerFingerprintRow.environment == environment)
        )
        return {row.server: row.fingerprint for row in rows}
