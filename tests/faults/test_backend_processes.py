# Acceptance 6: a killed and a hung backend process behind a model that says READY are found, healed and audited.
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tritonclient.grpc import InferenceServerClient

from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from tests.faults.backends import backends
from tests.live.installation import Installation, install
from tests.live.servers import MakeTriton


@pytest.fixture
def dialect() -> str:
    """What is shown here is about Triton; the kill walk covers both databases."""
    return "sqlite"


@pytest.fixture
def at(tmp_path: Path, database: Database, make_triton: MakeTriton) -> Iterator[Installation]:
    installation = install(tmp_path, database, make_triton(name="own"))
    worker = installation.settings.worker.model_copy(update={"probe_seconds": 8.0})
    installation.settings = installation.settings.model_copy(update={"worker": worker})
    yield installation
    installation.check_audit()


def says_ready(at: Installation, model: str) -> bool:
    with InferenceServerClient(at.triton.grpc) as client:
        return bool(client.is_server_ready() and client.is_model_ready(model))


def check_healed(at: Installation, model: str, old: list[int]) -> None:
    deadline = time.monotonic() + 60
    while set(backends(at.triton, model)) & set(old) and time.monotonic() < deadline:
        time.sleep(0.05)  # the healthy ones drain
    assert len(backends(at.triton, model)) == 2
    assert not set(backends(at.triton, model)) & set(old)
    assert [at.answer(model) for _ in range(10)] == [2.0] * 10
    healed = [entry for entry in at.audit(("model", model)) if entry.action == "deployment.healed"]
    assert len(healed) == 1
    assert healed[0].actor.name == "system"
    assert "instances seen to answer" in str(healed[0].details["why"])
    assert at.drift(model) == ()


def deploy(at: Installation, model: str) -> list[int]:
    at.register(model, 2.0)
    group = {"name": f"{model}_cpu", "kind": "KIND_CPU", "count": 2}
    view = at.deploy(model, versions=(1,), config=at.config(model, instance_group=[group]))
    assert view.request.state is ChangeState.APPLIED, view.request.message
    old = backends(at.triton, model)
    assert len(old) == 2
    return old


def test_acceptance_6_a_killed_backend_process_is_found_and_healed(at: Installation) -> None:
    old = deploy(at, "killed")
    os.kill(old[0], signal.SIGKILL)
    time.sleep(0.5)
    assert says_ready(at, "killed")

    assert at.drift("killed") == ()

    check_healed(at, "killed", old)


def test_acceptance_6_a_hung_backend_process_is_found_healed_and_killed(at: Installation) -> None:
    old = deploy(at, "hung")
    os.kill(old[1], signal.SIGSTOP)
    try:
        assert says_ready(at, "hung")

        assert at.drift("hung") == ()

        assert not psutil.pid_exists(old[1]) or psutil.Process(old[1]).status() == psutil.STATUS_ZOMBIE
        check_healed(at, "hung", old)
    finally:
        with suppress(ProcessLookupError):
            os.kill(old[1], signal.SIGKILL)


def test_acceptance_6_a_change_of_a_model_with_a_killed_backend_process_goes_through(at: Installation) -> None:
    old = deploy(at, "both")
    os.kill(old[0], signal.SIGKILL)
    view = at.deploy("both", sets=(("instance_group[0].count", "3"),))
    assert (view.request.state, view.request.message) == (ChangeState.APPLIED, "")
    assert [at.answer("both") for _ in range(12)] == [2.0] * 12
    assert "3 of 3 instances seen to answer" in [proof["seen"] for proof in view.request.proofs]
