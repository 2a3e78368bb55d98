# Acceptance 6: a worker killed at every boundary of a change of the files beside a config, of its undo, and of its rollback.
"""Labels, `configs/` and config change together, so that whoever takes over meets each mixture of old and new. What Triton
calls an answer tells which labels it loaded. To a worker an apply and a rollback are the same work: each is walked on one
database, the undo, which has the effects of both directions, on both."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.changes import ChangeState
from controlplane.storage.database import Database
from tests.faults.walks import Step, Walk, url_of
from tests.live.installation import ENV, Installation

_names = itertools.count()
PETS = {"labels.txt": b"cat\ndog\nfish\nbird\n", "configs/small.pbtxt": b"max_batch_size: 1"}
WILD = {"labels.txt": b"lynx\nwolf\npike\nkite\n", "configs/large.pbtxt": b"max_batch_size: 9"}
REFUSED = ("model_operations.op_library_filename[+]", "missing.so")
DELAY = "dynamic_batching.max_queue_delay_microseconds"


@pytest.fixture
def model(at: Installation) -> str:
    """Revision 1 has PETS beside its config, revision 2 WILD."""
    name = f"beside{next(_names)}"
    at.register(name, 2.0)
    config = at.config(
        name, output=[{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"], "label_filename": "labels.txt"}]
    )
    assert at.deploy(name, versions=(1,), config=config, beside=manifest(at, PETS)).request.state is ChangeState.APPLIED
    view = at.deploy(name, beside=manifest(at, WILD), sets=((DELAY, "1"),))
    assert view.request.state is ChangeState.APPLIED
    return name


def manifest(at: Installation, files: dict[str, bytes]) -> Manifest:
    entries = []
    for path, data in files.items():
        digest, size = at.artifacts.add_stream([data])
        entries.append(FileEntry(path, size, digest))
    return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))


def lying(at: Installation, model: str) -> dict[str, bytes]:
    """All files but the config and those of the versions."""
    home = at.triton.repository / model
    found = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if path != "config.pbtxt" and not path[0].isdigit()}


def label(at: Installation, model: str) -> str:
    """What Triton calls the highest of four scores, of which the second is the highest."""
    x = InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.array([[0, 3, 1, 2]], np.float32))
    with InferenceServerClient(at.triton.grpc) as client:
        answer = client.infer(model, [x], outputs=[InferRequestedOutput("y", class_count=1)])
    (found,) = answer.as_numpy("y").flatten()
    return str(found.decode().rpartition(":")[2])


def other(at: Installation, model: str) -> dict[str, bytes]:
    return PETS if lying(at, model) == WILD else WILD


def apply(at: Installation, model: str) -> Step:
    number = len(at.environments.revisions(at["author"], ENV, model))
    view = at.propose(model, beside=manifest(at, other(at, model)), sets=((DELAY, str(number)),))
    return Step(model, at.start(view), ChangeState.APPLIED, 2.0, 2.0)


def undo(at: Installation, model: str) -> Step:
    """A change that Triton refuses at load: it asks for a library of operators that is not there."""
    view = at.propose(model, beside=manifest(at, PETS), sets=(REFUSED,))
    return Step(model, at.start(view), ChangeState.UNDONE, 2.0, 2.0)


def rollback(at: Installation, model: str) -> Step:
    to = 1 if lying(at, model) == WILD else 2
    view = at.changes.rollback(at["author"], ENV, model, to=to, reason="walk")
    view = at.start(view) if view.request.state is ChangeState.OPEN else view
    return Step(model, view, ChangeState.APPLIED, 2.0, 2.0)


FLOWS: dict[str, Callable[[Installation, str], Step]] = {"apply": apply, "undo": undo, "rollback": rollback}
EFFECTS = ("write_beside", "write_config", "load")
FORWARD, BACK = (
    [f"{side} {direction} {effect}" for effect in EFFECTS for side in ("before", "after")]
    for direction in ("forward", "back")
)
REFUSED_LOAD = FORWARD[:-1]  # it fails between its two boundaries


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("dialect", "flow"),
    [("postgresql", "apply"), ("postgresql", "undo"), ("sqlite", "rollback"), ("sqlite", "undo")],
)
def test_acceptance_6_files_beside_a_config_survive_every_boundary(
    at: Installation, database: Database, model: str, tmp_path: Path, *, flow: str
) -> None:
    expected: list[dict[str, bytes]] = []

    def prepare() -> Step:
        expected.append(WILD if flow == "undo" else other(at, model))
        return FLOWS[flow](at, model)

    def check(_step: Step) -> None:
        assert lying(at, model) == expected[-1]
        assert label(at, model) == expected[-1]["labels.txt"].decode().split()[1]

    walk = Walk(at, url_of(database), tmp_path, prepare, check=check)
    assert walk.boundaries() == ([*REFUSED_LOAD, *BACK] if flow == "undo" else FORWARD)
    walk.every("kill")
