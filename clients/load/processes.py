# The sending processes seen from the parent: started before the clock, read while they run, merged exactly.
from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clients.load.errors import LoadFailed
from clients.load.responses import Heard, Rows
from clients.load.worker import COLUMNS, Ending, Job, work, work_on

Records = NDArray[np.int64]
"""Rows of (due, sent, answered, status code, tag); times in ns of the monotonic clock, which all processes share."""

_PR_SET_PDEATHSIG = 1
_READY_SECONDS = 60.0
_GRACE_SECONDS = 10.0
_SILENT_SECONDS = 30.0
"""Each says something four times a second; one that is stopped or hangs must not keep whoever measures waiting for ever."""
NOTHING: Records = np.zeros((0, COLUMNS), np.int64)


def _tethered(job: Job | None, pipe: Connection, parent: int) -> None:
    """Dies with the thread that started it, also when that is killed: nothing goes on sending for nobody. Without a job it waits
    for its jobs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above took effect
            return
    if job is None:
        work_on(pipe)
    else:
        work(job, pipe)


def _spawned(job: Job | None) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_tethered, args=(job, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return process, mine


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started meanwhile do not hear Ctrl-C and signals to end, which a terminal or `timeout` sends to the whole group:
    whoever measures hears them, and ends the others in order."""
    resource_tracker.ensure_running()  # else the first process starts it, which lets the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SenderPool:
    """Sending processes that stay between measurements, for `measure(…, pool=pool)`: a short one then costs no start of Python.
    One measurement at a time takes from it. They die with the thread that first needed them; `close` ends those that wait."""

    def __init__(self) -> None:
        self._waiting: list[tuple[BaseProcess, Connection]] = []

    def prepare(self) -> None:
        """One that waits, or will once Python is up; so that what is done meanwhile costs no time."""
        if not self._waiting:
            with _deaf():
                self._waiting.append(_spawned(None))

    def take(self, job: Job) -> tuple[BaseProcess, Connection]:
        """One that has the job, a new one where none waits."""
        while self._waiting:
            process, pipe = self._waiting.pop()
            try:
                pipe.send(job)
            except OSError:  # it died while it waited
                _end(process, pipe)
            else:
                return process, pipe
        with _deaf():
            process, pipe = _spawned(None)
        try:
            pipe.send(job)
        except OSError:
            _end(process, pipe)
            raise LoadFailed("a sending process died before the start; what it said stands above") from None
        return process, pipe

    def give_back(self, process: BaseProcess, pipe: Connection) -> None:
        """One that has ended its job in order."""
        self._waiting.append((process, pipe))

    def close(self) -> None:
        while self._waiting:
            _end(*self._waiting.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(process: BaseProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    pipe.close()


class Senders:
    """`with Senders(jobs) as senders:` every process is connected and waits; `start` lets all begin at one moment."""

    def __init__(self, jobs: Sequence[Job], pool: SenderPool | None = None) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._pool = pool
        self._jobs = tuple(jobs)
        self.endings: list[Ending] = []
        self.heard: list[Rows] = []
        try:
            with _deaf():
                for job in jobs:
                    process, pipe = _spawned(job) if pool is None else pool.take(job)
                    self._pipes.append(pipe)
                    self._processes.append(process)
        except BaseException:
            self._kill()
            raise

    def __enter__(self) -> Self:
        try:
            self._wait_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def _wait_ready(self) -> None:
        end = time.monotonic() + _READY_SECONDS
        for pipe in self._pipes:
            if not pipe.poll(max(end - time.monotonic(), 0)):
                few = f"; fewer --processes may: this host has {os.cpu_count()} processors"
                raise LoadFailed(f"a sending process did not start within {_READY_SECONDS:.0f} s{few}")
            try:
                pipe.recv()
            except (EOFError, ConnectionResetError):
                raise LoadFailed("a sending process died before the start; what it said stands above") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None and len(self.endings) == len(self._jobs):
            for process, pipe in zip(self._processes, self._pipes, strict=True):
                self._pool.give_back(process, pipe)
        else:
            self._kill()

    def start(self, lead_seconds: float = 0.05) -> int:
        """The moment at which all begin, in ns of the monotonic clock."""
        moment = time.monotonic_ns() + int(lead_seconds * 1e9)
        for pipe in self._pipes:
            pipe.send(moment)
        return moment

    def stop(self, moment: int) -> None:
        for pipe in self._pipes:
            try:
                pipe.send(moment)
            except OSError:  # it has ended by itself
                continue

    def blocks(self) -> Iterator[tuple[int, Records]]:
        """What the processes report, each by its number, a few times a second, until all have ended. Raises LoadFailed when one
        dies, or when none says anything any more."""
        open_pipes = list(self._pipes)
        while open_pipes:
            ready = wait(open_pipes, _SILENT_SECONDS)
            if not ready:
                raise LoadFailed(
                    f"a sending process has said nothing for {_SILENT_SECONDS:.0f} s: it is stopped or hangs"
                )
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    said = pipe.recv()
                except (EOFError, ConnectionResetError):
                    raise LoadFailed("a sending process died in the middle; what it said stands above") from None
                if isinstance(said, Ending):
                    self.endings.append(said)
                    open_pipes.remove(pipe)
                elif isinstance(said, Heard):
                    self.heard.append(said.rows)
                else:
                    yield self._pipes.index(pipe), np.frombuffer(said, np.int64).reshape(-1, COLUMNS)

    def _kill(self) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join(0 if process.exitcode is None and not self.endings else _GRACE_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
            pipe.close()
