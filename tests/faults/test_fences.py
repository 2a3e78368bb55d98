# The fence beside the repository, when another worker holds it long and when it knows more than the database.
from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.domain.changes import ChangeState
from controlplane.services import engine
from controlplane.storage.database import Database
from controlplane.triton.repository import LocalRepository
from tests.live.installation import ENV, Installation, effects, install
from tests.live.servers import LiveTriton


@pytest.fixture
def dialect() -> str:
    """What is shown here is about the lock file; the kill walk covers both databases."""
    return "sqlite"


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Installation:
    return install(tmp_path, database, triton)


@pytest.fixture
def model(at: Installation) -> str:
    """Served at version 1, which doubles; version 2 triples."""
    name = f"fence{abs(hash(at.settings.home)) % 10**9}"
    at.register(name, 2.0)
    at.register(name, 3.0)
    view = at.deploy(name, versions=(1,), config=at.config(name))
    assert (view.request.state, at.answer(name)) == (ChangeState.APPLIED, 2.0)
    return name


def token(at: Installation, model: str) -> int:
    with at.storage.read() as unit:
        deployment = unit.environments.deployment(ENV, model)
    assert deployment is not None
    return deployment.lease_token


def test_a_fence_that_another_worker_holds_turns_no_change_back(
    at: Installation, triton: LiveTriton, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_FENCE_MARGIN_SECONDS", -29.5)  # the load deadline is 30 s
    repository = LocalRepository(triton.repository)
    with repository.fence(model, token(at, model), wait_seconds=1):
        view = at.finish(at.start(at.propose(model, versions=(2,))), passes=1)
        assert (view.request.state, at.answer(model)) == (ChangeState.APPLYING, 2.0)
        assert {entry.error_code for entry in view.journal} == {"lease.lost"}

    view = at.finish(view)

    assert (view.request.state, effects(view, "back"), at.answer(model)) == (ChangeState.APPLIED, [], 3.0)


def test_a_database_that_was_restored_catches_up_with_the_fence(
    at: Installation, triton: LiveTriton, model: str
) -> None:
    with LocalRepository(triton.repository).fence(model, 5000, wait_seconds=1):
        pass

    view = at.deploy(model, versions=(2,))

    assert (view.request.state, effects(view, "back"), at.answer(model)) == (ChangeState.APPLIED, [], 3.0)
    assert [entry.error_code for entry in view.journal][:2] == ["lease.lost", None]
    assert token(at, model) > 5000


def test_a_worker_without_the_lease_does_not_raise_the_token(at: Installation, triton: LiveTriton, model: str) -> None:
    """Another worker takes over, and is at the model, while the first is about to act."""
    before = token(at, model)

    def boundary(name: str) -> None:
        if not name.startswith("before"):
            return
        with at.storage.write() as unit:
            unit.session.execute(text("UPDATE deployments SET lease_token = 7000, lease_owner = 'other'"))
        with LocalRepository(triton.repository).fence(model, 7000, wait_seconds=1):
            pass

    at.start(at.propose(model, versions=(2,)))
    at.worker(boundary=boundary).once()

    assert (before < 7000, token(at, model), at.answer(model)) == (True, 7000, 2.0)
