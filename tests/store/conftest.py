# Both databases, migrated: every test that takes `database` or `storage` runs on SQLite and on PostgreSQL.
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from controlplane.storage.database import Database, create_database
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from tests.store.postgres import PostgresMissing, PostgresServer, postgres_server

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@dataclass
class SteppingClock:
    """A clock that tells a new second every time it is asked."""

    instant: datetime = field(default=NOON)

    def now(self) -> datetime:
        self.instant += timedelta(seconds=1)
        return self.instant


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_server())
        except PostgresMissing as missing:
            if os.environ.get("CI") == "true":
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    url = postgres.create()
    database = create_database(url.render_as_string(hide_password=False))
    upgrade(database)
    database.close()
    yield str(url.database)
    postgres.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    database = create_database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Without any table."""
    if dialect == "sqlite":
        yield from _opened(f"sqlite:///{tmp_path / 'empty.sqlite'}")
        return
    yield from _on_postgres(request.getfixturevalue("postgres"), None)


@pytest.fixture
def database(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if dialect == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "db.sqlite")
        yield from _opened(f"sqlite:///{path}")
        return
    yield from _on_postgres(request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template"))


@pytest.fixture
def storage(database: Database, clock: SteppingClock) -> Storage:
    return Storage(database, clock.now)


def _on_postgres(server: PostgresServer, template: str | None) -> Iterator[Database]:
    url: URL = server.create(template)
    yield from _opened(url.render_as_string(hide_password=False))
    server.drop(url)


def _opened(url: str) -> Iterator[Database]:
    database = create_database(url)
    yield database
    database.close()
