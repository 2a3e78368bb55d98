# Acceptance 6: a worker killed, stopped or failed between every two external effects of an apply, an undo and a rollback.
from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.domain.config_revision import revision_config
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import Database
from controlplane.triton.pbtxt import PbtxtCodec
from tests.faults.workers import started, wait_stopped
from tests.live.installation import ENV, Installation, install
from tests.live.servers import LiveTriton

Flow = Callable[[Installation, str], tuple[ChangeView, float]]
"""Starts a change; the answer is what the server gives when it went through."""


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Installation:
    installation = install(tmp_path, database, triton)
    settings = installation.settings.model_copy(
        update={"worker": installation.settings.worker.model_copy(update={"lease_seconds": 0.6})}
    )
    installation.settings = settings
    return installation


def prepare(at: Installation, model: str) -> None:
    """Revision 1 serves version 1 (factor 2), revision 2 version 2 (factor 3)."""
    at.register(model, 2.0)
    at.register(model, 3.0)
    assert at.deploy(model, versions=(1,), config=at.config(model)).request.state is ChangeState.APPLIED
    assert at.deploy(model, versions=(2,)).request.state is ChangeState.APPLIED


def apply(at: Installation, model: str) -> tuple[ChangeView, float]:
    """A version that the repository never saw, and a reloading config change, in one."""
    number = len(at.catalog.versions(at["author"], model)) + 1
    at.register(model, float(number + 1))
    view = at.propose(model, versions=(number,), sets=(("dynamic_batching.max_queue_delay_microseconds", "100"),))
    return at.start(view), float(number + 1)


def undo(at: Installation, model: str) -> tuple[ChangeView, float]:
    """A change that Triton refuses at load: it asks for a library of operators that is not there. The answer stays."""
    if len(at.catalog.versions(at["author"], model)) == 2:
        at.register(model, 5.0)
    view = at.propose(model, versions=(3,), sets=(("model_operations.op_library_filename[+]", "missing.so"),))
    return at.start(view), 3.0


def rollback(at: Installation, model: str) -> tuple[ChangeView, float]:
    return back(at, model, 1), 2.0


def back(at: Installation, model: str, revision: int) -> ChangeView:
    """Started; what was rolled back before needs an approval to be gone back to."""
    view = at.changes.rollback(at["author"], ENV, model, to=revision, reason="walk")
    return at.start(view) if view.request.state is ChangeState.OPEN else view


FLOWS: dict[str, tuple[Flow, ChangeState]] = {
    "apply": (apply, ChangeState.APPLIED),
    "undo": (undo, ChangeState.UNDONE),
    "rollback": (rollback, ChangeState.APPLIED),
}


def restore(at: Installation, model: str) -> None:
    """Back to version 2 with the first config, whatever the flow left."""
    if at.answer(model) != 3.0:
        assert at.finish(back(at, model, 2)).request.state is (ChangeState.APPLIED)
    assert at.answer(model) == 3.0


def check_rest(at: Installation, model: str, view: ChangeView, state: ChangeState, answer: float) -> None:
    """The change ended, the files and the answers are the recorded revision's, and nothing is half done."""
    seen = at.show(view)
    assert (seen.request.state, at.answer(model)) == (state, answer), seen.request.message
    deployment = at.environments.deployment(at["author"], ENV, model)
    assert deployment.deployment.active_change is None
    assert deployment.current is not None
    config = PbtxtCodec().parse((at.triton.repository / model / "config.pbtxt").read_text())
    assert deployment.current.content.config is not None
    assert config == revision_config(deployment.current.content.config, deployment.current.content.numbers)
    worker = at.worker("checker")
    worker.once()  # a watch: bytes, config, answers and instances against the accepted revision
    assert at.environments.deployment(at["author"], ENV, model).deployment.drift == ()


def boundaries(at: Installation, url: str, view: ChangeView, names: Path) -> list[str]:
    with started(at.settings, url, mode="record", at=-1, change=view.request.id, names=names) as process:
        process.join(60)
        assert process.exitcode == 0
    return names.read_text().splitlines()


def database_url(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("dialect", "mode"), [("sqlite", "kill"), ("postgresql", "kill"), ("sqlite", "stop"), ("sqlite", "fail")]
)
def test_every_boundary_of_every_flow_survives(
    at: Installation, database: Database, dialect: str, tmp_path: Path, *, flow: str, mode: str
) -> None:
    ask, state = FLOWS[flow]
    """Acceptance 6. That each effect may run twice is shown in tests/unit/triton/test_repository.py; here the journal's
    unfinished effects are met again by whoever takes over, who goes by what it observes."""
    model = f"{flow}_{mode}_{os.getpid()}_{dialect}"
    prepare(at, model)
    view, answer = ask(at, model)
    found = boundaries(at, database_url(database), view, tmp_path / "names")
    check_rest(at, model, view, state, answer)
    assert len(found) >= 4, found
    for number, name in enumerate(found):
        restore(at, model)
        view, answer = ask(at, model)
        names = tmp_path / str(number)
        url = database_url(database)
        with started(at.settings, url, mode=mode, at=number, change=view.request.id, names=names) as process:
            if mode == "stop":
                assert wait_stopped(process), name
            else:
                process.join(60)
                assert process.exitcode == (-signal.SIGKILL if mode == "kill" else 0), name
            expected, value = state, answer
            if mode == "fail":
                if name.startswith("forward") or " forward " in name:
                    expected, value = ChangeState.UNDONE, 3.0
                if at.show(view).request.state is ChangeState.STUCK:
                    at.changes.resume(at["author"], view.request.id, "retry")
            rested = at.finish(view, passes=200)
            assert rested.request.state is expected, (name, rested.request)
            if mode == "stop":
                assert process.pid is not None
                os.kill(process.pid, signal.SIGCONT)
                process.join(60)
                assert process.exitcode == 0, name
        check_rest(at, model, view, expected, value)
