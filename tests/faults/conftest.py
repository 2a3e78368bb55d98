# The fixtures of the live tests and of both databases, an installation to walk through, and a server that is started again.
from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.storage.database import Database
from controlplane.triton.runtime import supervise
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.launch import LaunchOptions
from controlplane.triton.runtime.supervise import Supervisor
from tests.faults.walks import walked
from tests.live.conftest import make_triton, runtime, shared_triton, triton
from tests.live.installation import Installation
from tests.live.servers import ADMIN_KEY, LiveTriton
from tests.store.conftest import clock, database, dialect, postgres, postgres_template, sqlite_template

__all__ = [
    "clock",
    "database",
    "dialect",
    "make_triton",
    "postgres",
    "postgres_template",
    "runtime",
    "shared_triton",
    "sqlite_template",
    "triton",
]


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Iterator[Installation]:
    yield from walked(tmp_path, database, triton)


@pytest.fixture
def supervised(runtime: TritonRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveTriton]:
    """A server of the test's own that is started again when it dies, as `tritonctl up` does it,
    and at once: the tests kill it many times."""
    monkeypatch.setattr(supervise, "LONGEST_DELAY_SECONDS", supervise.FIRST_DELAY_SECONDS)
    home = tmp_path / "server"
    repository = home / "models"
    repository.mkdir(parents=True)
    supervisor = Supervisor(LaunchOptions(home, repository, runtime, admin_key=ADMIN_KEY))
    ready, stopping = threading.Event(), threading.Event()

    def keep() -> None:
        supervisor.start(120)
        ready.set()
        while not stopping.wait(0.05):
            supervisor.tick()
        supervisor.stop(0)  # a graceful stop waits for the load that never returns

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        assert ready.wait(130)
        yield LiveTriton(supervisor.server, home, repository, ADMIN_KEY)
    finally:
        stopping.set()
        thread.join()
