# Acceptance 7: many apply overlapping changes at once while two workers converge; exactly one goes through.
from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.errors import ChangeBlocked
from controlplane.services.change_views import ChangeView
from controlplane.settings import Settings
from controlplane.storage.database import Database, create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import SystemClock, build_worker
from tests.live.installation import ENV, Installation, install
from tests.live.servers import LiveTriton

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["controlplane.wiring"])
MANY = 20


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Iterator[Installation]:
    installation = install(tmp_path, database, triton)
    yield installation
    installation.check_audit()


def _work(settings: Settings, url: str, name: str, stop: Event) -> None:
    worker = build_worker(settings, Storage(create_database(url), SystemClock().now), name=name)
    while not stop.wait(0.01):
        worker.once()


@contextmanager
def two_workers(at: Installation) -> Iterator[None]:
    """Processes of their own; they leave a deployment as soon as they are done with it, to claim it again at once."""
    url = at.storage.database.engine.url.render_as_string(hide_password=False)
    settings = at.settings.worker.model_copy(update={"watch_seconds": 0.01, "lease_seconds": 30.0})
    stop = _PROCESSES.Event()
    with ExitStack() as stack:
        for name in ("first", "second"):
            arguments = (at.settings.model_copy(update={"worker": settings}), url, name, stop)
            process = _PROCESSES.Process(target=_work, args=arguments, daemon=True)
            process.start()
            stack.callback(process.join, 10)
            stack.callback(process.kill)
        try:
            yield
        finally:
            stop.set()


def approved(at: Installation, model: str, delay: int) -> ChangeView:
    view = at.propose(model, sets=(("dynamic_batching.max_queue_delay_microseconds", str(delay)),))
    return at.changes.approve(at["approver"], view.request.id, view.plan.digest, "seen")


def apply(at: Installation, view: ChangeView) -> str:
    """`applied`, or the codes of what blocked it."""
    try:
        at.changes.apply(at["author"], view.request.id)
    except ChangeBlocked as error:
        blockers = error.details["blockers"]
        assert isinstance(blockers, list)
        return ",".join(sorted(str(blocker["code"]) for blocker in blockers if isinstance(blocker, dict)))
    return "applied"


def rested(at: Installation, view: ChangeView) -> ChangeState:
    deadline = time.monotonic() + 120
    while (state := at.show(view).request.state) is ChangeState.APPLYING and time.monotonic() < deadline:
        time.sleep(0.02)
    return state


def test_acceptance_7_of_twenty_overlapping_changes_applied_at_once_exactly_one_is(
    at: Installation, dialect: str
) -> None:
    model = f"parallel_{dialect}"
    at.register(model, 2.0)
    assert at.deploy(model, versions=(1,), config=at.config(model)).request.state is ChangeState.APPLIED
    views = [approved(at, model, 100 + number) for number in range(MANY)]

    with two_workers(at):
        with ThreadPoolExecutor(MANY) as pool:
            said = list(pool.map(lambda view: apply(at, view), views))
        winner = views[said.index("applied")]
        assert rested(at, winner) is ChangeState.APPLIED
        late = [apply(at, view) for view in views if view is not winner]

    assert Counter(said)["applied"] == 1
    assert set(said) - {"applied"} <= {"active", "stale", "active,stale"}
    assert late == ["stale"] * (MANY - 1)
    states = Counter(at.show(view).request.state for view in views)
    assert states == {ChangeState.APPLIED: 1, ChangeState.OPEN: MANY - 1}
    assert [r.revision.number for r in at.environments.revisions(at["author"], ENV, model)] == [2, 1]
    wished = at.show(winner).plan.desired.config
    assert wished is not None
    assert str(wished["dynamic_batching"]) in str(at.environments.deployment(at["author"], ENV, model).current)
    refused = [entry for entry in at.audit(("model", model)) if entry.action == "change.refused"]
    assert len(refused) == 2 * (MANY - 1)


def test_acceptance_7_two_workers_never_converge_the_same_deployment_at_once(at: Installation, dialect: str) -> None:
    model = f"turns_{dialect}"
    at.register(model, 2.0)
    assert at.deploy(model, versions=(1,), config=at.config(model)).request.state is ChangeState.APPLIED
    done = []
    with two_workers(at):
        for number in range(4):
            view = approved(at, model, 100 + number)
            assert apply(at, view) == "applied"
            assert rested(at, view) is ChangeState.APPLIED, at.show(view).request.message
            done.append(at.show(view))

    journal = [entry for view in done for entry in view.journal]
    assert len(journal) == 8
    for before, after in pairwise(journal):
        assert before.finished_at is not None
        assert before.finished_at <= after.started_at
        assert before.lease_token <= after.lease_token
    assert all(len({entry.lease_token for entry in view.journal}) == 1 for view in done)
    assert at.answer(model) == 2.0


def test_twenty_first_proposals_at_once_share_one_deployment(at: Installation, dialect: str) -> None:
    model = f"first_{dialect}"
    at.register(model, 2.0)
    with ThreadPoolExecutor(MANY) as pool:
        views = list(pool.map(lambda _: at.propose(model, versions=(1,), config=at.config(model)), range(MANY)))
    assert sorted(view.request.id for view in views) == list(range(1, MANY + 1))
    assert [d.deployment.revision for d in at.environments.deployments(at["author"], ENV)] == [0]
