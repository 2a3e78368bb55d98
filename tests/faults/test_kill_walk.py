# Acceptance 6: a worker killed, stopped or failed between every two external effects of an apply, an undo and a rollback.
"""PostgreSQL is where several workers are at home, so every boundary is walked there, in each of the three ways; SQLite gets
two boundaries of each flow and way, drawn by a seed. The steps of a walk share one server, one database and one model, as
most of a step's time would be spent on making them. That each effect may run twice is shown by
tests/unit/triton/test_repository.py; here the journal's unfinished effects are met by whoever takes over, who goes by what
it observes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import Database
from tests.faults.walks import Step, Walk, rest, url_of, walked
from tests.live.installation import ENV, Installation
from tests.live.servers import LiveTriton

_names = itertools.count()
SAMPLE = 2


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Iterator[Installation]:
    yield from walked(tmp_path, database, triton)


@pytest.fixture
def model(at: Installation) -> str:
    """Revision 1 serves version 1 (factor 2), revision 2 version 2 (factor 3)."""
    name = f"walk{next(_names)}"
    at.register(name, 2.0)
    at.register(name, 3.0)
    assert at.deploy(name, versions=(1,), config=at.config(name)).request.state is ChangeState.APPLIED
    assert at.deploy(name, versions=(2,)).request.state is ChangeState.APPLIED
    return name


def back(at: Installation, model: str, revision: int) -> ChangeView:
    """Started; what was rolled back before needs an approval to be gone back to."""
    view = at.changes.rollback(at["author"], ENV, model, to=revision, reason="walk")
    return at.start(view) if view.request.state is ChangeState.OPEN else view


def restored(at: Installation, model: str) -> None:
    """Back to version 2 with the first config, whatever the step before left."""
    if at.answer(model) != 3.0:
        assert rest(at, back(at, model, 2)).request.state is ChangeState.APPLIED
    assert at.answer(model) == 3.0


def apply(at: Installation, model: str) -> Step:
    """A version that the repository never saw, and a reloading config change, in one."""
    restored(at, model)
    number = len(at.catalog.versions(at["author"], model)) + 1
    at.register(model, float(number + 1))
    view = at.propose(model, versions=(number,), sets=(("dynamic_batching.max_queue_delay_microseconds", "100"),))
    return Step(model, at.start(view), ChangeState.APPLIED, float(number + 1))


def undo(at: Installation, model: str) -> Step:
    """A change that Triton refuses at load: it asks for a library of operators that is not there. The answer stays."""
    restored(at, model)
    if len(at.catalog.versions(at["author"], model)) == 2:
        at.register(model, 5.0)
    view = at.propose(model, versions=(3,), sets=(("model_operations.op_library_filename[+]", "missing.so"),))
    return Step(model, at.start(view), ChangeState.UNDONE, 3.0)


def rollback(at: Installation, model: str) -> Step:
    restored(at, model)
    return Step(model, back(at, model, 1), ChangeState.APPLIED, 2.0)


FLOWS: dict[str, Callable[[Installation, str], Step]] = {"apply": apply, "undo": undo, "rollback": rollback}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["kill", "stop", "fail"])
@pytest.mark.parametrize("flow", FLOWS)
def test_acceptance_6_every_boundary_of_every_flow_survives(  # fixtures
    at: Installation, database: Database, dialect: str, model: str, tmp_path: Path, *, flow: str, mode: str
) -> None:
    walk = Walk(at, url_of(database), tmp_path, lambda: FLOWS[flow](at, model), base=3.0)
    if dialect == "postgresql":
        walk.every(mode)
    else:
        walk.sample(mode, SAMPLE, seed=f"{flow} {mode}")
