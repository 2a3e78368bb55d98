# Acceptance 6: a worker that is stopped (SIGSTOP) inside a transaction, whose locks others wait for.
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from tests.faults.walks import Step, check_rest, rest, url_of
from tests.faults.workers import Wound, started, wait_stopped
from tests.live.installation import Installation


@pytest.fixture
def dialect() -> str:
    """SQLite cannot take a lock from a living process; its one worker runs beside it, and one stops both."""
    return "postgresql"


def test_acceptance_6_a_worker_stopped_while_it_renews_its_lease_keeps_nobody_waiting_for_long(
    at: Installation, database: Database, tmp_path: Path
) -> None:
    model = "renewing"
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    view = at.start(at.propose(model, versions=(2,)))
    wound, names = Wound("stop", 0, renewing=True), tmp_path / "names"
    with started(at.settings, url_of(database), wound, change=view.request.id, names=names) as process:
        assert wait_stopped(process)
        since = time.monotonic()
        assert rest(at, view).request.state is ChangeState.APPLIED
        assert time.monotonic() - since < 28  # PostgreSQL ends this worker's transaction after 2 s, others' after 30
        assert process.pid is not None
        os.kill(process.pid, signal.SIGCONT)
        process.join(90)
        assert process.exitcode == 0
    check_rest(at, Step(model, view, ChangeState.APPLIED, 3.0))
