# Acceptance 6: a worker killed at every boundary of a stuck change's resolution by a restart of our own server.
"""By SIGKILL, on SQLite, which is what a server of our own runs beside. The load never returns in any of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from controlplane.triton.runtime.keeper import ServerKeeper
from tests.faults.walks import Step, Walk, check_rest, rest, url_of, walked
from tests.live.installation import ENV, Installation, effects
from tests.live.opaque import opaque_config, register_opaque, sleeping_while, source
from tests.live.servers import LiveTriton

MODEL = "hanging"


@pytest.fixture
def dialect() -> str:
    return "sqlite"


@pytest.fixture
def at(tmp_path: Path, database: Database, supervised: LiveTriton) -> Iterator[Installation]:
    """Version 1 doubles; the load of version 2 does not end."""
    for installation in walked(tmp_path, database, supervised):
        marker = tmp_path / "marker"
        marker.touch()
        register_opaque(installation, MODEL, source(2.0), answers=2.0)
        register_opaque(installation, MODEL, source(3.0, prologue=sleeping_while(str(marker))), answers=3.0)
        first = installation.deploy(MODEL, versions=(1,), config=opaque_config(installation, MODEL))
        assert first.request.state is ChangeState.APPLIED, first.request.message
        yield installation
        marker.unlink()


def held(at: Installation) -> str | None:
    return ServerKeeper(at.triton.home, at.triton.repository, alive=lambda: True).held()


def allow(at: Installation, *, seconds: int) -> None:
    """That is how long a load may take from here on."""
    at.environments.set_policy(at["admin"], ENV, {"load_timeout_seconds": seconds}, expected_number=None)


def restart(at: Installation) -> Step:
    allow(at, seconds=2)
    view = at.deploy(MODEL, versions=(2,))
    assert view.request.state is ChangeState.STUCK, view.request
    allow(at, seconds=60)  # as what is loaded from here on has an end, however late
    at.changes.resume(at["admin"], view.request.id, "restart")
    return Step(MODEL, view, ChangeState.UNDONE, 2.0)


@pytest.mark.timeout(900)
def test_acceptance_6_a_restart_of_the_server_survives_every_boundary(
    at: Installation, database: Database, tmp_path: Path
) -> None:
    def check(_step: Step) -> None:
        assert (held(at), at.files(MODEL)) == (None, ["1/__pycache__", "1/model.py", "config.pbtxt"])

    Walk(at, url_of(database), tmp_path, lambda: restart(at), check=check).every("kill")


def test_acceptance_6_a_rollback_goes_on_with_a_restart_that_it_preempts(at: Installation) -> None:
    """The server is down, and its files are still those of the load that never returns: a server that started on them
    would hang before it could be asked anything."""
    stuck = restart(at)
    backs = []

    def preempt(name: str) -> None:
        if name == "after back kill_server":
            backs.append(at.changes.rollback(at["author"], ENV, MODEL, to=None, reason="at once"))

    at.worker(boundary=preempt).once()
    assert (at.show(stuck.view).request.state, held(at)) == (ChangeState.UNDONE, MODEL)

    ended = rest(at, backs[0])

    assert effects(ended) == ["kill_server", "remove_version", "write_config", "release_server", "load"]
    check_rest(at, Step(MODEL, ended, ChangeState.APPLIED, 2.0))
