# Acceptance 6: no request is lost while changes are applied and rolled back; what a rollback costs besides Triton's load.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.settings import WorkerSettings
from tests.faults.backends import backends
from tests.live.installation import ENV, Installation, effects
from tests.live.servers import LiveTriton, MakeTriton
from tests.live.steady import steady_client

RATE = 200.0

# On one database: what is shown here is about Triton; the kill walk covers both databases.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


@pytest.fixture
def triton(make_triton: MakeTriton) -> LiveTriton:
    return make_triton(name="own")


def rest(at: Installation, view: ChangeView, seconds: float = 120) -> ChangeView:
    """Wait for the worker that runs beside the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = at.show(view)
        if seen.request.state not in (ChangeState.APPLYING, ChangeState.UNDOING):
            return seen
        time.sleep(0.2)  # rarely: the worker is in this process too
    raise AssertionError(f"change {view.request.id} did not rest in {seconds} s")


@contextmanager
def working(at: Installation) -> Iterator[None]:
    """A worker as `tritonctl worker` runs it, with its ordinary pauses."""
    at.settings = at.settings.model_copy(update={"worker": WorkerSettings()})
    worker, stop = at.worker(), threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def test_acceptance_6_a_steady_client_loses_nothing_in_changes_and_their_rollbacks(at: Installation) -> None:
    at.register("steady", 2.0)
    at.register("steady", 3.0)
    at.deploy("steady", versions=(1,), config=at.config("steady"))
    asked: list[Callable[[], ChangeView]] = [
        lambda: at.start(at.propose("steady", sets=(("instance_group[0].count", "2"),))),
        lambda: at.changes.rollback(at["author"], ENV, "steady", to=1, reason="in place"),
        lambda: at.start(at.propose("steady", versions=(2,))),
        lambda: at.changes.rollback(at["author"], ENV, "steady", to=1, reason="version"),
    ]
    states = []
    with working(at), steady_client(at.triton.grpc, "steady", rate=RATE) as tally:
        time.sleep(0.5)
        for ask in asked:
            states.append(rest(at, ask()).request.state)
            time.sleep(0.3)
    assert states == [ChangeState.APPLIED] * 4
    assert tally.errors == []
    assert tally.answered == tally.sent
    assert set(tally.answers) == {2.0, 3.0}
    assert tally.sent >= 0.5 * RATE * tally.seconds
    print(f"{tally.sent} requests in {tally.seconds:.1f} s, none lost, the slowest took {tally.slowest * 1000:.0f} ms")


def test_acceptance_6_a_rollback_to_a_warm_version_costs_little_besides_tritons_load(at: Installation) -> None:
    at.environments.set_policy(at["admin"], ENV, {"keep_warm": True}, expected_number=None)
    at.register("warm", 2.0)
    at.register("warm", 3.0)
    at.deploy("warm", versions=(1,), config=at.config("warm"))
    own = []
    with working(at):
        for _ in range(5):
            up = rest(at, at.start(at.propose("warm", versions=(2,), acknowledge=("rolled_back",))))
            assert (up.request.state, at.served("warm")) == (ChangeState.APPLIED, [1, 2]), up.request.message
            running = backends(at.triton, "warm")
            asked = at.clock.now()
            back = rest(at, at.changes.rollback(at["author"], ENV, "warm", to=1, reason="it was better"))
            assert (back.request.state, at.answer("warm"), at.served("warm")) == (ChangeState.APPLIED, 2.0, [1])
            assert effects(back) == ["write_config", "load"]
            begun, ended = back.journal[-1].started_at, back.journal[-1].finished_at
            assert ended is not None
            assert back.request.finished_at is not None
            assert set(backends(at.triton, "warm")) <= set(running)  # nothing was started anew
            own.append((back.request.finished_at - asked - (ended - begun)).total_seconds())
    print("the rollback's own time: " + ", ".join(f"{seconds * 1000:.0f} ms" for seconds in sorted(own)))
    assert min(own) < 5  # in order of magnitude: what it is on a machine of its own is for the benchmark to say
