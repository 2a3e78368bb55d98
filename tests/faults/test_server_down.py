# Acceptance 6: Triton dies, restarts or forgets a model while changes are applied and deployments are watched.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import Database
from tests.live.installation import ENV, Installation, install
from tests.live.opaque import opaque_config, register_opaque, sleeping_while, source
from tests.live.servers import MakeTriton

MODEL = "fallen"


@pytest.fixture
def dialect() -> str:
    """What is shown here is about Triton; the kill walk covers both databases."""
    return "sqlite"


@pytest.fixture
def at(tmp_path: Path, database: Database, make_triton: MakeTriton) -> Iterator[Installation]:
    installation = install(tmp_path, database, make_triton(name="own"))
    yield installation
    installation.check_audit()


def restart(at: Installation) -> None:
    at.triton.process.kill()
    at.triton.process.start()
    at.triton.process.wait_ready(120)


def actions(at: Installation) -> list[str]:
    return [entry.action for entry in at.audit(("model", MODEL)) if entry.action.startswith(("deployment.", "change."))]


def settled(at: Installation, view: ChangeView) -> ChangeState:
    """What a stuck change comes to: each watch waits a few seconds for what is still loaded."""
    for _ in range(10):
        at.drift(MODEL)
        if (state := at.show(view).request.state) in {ChangeState.APPLIED, ChangeState.UNDONE}:
            break
    return state


def test_acceptance_6_a_model_that_was_unloaded_behind_our_back_is_served_again_and_audited(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    with InferenceServerClient(at.triton.grpc) as client:
        client.unload_model(MODEL, headers=at.triton.headers)
    assert at.served(MODEL) == []

    assert at.drift(MODEL) == ()

    assert (at.answer(MODEL), at.served(MODEL)) == (2.0, [1])
    assert actions(at)[0] == "deployment.healed"


def test_acceptance_6_a_server_that_is_away_is_reported_until_it_is_back(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    at.triton.process.kill()
    assert at.drift(MODEL) == ("cannot be observed (server.unreachable)",)
    assert at.drift(MODEL) == ("cannot be observed (server.unreachable)",)
    at.triton.process.start()
    at.triton.process.wait_ready(120)
    assert (at.drift(MODEL), at.answer(MODEL)) == ((), 2.0)
    assert actions(at)[:3] == ["deployment.reconciled", "deployment.drifted", "change.applied"]


def test_a_watch_that_fails_unexpectedly_is_reported_and_the_next_one_heals(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    with InferenceServerClient(at.triton.grpc) as client:
        client.unload_model(MODEL, headers=at.triton.headers)

    def stumble(name: str) -> None:
        raise ZeroDivisionError(name)

    assert at.drift(MODEL, at.worker(boundary=stumble)) == ("cannot be observed (ZeroDivisionError)",)
    assert (at.drift(MODEL), at.answer(MODEL)) == ((), 2.0)


def test_acceptance_6_a_server_that_dies_before_a_load_is_waited_for_and_the_change_undone(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.register(MODEL, 3.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    at.environments.set_policy(at["admin"], ENV, {"load_timeout_seconds": 5}, expected_number=None)

    def fall(name: str) -> None:
        if name == "before forward load":
            at.triton.process.kill()

    view = at.finish(at.start(at.propose(MODEL, versions=(2,))), at.worker(boundary=fall))
    assert (view.request.state, view.direction) == (ChangeState.STUCK, "back")
    assert "no Triton can be reached" in view.request.message

    at.triton.process.start()
    at.triton.process.wait_ready(120)

    assert settled(at, view) is ChangeState.UNDONE
    assert (at.answer(MODEL), at.served(MODEL)) == (2.0, [1])
    assert at.files(MODEL) == ["1/model.onnx", "config.pbtxt"]
    assert at.drift(MODEL) == ()


def test_acceptance_6_a_server_that_restarts_before_a_load_delays_the_change_only(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.register(MODEL, 3.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))

    def fall(name: str) -> None:
        if name == "before forward load":
            restart(at)

    view = at.finish(at.start(at.propose(MODEL, versions=(2,))), at.worker(boundary=fall))
    assert (view.request.state, view.request.message) == (ChangeState.APPLIED, "")
    assert (at.answer(MODEL), at.served(MODEL)) == (3.0, [2])
    assert at.drift(MODEL) == ()


def test_acceptance_6_a_server_that_dies_in_a_load_leaves_the_change_stuck_until_it_is_back(
    at: Installation, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    register_opaque(at, MODEL, source(2.0), answers=2.0)
    register_opaque(at, MODEL, source(3.0, prologue=sleeping_while(str(marker))), answers=3.0)
    at.deploy(MODEL, versions=(1,), config=opaque_config(at, MODEL))
    marker.touch()

    def kill() -> None:
        _until(lambda: at.loading(MODEL))
        at.triton.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        view = at.deploy(MODEL, versions=(2,))
    finally:
        killer.join()
    assert view.request.state is ChangeState.STUCK
    assert "before the connection was lost" in view.request.message

    marker.unlink()
    at.triton.process.start()
    at.triton.process.wait_ready(120)

    assert settled(at, view) is ChangeState.APPLIED
    assert (at.answer(MODEL), at.served(MODEL)) == (3.0, [2])
    assert at.drift(MODEL) == ()


def test_a_change_says_that_it_waits_for_its_server_and_a_rollback_does_not_wait_with_it(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    at.environments.set_policy(at["admin"], ENV, {"load_timeout_seconds": 600}, expected_number=None)
    change = at.start(at.propose(MODEL, sets=(("instance_group[0].count", "2"),)))
    at.triton.process.kill()
    stop = threading.Event()
    worker = threading.Thread(target=at.worker().run, args=(stop,))
    worker.start()
    try:
        _until(lambda: at.show(change).request.message.startswith("waiting for the server: "))
        back = at.changes.rollback(at["author"], ENV, MODEL, to=1, reason="the server is away")
        _until(lambda: at.show(back).request.message.startswith("waiting for the server: "))
        at.triton.process.start()
        at.triton.process.wait_ready(120)
        _until(lambda: at.show(back).request.finished_at is not None)
    finally:
        stop.set()
        worker.join()
    assert (at.show(back).request.state, at.show(back).request.message) == (ChangeState.APPLIED, "")
    assert "pre-empted" in at.show(change).request.message


def test_a_change_no_longer_says_that_it_waits_once_its_server_answers(at: Installation) -> None:
    at.register(MODEL, 2.0)
    at.deploy(MODEL, versions=(1,), config=at.config(MODEL))
    at.environments.set_policy(at["admin"], ENV, {"load_timeout_seconds": 600}, expected_number=None)
    change = at.start(at.propose(MODEL, sets=(("instance_group[0].count", "2"),)))
    at.triton.process.kill()
    said: list[str] = []
    stop = threading.Event()
    noting = at.worker(boundary=lambda _name: said.append(at.show(change).request.message))
    worker = threading.Thread(target=noting.run, args=(stop,))
    worker.start()
    try:
        _until(lambda: at.show(change).request.message.startswith("waiting for the server: "))
        at.triton.process.start()
        _until(lambda: at.show(change).request.finished_at is not None)
    finally:
        stop.set()
        worker.join()
    assert at.show(change).request.state is ChangeState.APPLIED
    assert said
    assert set(said) == {""}


def _until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.1)
