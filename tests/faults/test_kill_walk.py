# Acceptance 6: a worker killed, stopped or failed between every two external effects of an apply, an undo and a rollback.
"""PostgreSQL is where several workers are at home, so every boundary is killed and stopped there; failures are the same on
both, so every boundary fails on SQLite, where a step is quicker. The other database gets two boundaries of each, drawn by a
seed. The walks of a flow share one server, database and model and one discovery of the boundaries, as most of the time would
be spent on making them. That each effect may run twice is shown by tests/unit/triton/test_repository.py; here the journal's
unfinished effects are met by whoever takes over, who goes by what it observes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from tests.faults.walks import Step, Walk, url_of
from tests.live.installation import ENV, Installation

_names = itertools.count()
SAMPLE = 2
EVERY = {"postgresql": ("kill", "stop"), "sqlite": ("fail",)}
SOME = {"postgresql": ("fail",), "sqlite": ("kill", "stop")}


@pytest.fixture
def model(at: Installation) -> str:
    """Revision 1 serves version 1 (factor 2), revision 2 version 2 (factor 3)."""
    name = f"walk{next(_names)}"
    at.register(name, 2.0)
    at.register(name, 3.0)
    assert at.deploy(name, versions=(1,), config=at.config(name)).request.state is ChangeState.APPLIED
    assert at.deploy(name, versions=(2,)).request.state is ChangeState.APPLIED
    return name


def apply(at: Installation, model: str) -> Step:
    """A version that the repository never saw, and a reloading config change, in one."""
    base = at.answer(model)
    number = len(at.catalog.versions(at["author"], model)) + 1
    at.register(model, float(number + 1))
    delay = ("dynamic_batching.max_queue_delay_microseconds", str(100 * number))
    return Step(
        model,
        at.start(at.propose(model, versions=(number,), sets=(delay,))),
        ChangeState.APPLIED,
        float(number + 1),
        base,
    )


def undo(at: Installation, model: str) -> Step:
    """A change that Triton refuses at load: it asks for a library of operators that is not there. The answer stays."""
    if len(at.catalog.versions(at["author"], model)) == 2:
        at.register(model, 5.0)
    view = at.propose(model, versions=(3,), sets=(("model_operations.op_library_filename[+]", "missing.so"),))
    return Step(model, at.start(view), ChangeState.UNDONE, 3.0, 3.0)


def rollback(at: Installation, model: str) -> Step:
    """To and fro between the first two revisions; what was rolled back before needs an approval to be gone back to."""
    base = at.answer(model)
    to, answer = (1, 2.0) if base == 3.0 else (2, 3.0)
    view = at.changes.rollback(at["author"], ENV, model, to=to, reason="walk")
    view = at.start(view) if view.request.state is ChangeState.OPEN else view
    return Step(model, view, ChangeState.APPLIED, answer, base)


FLOWS: dict[str, Callable[[Installation, str], Step]] = {"apply": apply, "undo": undo, "rollback": rollback}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flow", FLOWS)
def test_acceptance_6_every_boundary_of_every_flow_survives(
    at: Installation, database: Database, dialect: str, model: str, tmp_path: Path, *, flow: str
) -> None:
    walk = Walk(at, url_of(database), tmp_path, lambda: FLOWS[flow](at, model))
    walk.every(*EVERY[dialect])
    walk.sample(*SOME[dialect], count=SAMPLE, seed=flow)
