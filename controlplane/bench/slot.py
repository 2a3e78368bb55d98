# What runs on a Dask worker: its one bench, held in a slot that is taken by one sweep at a time, and the calls that it answers.
"""A worker is `tritonctl bench worker` on a bench host. It offers the resource `bench` once, and every call here asks for it, so that Dask
itself sees to it that nobody else measures there meanwhile. Calls are functions of this module and JSON: the code that measures
is the worker's own. (Dask runs whatever it is sent: who can reach the scheduler can do all that its workers can.)"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from distributed import Worker, WorkerPlugin, get_worker

import controlplane
from clients.load.hosts import Asked, Share, send_share
from controlplane.bench.scratch import Blobs
from controlplane.domain.artifacts import check_digest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_rounds import Measurement, RoundOrder, RoundResult
from controlplane.errors import RuntimeUnavailable, ServerUnreachable

RESOURCE = "bench"
_PLUGIN = "tritonctl-bench"
_TURN_SECONDS = 0.01


class Unwanted(Exception):
    """Whoever asked has gone, or does not want the answer any more."""


class SlotBench(Protocol):
    """What a slot holds: a Bench that tells its fingerprint."""

    @property
    def fingerprint(self) -> Fingerprint: ...

    def measure(
        self, order: RoundOrder, store: Blobs, *, done: Callable[[Measurement], None], go_on: Callable[[], None]
    ) -> RoundResult: ...


class BlobCache(Blobs, Protocol):
    """An artifact store, as far as a worker needs one. It stays from sweep to sweep."""

    def has(self, sha256: str) -> bool: ...

    def add_stream(self, chunks: Iterable[bytes], expected_sha256: str | None = None) -> tuple[str, int]: ...


class BenchSlot(WorkerPlugin):
    """The bench is opened when it is first needed, stays open from round to round, and is closed when its sweep is over or the
    worker ends. All of that happens in one thread, with which whatever the bench starts dies. `spool` takes what arrives."""

    def __init__(self, opener: Callable[[], AbstractContextManager[SlotBench]], store: BlobCache, spool: Path) -> None:
        self.name = _PLUGIN
        self.store = store
        self.begins: dict[str, float] = {}
        """By topic, when loads that several hosts send begin."""
        self._opener = opener
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, "bench")
        self._open: SlotBench | None = None
        self._held = ExitStack()
        self._ends = threading.Event()

    def setup(self, worker: Worker) -> None:  # noqa: ARG002  # Dask's signature
        """What arrived for a predecessor that was killed is of no use."""
        self._spool.mkdir(parents=True, exist_ok=True)
        self._empty()

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  # as above
        self._ends.set()
        self.close()
        self._thread.shutdown()

    def close(self) -> None:
        self._thread.submit(self._close).result()

    def fingerprint(self) -> Fingerprint:
        return self._thread.submit(lambda: self._bench().fingerprint).result()

    def measure(
        self, order: RoundOrder, done: Callable[[Measurement], None], wanted: Callable[[], bool]
    ) -> RoundResult:
        """Raises Unwanted when it is not any more, or when the worker ends."""

        def go_on() -> None:
            if self._ends.is_set() or not wanted():
                raise Unwanted

        def work() -> RoundResult:
            try:
                return self._bench().measure(order, self.store, done=done, go_on=go_on)
            except (RuntimeUnavailable, ServerUnreachable):
                self._close()  # the next one finds a bench of its own
                raise

        return self._thread.submit(work).result()

    def receive(self, upload: str, chunk: bytes) -> None:
        with (self._spool / upload).open("ab") as file:
            file.write(chunk)

    def keep(self, upload: str, sha256: str) -> None:
        """Raises ArtifactCorrupt when what came is not that."""
        path = self._spool / upload
        path.touch()
        try:
            with path.open("rb") as file:
                self.store.add_stream(iter(lambda: file.read(1 << 20), b""), sha256)
        finally:
            path.unlink()

    def _bench(self) -> SlotBench:
        if self._open is None:
            self._open = self._held.enter_context(self._opener())
        return self._open

    def _close(self) -> None:
        """With what arrived for a sweep that was stopped before it was whole."""
        self._open = None
        self._held.close()
        self._empty()

    def _empty(self) -> None:
        for remnant in self._spool.iterdir():
            remnant.unlink()


def describe_here() -> JsonObject:
    """The fingerprint of this worker's bench, which is opened for it, and the version that measures."""
    return {"version": controlplane.__version__, "fingerprint": _slot().fingerprint().to_json()}


def missing_here(digests: list[str]) -> list[str]:
    return [one for one in digests if not _slot().store.has(check_digest(one))]


def receive_here(upload: str, chunk: bytes) -> None:
    """A piece of a blob, in order."""
    _slot().receive(uuid.UUID(upload).hex, chunk)


def keep_here(upload: str, sha256: str) -> None:
    """It is whole now. Raises ArtifactCorrupt when it is another one than it should be."""
    _slot().keep(uuid.UUID(upload).hex, check_digest(sha256))


def measure_here(order: JsonObject, topic: str) -> JsonObject:
    """A round, or some of its turns; each block is told under `topic` the moment it ends."""
    worker, slot = get_worker(), _slot()

    def done(measurement: Measurement) -> None:
        worker.log_event(topic, json.dumps(measurement.to_json()))  # as text: Dask makes tuples of lists

    return slot.measure(RoundOrder.from_json(order), done, _wanted(worker)).to_json()


def send_here(asked: Asked, host: int, hosts: int, topic: str) -> Share:
    """The `host`-th share of a load. It says under `topic` that it is ready, and waits for `begin_here`."""
    worker, slot = get_worker(), _slot()
    wanted = _wanted(worker)

    def go_on() -> None:
        if not wanted():
            raise Unwanted

    def ready() -> float:
        worker.log_event(topic, host)
        while topic not in slot.begins:
            go_on()
            time.sleep(_TURN_SECONDS)
        return slot.begins.pop(topic)

    return send_share(asked, host, hosts, ready=ready, go_on=go_on)


def begin_here(topic: str, moment: float, dask_worker: Worker) -> None:
    """Not a task, which would have to wait for the slot: what Dask runs at once. `moment` is of the wall clock."""
    slot = dask_worker.plugins[_PLUGIN]
    assert isinstance(slot, BenchSlot)
    slot.begins[topic] = moment


def release_here() -> None:
    """Stop what was started."""
    _slot().close()


def _wanted(worker: Worker) -> Callable[[], bool]:
    """Whether anybody waits for the present task, as Dask says: nobody when its future was cancelled, or the owner went away."""
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state not in {"cancelled", "released", "forgotten"}

    return wanted


def _slot() -> BenchSlot:
    worker = get_worker()
    slot = worker.plugins.get(_PLUGIN)
    if not isinstance(slot, BenchSlot):
        raise RuntimeUnavailable(
            f"the Dask worker {worker.address} has no bench",
            hint="start bench workers by: tritonctl bench worker --scheduler tcp://HOST:PORT",
        )
    return slot


def bench_worker(scheduler: str, slot: BenchSlot, *, name: str | None, directory: str) -> Worker:
    """`async with` it. One thread, no nanny: the bench dies with this process."""
    return Worker(scheduler, nthreads=1, resources={RESOURCE: 1}, plugins=(slot,), name=name, local_directory=directory)
