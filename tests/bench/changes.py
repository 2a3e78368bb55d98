# What a change costs beside Triton's own load: apply, roll back, roll back warm.
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.domain.blockers import ROLLED_BACK
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.triton.control import TritonServer
from tests.bench.report import Report
from tests.live.installation import ENV, Installation, install
from tests.live.servers import LiveTriton

TURNS = 7


def measure(report: Report, scratch: Path, triton: LiveTriton) -> None:
    home = scratch / "changes"
    home.mkdir()
    database = create_database(f"sqlite:///{home / 'db.sqlite'}")
    upgrade(database)
    at = install(home, database, triton)
    worker = at.worker()

    def timed(begin: Iterator[ChangeView], loads: list[float]) -> tuple[float, float]:
        """Seconds from asking until it is recorded, without Triton's load; and the load's own."""
        loads.clear()
        start = time.monotonic()
        view = at.finish(next(begin), worker)
        taken = time.monotonic() - start
        assert view.request.state.value == "applied", view.request.message
        return taken - sum(loads), sum(loads)

    with _loads_timed() as loads:
        for warm in (False, True):
            model = "warm" if warm else "cold"
            at.environments.set_policy(at["admin"], ENV, {"keep_warm": warm}, expected_number=None)
            at.register(model, 2.0)
            at.register(model, 3.0)
            at.deploy(model, versions=(1,), config=at.config(model))
            applies, rollbacks = [], []
            for _ in range(TURNS):
                view = at.propose(model, versions=(2,), acknowledge=(ROLLED_BACK,))
                at.changes.approve(at["approver"], view.request.id, view.plan.digest, "bench")
                applies.append(timed(_apply(at, view), loads))
                rollbacks.append(timed(_roll_back(at, model), loads))
            what = "kept warm" if warm else "version changed"
            for name, pairs in (("apply", applies), ("rollback", rollbacks)):
                own, triton_s = ([1000 * pair[i] for pair in pairs] for i in (0, 1))
                report.add(f"{name}, {what}, less Triton's load", "ms", own, triton_s, "Triton's load call")
    database.close()


def _apply(at: Installation, view: ChangeView) -> Iterator[ChangeView]:
    yield at.changes.apply(at["author"], view.request.id)


def _roll_back(at: Installation, model: str) -> Iterator[ChangeView]:
    yield at.changes.rollback(at["author"], ENV, model, to=1, reason="bench")


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
