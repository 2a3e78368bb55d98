# A bench of many hosts: rounds are sent to Dask workers, and done again where one is lost.
"""Only what lies in one turn is compared (domain/sweep_blocks.py), so whole *turns* are what a round is cut into: each worker loads all
candidates and measures some turns, none shared. Groups of candidates, each with the base config as a common reference, were the
other way; they need a search that knows of them, and pay for the reference in each group. Hosts of another class than the first
(domain/fingerprints.py) are left alone, as hard objectives look at figures across turns.

A turn is told when it is whole. What a lost worker had measured of another one is dropped, and that turn is done again elsewhere:
no block is told twice, and no turn is of two hosts."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import controlplane
from controlplane.bench.cluster import CONNECT_SECONDS, bench_workers, connect, scheduler_address
from controlplane.bench.scratch import Blobs
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.fingerprints import Fingerprint, same_class
from controlplane.domain.sweep_rounds import BlockOrder, CandidateFailure, Measurement, RoundOrder, RoundResult
from controlplane.errors import InvalidInput, RuntimeUnavailable, ServerUnreachable

if TYPE_CHECKING:
    from distributed import Future as Answer

_T = TypeVar("_T")
_WAIT_SECONDS = 60.0
_START_SECONDS = _RELEASE_SECONDS = 10.0
_POLL_SECONDS, _TURN_SECONDS, _LOOK_SECONDS = 0.02, 0.1, 1.0
_CHUNK_BYTES = 4 << 20
_LOSSES = 3
"""Workers that one round may lose: one that takes down whatever it is measured on must not go through a whole cluster."""


class _Lost(Exception):
    """The worker is gone."""


class _Stopped(Exception):
    """Nobody wants the answer any more."""


class DaskBench:
    """Implements the Bench port on the workers of a scheduler, `dask://HOST:PORT`; `with` it. Each answers one sweep at a time."""

    def __init__(self, address: str) -> None:
        self.address = scheduler_address(address)
        self._class: Fingerprint | None = None
        self._known: dict[str, Fingerprint] = {}
        """By worker, those that can be measured on."""
        self._asked: dict[str, Answer[JsonObject]] = {}
        self._refused: dict[str, ServerUnreachable | RuntimeUnavailable] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        """By digest, of all hosts that it measured on, those too that are gone."""

    def __enter__(self) -> Self:
        self._client = connect(self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was started on the workers is stopped, unless another sweep holds them, which does it in its time."""
        from controlplane.bench import slot

        try:
            going = [self._submit(worker, slot.release_here) for worker in self._there() if worker in self._known]
            end = time.monotonic() + _RELEASE_SECONDS
            while time.monotonic() < end and not all(one.done() for one in going):
                time.sleep(_TURN_SECONDS)
        except ServerUnreachable:
            pass  # without a scheduler the workers end by themselves
        finally:
            self._client.close(timeout=_RELEASE_SECONDS)

    def measure(
        self,
        order: RoundOrder,
        store: Blobs,
        *,
        done: Callable[[Measurement], None],
        go_on: Callable[[], None],
    ) -> RoundResult:
        """As the port says; `done` is told block by block, a whole turn at a time."""
        round_ = _Round(order, done)
        losses = 0
        while round_.open:
            workers = self._workers(go_on)
            attempts = [
                _Attempt(self, worker, part, store)
                for worker, part in zip(workers, round_.cut(len(workers)), strict=False)
            ]
            try:
                while any(not one.ended for one in attempts):
                    go_on()
                    time.sleep(_TURN_SECONDS)
                    for one in attempts:
                        round_.take(one)
            finally:
                for one in attempts:
                    one.stop()
            for one in attempts:
                round_.take(one)
                if not self._goes_on(one, round_):
                    losses += 1
            if losses > _LOSSES:
                raise ServerUnreachable(
                    f"round {order.number} lost {losses} bench workers",
                    hint="see their logs: one of its candidates may be too much for a host",
                )
        return round_.result(self._class)

    def _goes_on(self, attempt: _Attempt, round_: _Round) -> bool:
        """False where the worker was lost. Raises what ends the round."""
        try:
            round_.end(attempt, self._known[attempt.worker])
        except _Lost:
            self._forget(attempt.worker)
            return False
        except (ServerUnreachable, RuntimeUnavailable) as error:
            self._forget(attempt.worker)
            self._refused[attempt.worker] = error
        return True

    def _workers(self, go_on: Callable[[], None]) -> list[str]:
        """Those that can be measured on now. One that is busy with another sweep tells about itself when it is free, and is waited
        for only as long as a free one may need to start its server."""
        from controlplane.bench import slot

        end = time.monotonic() + _WAIT_SECONDS
        start = time.monotonic() + _START_SECONDS if self._class is None else 0.0
        while True:
            there = [name for name in self._there() if name not in self._refused]
            for name in [*self._known, *self._asked]:
                if name not in there:
                    self._forget(name)
            for name in there:
                if name not in self._known and name not in self._asked:
                    self._asked[name] = self._submit(name, slot.describe_here)
            for name, answer in list(self._asked.items()):
                if answer.done():
                    self._look_at(name, self._asked.pop(name))
            if self._known and (not self._asked or time.monotonic() > start):
                return sorted(self._known)
            if not self._asked and self._refused:
                raise next(iter(self._refused.values()))
            if there:
                end = time.monotonic() + _WAIT_SECONDS
            if time.monotonic() > end:
                raise ServerUnreachable(
                    f"the Dask scheduler at {self.address} has no bench worker",
                    hint=f"start one: tritonctl bench worker --scheduler {self.address}",
                )
            go_on()
            time.sleep(_TURN_SECONDS)

    def _look_at(self, name: str, answer: Answer[JsonObject]) -> None:
        try:
            told = answer.result(timeout=CONNECT_SECONDS)
        except (ServerUnreachable, RuntimeUnavailable) as error:
            self._refused[name] = error
            return
        except (TimeoutError, CancelledError):
            return
        found = Fingerprint.from_json(told["fingerprint"])
        if told["version"] != controlplane.__version__:
            self._refused[name] = RuntimeUnavailable(
                f"the bench worker at {name} is of version {told['version']}, and this is {controlplane.__version__}",
                hint="install the same version there",
            )
        elif self._class is not None and found != self._class and not same_class(self._class, found):
            self._refused[name] = RuntimeUnavailable(
                f"the bench worker at {name} is a host of another class than the sweep began on",
                hint="start one on a host of the same kind, or start the sweep anew",
            )
        else:
            self._class = self._class or found
            self._known[name] = self.fingerprints[found.digest] = found

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        if (answer := self._asked.pop(name, None)) is not None:
            answer.cancel()

    def _there(self) -> list[str]:
        try:
            return bench_workers(self._client)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._scheduler_lost() from error

    def ask(self, worker: str, stop: Event, function: Callable[..., _T], *arguments: Json | bytes) -> _T:
        """The answer of that worker, when its slot is free. Raises _Lost, _Stopped, and what the function raises."""
        from controlplane.bench.slot import Unwanted

        answer = self._submit(worker, function, *arguments)
        look_at = time.monotonic() + _LOOK_SECONDS
        try:
            while not answer.done():
                time.sleep(_POLL_SECONDS)
                if stop.is_set():
                    raise _Stopped
                if time.monotonic() > look_at:
                    look_at = time.monotonic() + _LOOK_SECONDS
                    if worker not in self._there():
                        raise _Lost
            return answer.result(timeout=CONNECT_SECONDS)
        except (Unwanted, TimeoutError):  # it ends, or has ended with the answer
            raise _Lost from None
        except CancelledError:
            raise self._scheduler_lost() from None
        finally:
            answer.cancel()

    def _submit(self, worker: str, function: Callable[..., _T], *arguments: Json | bytes) -> Answer[_T]:
        from controlplane.bench.slot import RESOURCE

        return self._client.submit(function, *arguments, workers=[worker], resources={RESOURCE: 1}, pure=False)

    def listen(self, topic: str, heard: Callable[[str], None]) -> None:
        self._client.subscribe_topic(topic, lambda event: heard(event[1]))

    def deafen(self, topic: str) -> None:
        self._client.unsubscribe_topic(topic)

    def _scheduler_lost(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"the Dask scheduler at {self.address} went away", hint="start it again, then: tritonctl sweep resume"
        )


class _Attempt:
    """Some turns of a round on one worker, asked for in a thread of its own."""

    def __init__(self, bench: DaskBench, worker: str, order: RoundOrder, store: Blobs) -> None:
        self.worker = worker
        self.order = order
        self.seen: dict[int, Measurement] = {}
        """By place."""
        self._bench = bench
        self._store = store
        self._topic = f"tritonctl-{uuid.uuid4().hex}"
        self._heard: SimpleQueue[str] = SimpleQueue()
        self._stop = Event()
        self._thread = ThreadPoolExecutor(1, "dask-round")
        self._result: Future[RoundResult] = self._thread.submit(self._measure)

    @property
    def ended(self) -> bool:
        return self._result.done()

    def stop(self) -> None:
        self._stop.set()
        self._thread.shutdown()

    def heard(self) -> list[Measurement]:
        found = []
        while True:
            try:
                found.append(Measurement.from_json(json.loads(self._heard.get_nowait())))
            except Empty:
                return found

    def result(self) -> RoundResult:
        """Of one that ended. Raises _Lost, and what ended it."""
        return self._result.result()

    def _measure(self) -> RoundResult:
        from controlplane.bench import slot

        def ask(function: Callable[..., _T], *arguments: Json | bytes) -> _T:
            return self._bench.ask(self.worker, self._stop, function, *arguments)

        blobs = {asked.golden for asked in self.order.requests.values()}
        blobs |= {
            entry.sha256 for one in self.order.models for entry in (*one.manifest.files, *one.beside.files)
        }  # fmt: skip
        for blob in ask(slot.missing_here, sorted(blobs)):
            upload = uuid.uuid4().hex
            for chunk in self._store.read(blob):
                for at in range(0, len(chunk), _CHUNK_BYTES):
                    ask(slot.receive_here, upload, chunk[at : at + _CHUNK_BYTES])
            ask(slot.keep_here, upload, blob)
        self._bench.listen(self._topic, self._heard.put)
        try:
            return RoundResult.from_json(ask(slot.measure_here, self.order.to_json(), self._topic))
        finally:
            self._bench.deafen(self._topic)


class _Round:
    """Which turns are open still, and what was told."""

    def __init__(self, order: RoundOrder, done: Callable[[Measurement], None]) -> None:
        self._order = order
        self._done = done
        self.open: dict[int, list[BlockOrder]] = {}
        for block in order.blocks:
            self.open.setdefault(block.turn, []).append(block)
        self._told: dict[int, Measurement] = {}
        self._failed: dict[str, CandidateFailure] = {}
        self._fingerprints: dict[str, Fingerprint] = {}

    def cut(self, parts: int) -> list[RoundOrder]:
        """The open turns, as evenly as can be, in order."""
        turns = list(self.open)
        count = min(parts, len(turns))
        shares = [turns[at * len(turns) // count : (at + 1) * len(turns) // count] for at in range(count)]
        return [replace(self._order, blocks=self._blocks(share)) for share in shares]

    def _blocks(self, turns: Sequence[int]) -> tuple[BlockOrder, ...]:
        return tuple(block for turn in turns for block in self.open[turn])

    def take(self, attempt: _Attempt) -> None:
        """What it measured by now; turns that are whole are told."""
        self._take(attempt, attempt.heard())

    def _take(self, attempt: _Attempt, measurements: Sequence[Measurement]) -> None:
        for one in measurements:
            attempt.seen[one.order.place] = one
            blocks = self.open.get(one.order.turn, [])
            if blocks and all(block.place in attempt.seen for block in blocks):
                self._tell(one.order.turn, attempt)

    def _tell(self, turn: int, attempt: _Attempt) -> None:
        for block in self.open.pop(turn):
            if block.place in attempt.seen:
                self._told[block.place] = attempt.seen[block.place]
                self._done(attempt.seen[block.place])

    def end(self, attempt: _Attempt, fingerprint: Fingerprint) -> None:
        """What was told of an attempt counts, however it ended. Raises what ended it."""
        if any(place in self._told for place in attempt.seen):
            self._fingerprints[fingerprint.digest] = fingerprint
        found = attempt.result()
        self._fingerprints[found.fingerprint.digest] = found.fingerprint
        self._take(attempt, found.measurements)
        for turn in {block.turn for block in attempt.order.blocks} & self.open.keys():
            self._tell(turn, attempt)  # as far as it got: no other worker would get further
        self._failed |= {one.candidate: one for one in found.failed}

    def result(self, usual: Fingerprint | None) -> RoundResult:
        """`usual` is that of a round without any block."""
        prints = list(self._fingerprints.values()) or ([usual] if usual else [])
        if not prints:
            raise InvalidInput("a round without blocks")
        places = [block.place for block in self._order.blocks if block.place in self._told]
        measurements = tuple(self._told[place] for place in places)
        return RoundResult(measurements, tuple(self._failed.values()), prints[0], tuple(prints[1:]))
