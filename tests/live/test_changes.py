# Changes on a live server: acceptance 3 and 4, judged by what Triton reports and answers.
from __future__ import annotations

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.errors import ChangeBlocked
from tests.live.installation import Installation


def test_a_version_is_registered_proposed_approved_applied_and_rolled_back(at: Installation, model: str) -> None:
    at.register(model, 2.0)
    view = at.propose(model, versions=(1,), config=at.config(model))
    with pytest.raises(ChangeBlocked, match="0 of 1 approvals"):
        at.changes.apply(at["author"], view.request.id)
    first = at.finish(at.start(view))
    assert (first.request.state, first.request.message) == (ChangeState.APPLIED, "")
    assert at.answer(model) == 2.0
    assert at.files(model) == ["1/model.onnx", "config.pbtxt"]

    at.register(model, 3.0)
    second = at.deploy(model, versions=(2,))
    assert second.request.state is ChangeState.APPLIED
    assert at.answer(model) == 3.0
    assert {p["name"]: p["status"] for p in second.request.proofs} == {
        "files": "shown",
        "load": "shown",
        "config": "shown",
        "answers of version 2": "shown",
        "instances of version 2": "shown",
        "version 2 told from version 1": "shown",
    }

    back = at.changes.rollback(at["author"], "live", model, to=None, reason="it was better before")
    rolled = at.finish(back)
    assert rolled.request.state is ChangeState.APPLIED
    assert at.answer(model) == 2.0
    revisions = at.environments.revisions(at["author"], "live", model)
    assert [(r.revision.number, r.revision.content.numbers) for r in revisions] == [(3, (1,)), (2, (2,)), (1, (1,))]
