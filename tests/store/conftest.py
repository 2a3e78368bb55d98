# Both databases, migrated: every test that takes `database` or `storage` runs on SQLite and on PostgreSQL.
from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.services.access import AccessService
from controlplane.services.catalog import CatalogService
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.database import Database, create_database
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.onnx_graph import OnnxInspector
from tests.store.clock import SteppingClock
from tests.store.house import House, furnished
from tests.store.postgres import PostgresMissing, PostgresServer, postgres_server


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


@pytest.fixture
def store(tmp_path: Path) -> ObjectArtifactStore:
    return ObjectArtifactStore.local(tmp_path / "artifacts")


@pytest.fixture
def catalog(storage: Storage, clock: SteppingClock, store: ObjectArtifactStore, tmp_path: Path) -> CatalogService:
    return CatalogService(
        storage, AccessService(storage, clock), store, OnnxInspector(), clock, staging=tmp_path / "staging"
    )


@pytest.fixture
def upload(store: ObjectArtifactStore) -> Callable[..., Manifest]:
    def add(content: bytes, path: str = "model.onnx") -> Manifest:
        sha256, size = store.add_stream([content])
        return Manifest((FileEntry(path, size, sha256),))

    return add


@pytest.fixture
def blobs(tmp_path: Path) -> Callable[[], set[str]]:
    """The digests of what lies in the store; nothing else may lie there or in the staging directory."""

    def look() -> set[str]:
        assert list((tmp_path / "staging").glob("*")) == []
        found = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
        assert all("blobs/sha256" in str(path) for path in found)
        return {f"sha256:{path.name}" for path in found}

    return look


@pytest.fixture
def house(storage: Storage, clock: SteppingClock, tmp_path: Path) -> Iterator[House]:
    with furnished(storage, clock, tmp_path) as house:
        yield house
