# One transaction and the stores that work inside it.
"""with storage.write() as unit:
        unit.access.add(...)
        unit.audit.append(fact)

commits everything or nothing; `storage.read()` gives a read-only snapshot. Services own the transactions: a store never
commits. Audit facts are queued and written last, so that the log's lock is held as short as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy.orm import Session

from controlplane.storage.access import AccessStore
from controlplane.storage.audit import AuditStore
from controlplane.storage.audit_raw import RawAudit
from controlplane.storage.catalog import CatalogStore
from controlplane.storage.changes import ChangeStore
from controlplane.storage.database import Database
from controlplane.storage.environments import EnvironmentStore
from controlplane.storage.idempotency import IdempotencyStore
from controlplane.storage.latency import LatencyStore
from controlplane.storage.server_fingerprints import ServerFingerprintStore
from controlplane.storage.sweeps import SweepStore
from controlplane.storage.webhooks import WebhookStore


class UnitOfWork:
    """The stores of one transaction. Rooms add a cached property each; importing their store here is also what makes
    Alembic see their tables."""

    def __init__(self, session: Session, now: Callable[[], datetime]) -> None:
        self.session = session
        self._now = now

    @cached_property
    def audit(self) -> AuditStore:
        return AuditStore(self.session, self._now)

    @cached_property
    def raw_audit(self) -> RawAudit:
        return RawAudit(self.session)

    @cached_property
    def access(self) -> AccessStore:
        return AccessStore(self.session)

    @cached_property
    def catalog(self) -> CatalogStore:
        return CatalogStore(self.session)

    @cached_property
    def environments(self) -> EnvironmentStore:
        return EnvironmentStore(self.session)

    @cached_property
    def changes(self) -> ChangeStore:
        return ChangeStore(self.session)

    @cached_property
    def idempotency(self) -> IdempotencyStore:
        return IdempotencyStore(self.session)

    @cached_property
    def latency(self) -> LatencyStore:
        return LatencyStore(self.session)

    @cached_property
    def server_fingerprints(self) -> ServerFingerprintStore:
        return ServerFingerprintStore(self.session)

    @cached_property
    def sweeps(self) -> SweepStore:
        return SweepStore(self.session)

    @cached_property
    def webhooks(self) -> WebhookStore:
        return WebhookStore(self.session)


class Storage:
    """What services hold: it opens units of work on one database. `now` stamps audit entries, under the log's lock."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.database = database
        self._now = now

    @contextmanager
    def write(self) -> Iterator[UnitOfWork]:
        with self.database.writing() as connection, Session(connection, expire_on_commit=False) as session:
            unit = UnitOfWork(session, self._now)
            yield unit
            session.flush()
            unit.audit.write_queued()

    @contextmanager
    def read(self) -> Iterator[UnitOfWork]:
        with self.database.reading() as connection, Session(connection, expire_on_commit=False) as session:
            yield UnitOfWork(session, self._now)
