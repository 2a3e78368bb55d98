# A load that the bench hosts of a Dask cluster send together, for a server that one host cannot bring to its limit.
from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from clients.load.errors import LoadFailed
from clients.load.hosts import Asked, Share, merged
from clients.load.jobs import Load, Target
from clients.load.measure import Measurement
from clients.load.processes import NOTHING, Records
from clients.load.statistics import Interval
from clients.load.traffic import Traffic
from clients.load.verdicts import Limits
from controlplane.bench.cluster import bench_workers, connect
from controlplane.errors import ServerUnreachable

if TYPE_CHECKING:
    from distributed import Future

_READY_SECONDS = 120.0
_LEAD_SECONDS = 1.0
_TURN_SECONDS = 0.25
_RESULT_SECONDS = 60.0


class SeveralHosts:
    """Measures as clients.load.measure.measure does, from so many bench workers, or from all; `with` it. A slot is waited for."""

    def __init__(self, scheduler: str, hosts: int | None = None) -> None:
        self._scheduler = scheduler
        self._hosts = hosts

    def __enter__(self) -> Self:
        self._client = connect(self._scheduler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def __call__(
        self,
        target: Target,
        messages: Traffic,
        load: Load,
        limits: Limits,
        *,
        processes: int = 1,
        connections: int = 1,
        seed: int = 0,
        ceiling: float = np.inf,
        progress: Callable[[float, Records], bool] = lambda _seconds, _records: True,
        known: Callable[[Interval, Interval], None] = lambda _rate, _watched: None,  # noqa: ARG002  # nobody knows before the end
    ) -> Measurement:
        """`processes` and `connections` are each host's. It lasts `limits.seconds`, and is not ended before. Raises LoadFailed."""
        from controlplane.bench import slot

        workers = bench_workers(self._client)[: self._hosts]
        if not workers or len(workers) < (self._hosts or 1):
            raise ServerUnreachable(
                f"{self._hosts or 1} bench workers are wanted, and {len(workers)} are at {self._scheduler}",
                hint=f"start more: tritonctl bench worker --scheduler {self._scheduler}",
            )
        asked = Asked(target, messages, load, replace(limits, cap=limits.seconds), processes, connections, seed)

        def goes_on(seconds: float) -> bool:
            if not progress(max(seconds - _LEAD_SECONDS, 0.0), NOTHING):
                raise LoadFailed("it was stopped, and what several hosts sent is known at the end alone")
            return False

        topic, ready = f"tritonctl-{uuid.uuid4().hex}", SimpleQueue[object]()
        self._client.subscribe_topic(topic, ready.put)
        shares = [
            self._client.submit(
                slot.send_here, asked, host, len(workers), topic,
                workers=[worker], resources={slot.RESOURCE: 1}, pure=False,
            )
            for host, worker in enumerate(workers)
        ]  # fmt: skip
        try:
            self._wait(shares, workers, lambda _: ready.qsize() >= len(workers), _READY_SECONDS)
            self._client.run(slot.begin_here, topic, time.time() + _LEAD_SECONDS, workers=workers)
            self._wait(shares, workers, goes_on, np.inf)
            return merged(asked, [share.result(timeout=_RESULT_SECONDS) for share in shares], ceiling=ceiling)
        except (CancelledError, OSError, RuntimeError):
            raise LoadFailed("the Dask scheduler or one of its workers went away in the middle") from None
        finally:
            self._client.unsubscribe_topic(topic)
            for share in shares:
                share.cancel()

    def _wait(
        self, shares: list[Future[Share]], workers: list[str], enough: Callable[[float], bool], most: float
    ) -> None:
        """Until all have ended, or one failed, or it is enough."""
        begun = time.monotonic()
        while not all(share.done() for share in shares):
            time.sleep(_TURN_SECONDS)
            if enough(time.monotonic() - begun) or any(share.status in {"error", "cancelled"} for share in shares):
                return
            if gone := set(workers) - set(bench_workers(self._client)):
                raise LoadFailed(f"the bench worker at {min(gone)} went away in the middle")
            if time.monotonic() > begun + most:
                raise LoadFailed(f"not all bench workers were free within {most:.0f} s")
