# How long version directories stay in the repository, what keeps them there, and that no change waits for them to leave.
from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.errors import RepositoryFailed
from controlplane.storage.database import Database
from tests.live.installation import ENV, Installation, effects, install
from tests.live.servers import LiveTriton


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Installation:
    return install(tmp_path, database, triton, policy={"keep_revisions": 1})


def grow(at: Installation, model: str) -> None:
    """Three revisions, of which the policy keeps one; nobody has watched since."""
    for factor in (2.0, 3.0, 4.0):
        at.register(model, factor)
    at.deploy(model, versions=(1,), config=at.config(model))
    for number in (2, 3):
        assert at.deploy(model, versions=(number,)).request.state is ChangeState.APPLIED


def test_versions_of_older_revisions_leave_one_a_watch_and_come_back_with_a_rollback(
    at: Installation,
    dialect: str,
) -> None:
    model = f"retained_{dialect}"
    grow(at, model)
    assert at.files(model) == ["1/model.onnx", "2/model.onnx", "3/model.onnx", "config.pbtxt"]

    assert (at.drift(model), at.answer(model)) == ((), 4.0)
    assert at.files(model) == ["2/model.onnx", "3/model.onnx", "config.pbtxt"]

    back = at.rollback(model, to=1)
    assert (back.request.state, effects(back)) == (ChangeState.APPLIED, ["write_version", "write_config", "load"])
    assert (at.answer(model), at.files(model)[0]) == (2.0, "1/model.onnx")
    at.environments.set_policy(at["admin"], ENV, {"keep_revisions": 2}, expected_number=None)
    for _ in range(3):
        assert (at.drift(model), at.answer(model)) == ((), 2.0)
    assert at.files(model) == ["1/model.onnx", "3/model.onnx", "config.pbtxt"]
    at.check_audit()


def test_a_version_that_cannot_leave_is_in_the_way_of_no_change_and_leaves_later(
    at: Installation,
    dialect: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = f"sticking_{dialect}"
    tried: list[str] = []

    def deny(name: str) -> None:
        if name.endswith("remove_version"):
            tried.append(name)
            raise RepositoryFailed("the directory belongs to somebody else")

    worker = at.worker(boundary=deny)
    grow(at, model)
    for _ in range(3):
        assert at.drift(model, worker) == ()
    assert tried == ["before forward remove_version"] * 2  # each of the two once, not with every watch
    assert caplog.text.count("a version directory that only old revisions have stays") == 2
    assert at.files(model)[:2] == ["1/model.onnx", "2/model.onnx"]

    back = at.finish(at.changes.rollback(at["author"], ENV, model, to=2, reason="it was better before"), worker)
    assert (back.request.state, effects(back)) == (ChangeState.APPLIED, ["write_config", "load"])
    view = at.finish(at.start(at.propose(model, versions=(3,), config=at.config(model, backend="absent"))), worker)
    assert (view.request.state, effects(view, "back")) == (ChangeState.UNDONE, ["write_config", "load"])
    assert (at.answer(model), at.drift(model)) == (3.0, ())
    assert "1/model.onnx" not in at.files(model)


def test_the_last_copy_of_a_version_stays(
    at: Installation,
    dialect: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = f"last_copy_{dialect}"
    grow(at, model)
    with at.storage.read() as unit:
        blob = unit.catalog.version(model, 1).manifest.files[0].sha256
    assert at.artifacts.discard([blob], lambda _: []) == [blob]
    for _ in range(3):
        assert at.drift(model, at.worker()) == ()
    assert at.files(model) == ["1/model.onnx", "3/model.onnx", "config.pbtxt"]
    assert "a version directory that only old revisions have stays" in caplog.text
