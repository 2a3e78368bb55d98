# Fixtures over the real embedded Triton: its runtime environment, servers on repositories of their own, an installation.
from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from controlplane.errors import RuntimeUnavailable
from controlplane.storage.database import Database
from controlplane.triton.runtime.find import TritonRuntime, find
from controlplane.triton.runtime.install import install as install_runtime
from tests.live.installation import Installation, install
from tests.live.servers import LiveTriton, MakeTriton, launch
from tests.store.conftest import database, dialect, postgres, postgres_template, sqlite_template

__all__ = ["database", "dialect", "postgres", "postgres_template", "sqlite_template"]

CHECKOUT = Path(__file__).parents[2]
_names = itertools.count()


@pytest.fixture(scope="session")
def runtime() -> TritonRuntime:
    """The runtime environment in build/runtime of the checkout, made at the first run and used again; or the one in
    the directory that TRITONCTL_TEST_RUNTIME names. CI fails without it, elsewhere its tests are skipped."""
    directory = Path(os.environ.get("TRITONCTL_TEST_RUNTIME") or CHECKOUT / "build" / "runtime")
    try:
        install_runtime(directory, progress=lambda text, share: print(f"[{share:4.0%}] {text}", file=sys.stderr))
        return find(directory)
    except RuntimeUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no embedded Triton: {error.message} ({error.hint})")


@pytest.fixture
def make_triton(runtime: TritonRuntime, tmp_path: Path) -> Iterator[MakeTriton]:
    """`make_triton(name="a", **LaunchOptions)` gives a server of the test's own, over an empty repository unless
    `repository=` names one; all are stopped at the end."""
    with ExitStack() as stack:

        def make(**options: object) -> LiveTriton:
            server = launch(runtime, tmp_path, **options)  # type: ignore[arg-type]
            stack.callback(server.process.stop, 0)  # killed: a graceful stop takes seconds and is tested by itself
            return server

        yield make


@pytest.fixture(scope="session")
def shared_triton(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTriton]:
    server = launch(runtime, tmp_path_factory.mktemp("shared"))
    yield server
    server.process.stop(0)


@pytest.fixture
def triton(shared_triton: LiveTriton) -> LiveTriton:
    """One server for all tests that can share it: use model names of your own, leave it running. Should a test have
    brought it down, the next one gets it anew."""
    process = shared_triton.process
    if process.poll() is not None:
        process.clean()
        process.start()
        process.wait_ready(120)
    return shared_triton


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Iterator[Installation]:
    """The audit log of whatever a test did verifies at its end."""
    installation = install(tmp_path, database, triton)
    yield installation
    installation.check_audit()


@pytest.fixture
def model() -> str:
    """The server is shared between tests, so each has a model of its own."""
    return f"live{next(_names)}"
