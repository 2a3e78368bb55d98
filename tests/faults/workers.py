# Worker processes that are killed, stopped or failed at a chosen boundary between two external effects.
from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from controlplane.errors import ControlPlaneError
from controlplane.settings import Settings
from controlplane.storage.database import create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import SystemClock, build_worker

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["controlplane.wiring"])


class InjectedFault(ControlPlaneError):
    code = "test.injected"


@contextmanager
def started(settings: Settings, url: str, *, mode: str, at: int, change: int, names: Path) -> Iterator[BaseProcess]:
    """A worker that works until the change rests, killed at the end of the block if it still lives.

    At its boundary number `at` (from 0) it kills itself (`kill`), stops itself (`stop`), or raises (`fail`); `record`
    does none of that. Every boundary's name is a line of `names`.
    """
    process = _PROCESSES.Process(target=_work, args=(settings, url, mode, at, change, names), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(10)


def wait_stopped(process: BaseProcess, seconds: float = 30) -> bool:
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


def _work(settings: Settings, url: str, mode: str, at: int, change: int, names: Path) -> None:  # noqa: PLR0917
    count = 0

    def boundary(name: str) -> None:
        nonlocal count
        with names.open("a") as stream:
            stream.write(f"{name}\n")
        here = count == at
        count += 1
        if not here or mode == "record":
            return
        if mode == "fail":
            raise InjectedFault(f"injected at {name}")
        os.kill(os.getpid(), signal.SIGKILL if mode == "kill" else signal.SIGSTOP)

    storage = Storage(create_database(url), SystemClock().now)
    worker = build_worker(settings, storage, name=f"{mode} {os.getpid()}", boundary=boundary)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        worker.once()
        with storage.read() as unit:
            if unit.changes.get(change).state.value not in ("applying", "undoing"):
                return
        time.sleep(0.02)
