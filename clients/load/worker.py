# One process that sends: it connects, waits for the common start, and reports every call it made.
from __future__ import annotations

import gc
import time
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from clients.load.calls import Call
from clients.load.checks import Checker, Difference, Expected
from clients.load.grpc_status import CANCELLED, Status
from clients.load.responses import Heard, rows_of
from clients.load.sequences import Plan, Sequences
from clients.load.shared_memory import Slots
from clients.load.transports import Transport, Via, open_transport

COLUMNS = 5
"""Of a record: when it was due, sent and answered (ns of the monotonic clock), status code, tag of the message."""
_REPORT_NS = 250_000_000
_TURN_SECONDS = 0.05
_clock = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does. `messages` are gRPC messages with their prefix; `order` are their indices, used in a circle.

    Closed loop: `concurrency` calls in flight. Open loop: `concurrency` is 0, `offsets` are ns from the start, and at most
    `most` calls are in flight: those that are due meanwhile are sent late, which their latency from when they were due shows.
    A call without an answer after `timeout_ns` is given up. After the stop, answers are awaited for `drain_ns`, or
    twice as long as the slowest took.
    """

    address: tuple[str, int]
    path: str
    metadata: tuple[tuple[str, str], ...]
    messages: tuple[bytes, ...]
    order: NDArray[np.int32]
    connections: int
    via: Via = field(default_factory=Via)
    shared: Slots | None = None
    concurrency: int = 0
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    most: int = 1000
    count: int | None = None
    """Closed loop: how many calls that are due after `warm_up_ns` are made at the most."""
    warm_up_ns: int = 0
    timeout_ns: int = 60_000_000_000
    drain_ns: int = 5_000_000_000
    plan: Plan | None = None
    """For stateful models, in the place of `order`: whose turn it is. Then at most `plan.live` calls are in flight."""
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The last word of a process. `failures` are the first message of each status code, `differing` counts answers that were not
    the expected ones by tag."""

    cpu_seconds: float
    reconnects: int
    unsent: int
    failures: dict[int, str]
    checked: int = 0
    differing: dict[int, int] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()


def work(job: Job, pipe: Connection) -> None:
    """The body of a process: says `ready`, takes the start, sends blocks of records as bytes, and an `Ending` at last.

    Anything that the parent sends after the start is the time at which to stop.
    """
    sender = open_transport(
        job.address,
        job.path,
        job.metadata,
        job.via,
        connections=job.connections,
        keep=job.expected is not None,
        clock=_clock,
        shared=job.shared,
    )
    sender.connect()
    loop = _Loop(job, sender, pipe)
    pipe.send("ready")
    start = int(pipe.recv())
    gc.collect()
    gc.freeze()
    if job.via.chosen == "http2":
        gc.disable()  # a collection in the middle would be measured as latency; nothing there makes cycles
    try:
        while (left := start - _clock()) > 0:
            time.sleep(min(left / 1e9, 0.1))
        begun = time.process_time()
        loop.run(start)
        pipe.send(loop.ending(time.process_time() - begun))
    finally:
        sender.close()


def work_on(pipe: Connection) -> None:
    """The body of a process that does one job after the other, as each comes, until the pipe is closed."""
    while True:
        try:
            said = pipe.recv()
        except EOFError:
            return
        if isinstance(said, Job):  # else the stop of a job that had ended by itself
            work(said, pipe)
            gc.unfreeze()
            gc.enable()


class _Loop:
    def __init__(self, job: Job, sender: Transport, pipe: Connection) -> None:
        self._job = job
        self._sender = sender
        self._pipe = pipe
        self._records = array("q")
        self._streamed = array("q")
        self._reported = self._looked = 0
        self._turn = 0
        self._stop = 1 << 62
        self._slowest = 0
        self._unsent = 0
        self._failures: dict[int, str] = {}
        self._sequences = None if job.plan is None else Sequences(job.plan, job.messages)
        self._checker = None if job.expected is None else Checker(job.expected)

    def run(self, start: int) -> None:
        self._reported = self._looked = start
        if self._job.concurrency:
            self._closed(start)
        else:
            self._open(start)
        self._drain()
        self._report()

    def ending(self, cpu_seconds: float) -> Ending:
        ending = Ending(cpu_seconds, self._sender.reconnects, self._unsent, self._failures)
        if self._checker is None:
            return ending
        return replace(
            ending,
            checked=self._checker.checked,
            differing=dict(self._checker.differing),
            differences=tuple(self._checker.kept),
        )

    def _closed(self, start: int) -> None:
        now = _clock()
        left = (1 << 62) if self._job.count is None else self._job.count
        counts_from = start + self._job.warm_up_ns
        for _ in range(self._job.concurrency if now < counts_from else min(self._job.concurrency, left)):
            self._issue(now, now)
        if now >= counts_from:
            left -= self._job.concurrency
        while left > 0 or self._sender.in_flight:
            ended = self._answers(_TURN_SECONDS)
            now = _clock()
            if self._over(now):
                return
            retry_at = self._sender.retry_at
            if retry_at > now and ended:  # no server: its place is taken again when a connection is tried again
                time.sleep(min((retry_at - now) / 1e9, _TURN_SECONDS))
                now = _clock()
            again = len(ended)
            if now >= counts_from:
                again = max(min(again, left), 0)
                left -= again
            for _ in range(again):
                self._issue(now, now)

    def _open(self, start: int) -> None:
        due = (self._job.offsets + start).tolist()
        place, count, flying, most = 0, len(due), 0, self._job.most
        while place < count:
            now = _clock()
            while place < count and due[place] <= now and flying < most:
                self._issue(due[place], now)
                place += 1
                flying += 1
            wait = min((due[place] - now) / 1e9, _TURN_SECONDS) if place < count and flying < most else _TURN_SECONDS
            flying -= len(self._answers(wait))
            if self._over(_clock()):
                break
        # Those sent between the moment of the stop and its arrival here were due too.
        self._unsent = max(0, bisect_right(due, min(self._stop, _clock())) - place)

    def _answers(self, wait: float) -> list[Call]:
        """The calls that ended, recorded; those that take too long are given up now and then."""
        ended = self._sender.turn(wait)
        now = _clock()
        if now - self._looked >= _REPORT_NS:
            self._looked = now
            ended += self._sender.expire(now - self._job.timeout_ns)
        self._record(ended, now)
        return ended

    def _issue(self, scheduled: int, now: int) -> None:
        if self._sequences is not None:
            self._sender.issue(self._sequences.next(scheduled, now))
            return
        order = self._job.order
        tag = int(order[self._turn % len(order)])
        self._turn += 1
        self._sender.issue(Call(tag, scheduled, now, self._job.messages[tag]))

    def _record(self, ended: list[Call], now: int) -> None:
        for call in ended:
            status = call.status
            assert status is not None
            if status.code and status.code not in self._failures:
                self._failures[status.code] = status.message[:500]
            self._records.extend((call.scheduled, call.sent, call.answered or now, status.code, call.tag))
        if self._job.via.chosen == "stream":
            for call in ended:
                self._streamed.extend(rows_of(call, call.answered or now))
        if self._checker is not None:
            for call in ended:
                if self._sequences is None or not self._sequences.cut(call):
                    self._checker.look(call)
        if self._sequences is not None:
            self._sequences.answered(ended)

    def _over(self, now: int) -> bool:
        """Whether the end has come; now and then what was recorded is reported."""
        if now - self._reported >= _REPORT_NS:
            self._report()
            self._reported = now
            while self._pipe.poll():
                self._stop = int(self._pipe.recv())
        return now >= self._stop

    def _drain(self) -> None:
        end = _clock() + min(max(self._job.drain_ns, 2 * self._slowest), self._job.timeout_ns)
        while _clock() < end:
            if self._sequences is not None:
                for call in self._sequences.closing(_clock()):
                    self._sender.issue(call)
            if not self._sender.in_flight:
                break
            self._answers(_TURN_SECONDS)
            self._over(_clock())
        left = self._sender.close()
        for call in left:
            call.status = Status(CANCELLED, "no answer before the end of the run")
        self._record(left, _clock())

    def _report(self) -> None:
        block = self._records.tobytes()
        if block:
            rows = np.frombuffer(block, np.int64).reshape(-1, COLUMNS)
            self._slowest = max(self._slowest, int((rows[:, 2] - rows[:, 1]).max()))
        self._pipe.send(block)
        self._records = array("q")
        if self._streamed:
            self._pipe.send(Heard(self._streamed.tobytes()))
            self._streamed = array("q")
