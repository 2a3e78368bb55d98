# What a change costs beside Triton's own load: apply, roll back, roll back warm.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from controlplane.domain.blockers import ROLLED_BACK
from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.settings import WorkerSettings
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.triton.control import TritonServer
from tests.bench.report import Report
from tests.live.installation import ENV, Installation, install
from tests.live.servers import LiveTriton

TURNS = 7


def measure(report: Report, scratch: Path, triton: LiveTriton) -> None:
    """With the worker of a production installation beside it: how long it takes until it looks for work counts."""
    home = scratch / "changes"
    home.mkdir()
    database = create_database(f"sqlite:///{home / 'db.sqlite'}")
    upgrade(database)
    at = install(home, database, triton)
    at.settings = at.settings.model_copy(update={"worker": WorkerSettings()})

    def timed(begin: Callable[[], ChangeView], loads: list[float]) -> tuple[float, float]:
        """Milliseconds from asking until it is recorded, without Triton's load; and the load's own."""
        loads.clear()
        start = datetime.now(UTC)
        request = begin().request
        while request.finished_at is None:
            time.sleep(0.02)
            with at.storage.read() as unit:
                request = unit.changes.get(request.id)
        assert request.state is ChangeState.APPLIED, request.message
        taken = (request.finished_at - start).total_seconds()
        return 1000 * (taken - sum(loads)), 1000 * sum(loads)

    with _loads_timed() as loads, _working(at):
        for warm in (False, True):
            model = "warm" if warm else "cold"
            at.environments.set_policy(at["admin"], ENV, {"keep_warm": warm}, expected_number=None)
            at.register(model, 2.0)
            at.register(model, 3.0)
            timed(partial(at.start, at.propose(model, versions=(1,), config=at.config(model))), loads)
            back = partial(at.changes.rollback, at["author"], ENV, model, to=1, reason="bench")
            applies, rollbacks = [], []
            for _ in range(TURNS):
                view = at.propose(model, versions=(2,), acknowledge=(ROLLED_BACK,))
                at.changes.approve(at["approver"], view.request.id, view.plan.digest, "bench")
                applies.append(timed(partial(at.changes.apply, at["author"], view.request.id), loads))
                rollbacks.append(timed(back, loads))
            what = "kept warm" if warm else "version changed"
            for name, pairs in (("apply", applies), ("rollback", rollbacks)):
                own, triton_ms = ([pair[i] for pair in pairs] for i in (0, 1))
                report.add(f"{name}, {what}, less Triton's load", "ms", own, triton_ms, "Triton's load call")
    database.close()


@contextmanager
def _working(at: Installation) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=at.worker().run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _loads_timed() -> Iterator[list[float]]:
    """Seconds of every load call, as our client sees it."""
    seconds: list[float] = []
    load = TritonServer.load

    def timed(self: TritonServer, model: str, *, deadline_seconds: float) -> None:
        begin = time.monotonic()
        try:
            load(self, model, deadline_seconds=deadline_seconds)
        finally:
            seconds.append(time.monotonic() - begin)

    TritonServer.load = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        TritonServer.load = load  # type: ignore[method-assign]
