# Worker processes that are killed, stopped or failed at a chosen boundary between two external effects.
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from sqlalchemy import Connection, event

from controlplane.errors import ControlPlaneError
from controlplane.settings import Settings
from controlplane.storage import database as transactions
from controlplane.storage.database import Database, create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import SystemClock, build_worker

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["controlplane.wiring"])
_LOCKS_FREE_SECONDS = 2


class InjectedFault(ControlPlaneError):
    code = "test.injected"


@dataclass(frozen=True, slots=True)
class Wound:
    """What happens to a worker at its boundary number `at`, counted from 0: `kill`, `stop` (SIGSTOP) or `fail` (raises).
    `record` does nothing anywhere.

    Boundaries are the moments before and after each external effect. With `writes` so is the beginning of each writing
    transaction, where all that was written before is committed. With `renewing` there is one, number 0: before the first
    effect, while the other thread is inside a transaction that renews the lease.
    """

    mode: str
    at: int = -1
    writes: bool = False
    renewing: bool = False


@contextmanager
def started(settings: Settings, url: str, wound: Wound, *, change: int | None, names: Path) -> Iterator[BaseProcess]:
    """A worker that works until the change rests, or makes one pass without one; killed at the end of the block if it
    still lives. Every boundary's name is a line of `names`."""
    # No daemon: those may have no children, and a worker that measures has some.
    process = _PROCESSES.Process(target=_work, args=(settings, url, wound, change, names), daemon=False)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(10)


def wait_stopped(process: BaseProcess, seconds: float = 90) -> bool:
    """True when it stopped itself, False when it ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.exitcode is not None:
            return False
        assert process.pid is not None
        if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.02)
    raise AssertionError("the worker neither stopped nor ended")


class _Hurt:
    """Counts boundaries, and hurts its own process at one of them."""

    def __init__(self, wound: Wound, database: Database, names: Path) -> None:
        self._wound = wound
        self._database = database
        self._names = names
        self._count = 0
        self._waiting = False
        self._renewed = threading.Event()

    def boundary(self, name: str) -> None:
        if not self._wound.renewing:
            self._pass(name)
        elif not self._waiting:
            self._waiting = True
            self._renewed.wait(60)

    def begin(self, connection: Connection) -> None:
        main = threading.current_thread() is threading.main_thread()
        writes = bool(connection.get_execution_options().get("controlplane_writes"))
        if self._wound.writes and main and writes:
            self._pass("write")

    def commit(self, _connection: Connection) -> None:
        if self._waiting and threading.current_thread() is not threading.main_thread():
            self._pass("renew")
            self._renewed.set()

    def _pass(self, name: str) -> None:
        with self._names.open("a") as stream:
            stream.write(f"{name}\n")
        here = self._count == self._wound.at
        self._count += 1
        if not here or self._wound.mode == "record":
            return
        if self._wound.mode == "fail":
            raise InjectedFault(f"injected at {name}")
        if self._wound.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        # SQLite has no way to take a lock from a process that is stopped while its other thread renews the lease.
        with self._database._write_lock or nullcontext():
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.05)  # the signal may meet another thread first


def _work(settings: Settings, url: str, wound: Wound, change: int | None, names: Path) -> None:
    transactions.STOPPED_SECONDS = _LOCKS_FREE_SECONDS
    database = create_database(url)
    hurt = _Hurt(wound, database, names)
    event.listen(database.engine, "begin", hurt.begin)
    event.listen(database.engine, "commit", hurt.commit)
    storage = Storage(database, SystemClock().now)
    worker = build_worker(settings, storage, name=f"{wound.mode} {os.getpid()}", boundary=hurt.boundary)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        worker.once()
        if change is None:
            return
        with storage.read() as unit:
            if unit.changes.get(change).state.value not in ("applying", "undoing"):
                return
        time.sleep(0.02)
