# How long version directories stay in the repository, and that a rollback past that still brings the bytes back.
from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from tests.live.installation import ENV, Installation, effects, install
from tests.live.servers import LiveTriton
from tests.store.conftest import (  # noqa: F401  # the fixtures of both databases
    database,
    dialect,
    postgres,
    postgres_template,
    sqlite_template,
)


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Installation:  # noqa: F811
    return install(tmp_path, database, triton, policy={"keep_revisions": 1})


def test_versions_of_older_revisions_leave_with_the_next_change_and_come_back_with_a_rollback(
    at: Installation,
    dialect: str,  # noqa: F811
) -> None:
    model = f"retained_{dialect}"
    for factor in (2.0, 3.0, 4.0):
        at.register(model, factor)
    at.deploy(model, versions=(1,), config=at.config(model))
    at.deploy(model, versions=(2,))
    assert at.files(model) == ["1/model.onnx", "2/model.onnx", "config.pbtxt"]

    third = at.deploy(model, versions=(3,))
    assert third.request.state is ChangeState.APPLIED
    assert "remove_version" in effects(third)
    assert at.files(model) == ["2/model.onnx", "3/model.onnx", "config.pbtxt"]
    assert (at.answer(model), at.drift(model)) == (4.0, ())

    at.environments.set_policy(at["admin"], ENV, {"keep_revisions": 20}, expected_number=None)
    assert at.rollback(model, to=1).request.state is ChangeState.APPLIED
    assert at.files(model) == ["1/model.onnx", "2/model.onnx", "3/model.onnx", "config.pbtxt"]
    assert (at.answer(model), at.drift(model)) == (2.0, ())
    at.check_audit()
