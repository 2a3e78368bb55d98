# What a change costs beside Triton's own load: apply, roll back, roll back warm.
from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from controlplane.domain.blockers import ROLLED_BACK
from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.settings import Settings, WorkerSettings
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.control import TritonServer
from controlplane.wiring import SystemClock, build_worker
from tests.bench.report import Report
from tests.live.installation import ENV, install
from tests.live.servers import LiveTriton

TURNS = 7


def measure(report: Report, scratch: Path, triton: LiveTriton) -> None:
    """With the worker of a production installation beside it, in a process of its own: how long it takes until it looks
    for work counts."""
    home = scratch / "changes"
    home.mkdir()
    url = f"sqlite:///{home / 'db.sqlite'}"
    database = create_database(url)
    upgrade(database)
    at = install(home, database, triton)
    settings = at.settings.model_copy(update={"worker": WorkerSettings()})

    with _working(settings, url) as loads:

        def timed(begin: Callable[[], ChangeView]) -> tuple[float, float]:
            """Milliseconds from asking until it is recorded, without Triton's load; and the load's own."""
            start = datetime.now(UTC)
            request = begin().request
            while request.finished_at is None:
                time.sleep(0.02)
                with at.storage.read() as unit:
                    request = unit.changes.get(request.id)
            assert request.state is ChangeState.APPLIED, request.message
            taken, load = (request.finished_at - start).total_seconds(), 0.0
            while loads.poll():
                load += loads.recv()
            return 1000 * (taken - load), 1000 * load

        for warm in (False, True):
            model = "warm" if warm else "cold"
            at.environments.set_policy(at["admin"], ENV, {"keep_warm": warm}, expected_number=None)
            at.register(model, 2.0)
            at.register(model, 3.0)
            timed(partial(at.start, at.propose(model, versions=(1,), config=at.config(model))))
            back = partial(at.changes.rollback, at["author"], ENV, model, to=1, reason="bench")
            applies, rollbacks = [], []
            for _ in range(TURNS):
                view = at.propose(model, versions=(2,), acknowledge=(ROLLED_BACK,))
                at.changes.approve(at["approver"], view.request.id, view.plan.digest, "bench")
                applies.append(timed(partial(at.changes.apply, at["author"], view.request.id)))
                rollbacks.append(timed(back))
            what = "kept warm" if warm else "version changed"
            for name, pairs in (("apply", applies), ("rollback", rollbacks)):
                own, triton_ms = ([pair[i] for pair in pairs] for i in (0, 1))
                report.add(f"{name}, {what}, less Triton's load", "ms", own, triton_ms, "Triton's load call")
    database.close()


@contextmanager
def _working(settings: Settings, url: str) -> Iterator[Connection]:
    """A worker, and the seconds of each of its load calls."""
    mine, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(settings, url, theirs), daemon=True)
    process.start()
    try:
        yield mine
    finally:
        process.kill()
        process.join()


def _work(settings: Settings, url: str, loads: Connection) -> None:
    load = TritonServer.load

    def timed(self: TritonServer, model: str, *, deadline_seconds: float) -> None:
        begin = time.monotonic()
        try:
            load(self, model, deadline_seconds=deadline_seconds)
        finally:
            loads.send(time.monotonic() - begin)

    TritonServer.load = timed  # type: ignore[method-assign]
    storage = Storage(create_database(url), SystemClock().now)
    working = build_worker(settings, storage, name="bench")
    gc.freeze()  # as `tritonctl worker` does
    working.run(threading.Event())
