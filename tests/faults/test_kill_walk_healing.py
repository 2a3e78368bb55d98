# Acceptance 6: a worker killed, stopped or failed at every boundary of healing: the model is healed or reported, and audited.
"""On SQLite a model that Triton forgot is loaded again; on PostgreSQL a backend process is dead behind a model that says
READY. Each boundary once by each of the ways that are named; a watch of another worker follows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from controlplane.domain.converge import Effect
from controlplane.storage.database import Database
from tests.faults.backends import backends
from tests.faults.walks import WALKS, url_of, walked, watched
from tests.faults.workers import Wound, started, wait_stopped
from tests.live.installation import ENV, Installation
from tests.live.servers import LiveTriton, MakeTriton

MODEL = "healed"


@pytest.fixture
def own(make_triton: MakeTriton) -> LiveTriton:
    """Backend processes are killed here: nobody else's model shall be near."""
    return make_triton(name="own")


@pytest.fixture
def at(tmp_path: Path, database: Database, own: LiveTriton) -> Iterator[Installation]:
    for installation in walked(tmp_path, database, own):
        worker = installation.settings.worker.model_copy(update={"probe_seconds": 8.0})
        installation.settings = installation.settings.model_copy(update={"worker": worker})
        installation.register(MODEL, 2.0)
        installation.deploy(MODEL, versions=(1,), config=installation.config(MODEL))
        assert watched(installation, MODEL) == ()
        yield installation


def forget(at: Installation) -> None:
    with InferenceServerClient(at.triton.grpc) as client:
        client.unload_model(MODEL, headers=at.triton.headers)
    while at.served(MODEL):
        time.sleep(0.02)


def kill_the_backend(at: Installation) -> None:
    for pid in backends(at.triton, MODEL):  # the one that drains, too
        os.kill(pid, signal.SIGKILL)


def said(at: Installation) -> list[str]:
    """What the log has of this deployment, the newest first."""
    entries = at.audit(("model", MODEL))
    return [entry.action for entry in entries if entry.action.startswith("deployment.")]


def heal(at: Installation, url: str, wound: Wound, names: Path) -> None:
    """A watch that is hurt, and one of another worker."""
    with started(at.settings, url, wound, change=None, names=names) as process:
        if wound.mode == "stop":
            assert wait_stopped(process)
        else:
            process.join(WALKS)
            assert process.exitcode == (-signal.SIGKILL if wound.mode == "kill" else 0)
        assert watched(at, MODEL) == ()
        if wound.mode == "stop":
            assert process.pid is not None
            os.kill(process.pid, signal.SIGCONT)
            process.join(WALKS)
            assert process.exitcode == 0
    assert watched(at, MODEL) == ()
    assert (at.served(MODEL), at.answer(MODEL)) == ([1], 2.0)
    with at.storage.read() as unit:
        assert not unit.changes.unresolved_load(at.triton.home.name, MODEL)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("dialect", "harm", "modes", "effects"),
    [
        ("sqlite", forget, ("kill", "stop", "fail"), (Effect.LOAD,)),
        ("postgresql", kill_the_backend, ("kill",), (Effect.TOUCH, Effect.LOAD)),
    ],
)
def test_acceptance_6_healing_survives_every_boundary(  # noqa: PLR0917
    at: Installation,
    database: Database,
    tmp_path: Path,
    harm: Callable[[Installation], None],
    modes: tuple[str, ...],
    effects: tuple[Effect, ...],
) -> None:
    harm(at)
    heal(at, url_of(database), Wound("record"), tmp_path / "names")
    found = (tmp_path / "names").read_text().splitlines()
    assert found == [f"{side} forward {effect.value}" for effect in effects for side in ("before", "after")]
    for mode in modes:
        for number in range(len(found)):
            before = len(said(at))
            harm(at)
            heal(at, url_of(database), Wound(mode, number), tmp_path / f"{mode}{number}")
            new = said(at)[: len(said(at)) - before]
            # What failed was reported; what was cut off is healed by the next watch, and said to be.
            assert "deployment.healed" in new or (mode, new[-1]) == ("fail", "deployment.drifted"), (mode, number, new)
    assert at.environments.deployment(at["author"], ENV, MODEL).deployment.revision == 1
