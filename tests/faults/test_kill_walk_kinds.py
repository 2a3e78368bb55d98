# Acceptance 6: a worker killed at every boundary of an undeploy, a reconcile, an adoption's first apply and its undo.
"""Each boundary once, by SIGKILL, on the database that the flow is given here: what differs between the databases is walked
by test_kill_walk.py. An adoption is walked through its transactions as well, as what was found is only in the database."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.services.catalog import Registration
from controlplane.services.planning import Proposal
from controlplane.storage.database import Database
from controlplane.triton.pbtxt import PbtxtCodec
from tests.faults.walks import Step, Walk, rest, url_of
from tests.live.installation import ENV, Installation
from tests.live.onnx_graphs import parse

_names = itertools.count()
REFUSED = ("model_operations.op_library_filename[+]", "missing.so")
sqlite = pytest.mark.parametrize("dialect", ["sqlite"])
postgresql = pytest.mark.parametrize("dialect", ["postgresql"])


def name() -> str:
    return f"kind{next(_names)}"


def deployed(at: Installation) -> str:
    model = name()
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    return model


def unmanaged(at: Installation, model: str, policy: str = "") -> Path:
    """Versions 1 and 2, answering 2x and 3x, as somebody else would put and load them, and registered."""
    home = at.triton.repository / model
    for number, factor in ((1, 2.0), (2, 3.0)):
        graph = parse(f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}")
        (home / str(number)).mkdir(parents=True)
        (home / str(number) / "model.onnx").write_bytes(graph.SerializeToString())
        manifest = at.artifacts.add_directory(home / str(number))
        at.catalog.register_version(at["author"], Registration(model, manifest, number))
    (home / "config.pbtxt").write_text(PbtxtCodec().render(PbtxtCodec().check(at.config(model))) + policy)
    at.load(model)
    return home


def lying(home: Path) -> dict[str, bytes | object]:
    """Bytes of every version and what the config says."""
    files: dict[str, bytes | object] = {
        str(path.relative_to(home)): path.read_bytes() for path in home.glob("*/*") if path.is_file()
    }
    return {**files, "config": PbtxtCodec().parse((home / "config.pbtxt").read_text())}


@pytest.mark.timeout(600)
@sqlite
def test_acceptance_6_an_undeploy_survives_every_boundary(at: Installation, database: Database, tmp_path: Path) -> None:
    model = deployed(at)

    def undeploy() -> Step:
        if not at.served(model):
            back = at.changes.rollback(at["author"], ENV, model, to=1, reason="again")
            assert rest(at, back if back.needed == 0 else at.start(back)).request.state is ChangeState.APPLIED
        view = at.propose(model, undeploy=True, acknowledge=("rolled_back",))
        return Step(model, at.start(view), ChangeState.APPLIED, None, base=2.0)

    walk = Walk(at, url_of(database), tmp_path, undeploy)
    walk.every("kill")
    walk.sample("fail", count=2, seed="undeploy")


@pytest.mark.timeout(600)
@postgresql
def test_acceptance_6_a_reconcile_survives_every_boundary(at: Installation, database: Database, tmp_path: Path) -> None:
    model = deployed(at)
    home = at.triton.repository / model

    def reconcile() -> Step:
        """Another config and other bytes of the version."""
        config = home / "config.pbtxt"
        config.write_text(config.read_text().replace("count: 1", "count: 2"))
        graph = parse("m (float[N,4] x) => (float[N,4] y) <float f = {9.0}> { y = Mul(x, f) }")
        (home / "1" / "model.onnx").write_bytes(graph.SerializeToString())
        at.load(model)
        assert at.answer(model) == 9.0
        view = at.changes.propose(at["admin"], Proposal(ENV, model, "drift was seen", reconcile=True))
        return Step(model, at.start(view), ChangeState.APPLIED, 2.0, base=2.0)

    walk = Walk(at, url_of(database), tmp_path, reconcile)
    walk.every("kill")
    walk.sample("fail", count=2, seed="reconcile")


@pytest.mark.timeout(600)
@sqlite
def test_acceptance_6_an_adoption_survives_every_boundary_and_transaction(
    at: Installation, database: Database, tmp_path: Path
) -> None:
    between: list[bool] = []

    def adopt() -> Step:
        model = name()
        unmanaged(at, model)
        view = at.start(at.propose(model, versions=(1, 2), config=at.config(model)))
        return Step(model, view, ChangeState.APPLIED, 3.0)

    def look(step: Step) -> None:
        seen = at.show(step.view)
        between.append(seen.request.found is not None and not seen.journal)

    walk = Walk(at, url_of(database), tmp_path, adopt, writes=True, after_hurt=look)
    walk.every("kill")
    assert True in between  # killed after what was found was recorded, and before the first effect


@pytest.mark.timeout(600)
@postgresql
def test_acceptance_6_an_adoption_that_fails_is_undone_from_every_boundary(
    at: Installation, database: Database, tmp_path: Path
) -> None:
    """Version 1 lay there unserved: the adoption takes it away, and its undo puts it back."""
    model = name()
    home = unmanaged(at, model)
    before = lying(home)

    def adopt() -> Step:
        view = at.start(at.propose(model, versions=(2,), config=at.config(model), sets=(REFUSED,)))
        return Step(model, view, ChangeState.UNDONE, 3.0)

    def check(_step: Step) -> None:
        assert (lying(home), at.served(model)) == (before, [2])

    Walk(at, url_of(database), tmp_path, adopt, check=check).every("kill")


@sqlite
def test_acceptance_6_what_was_found_is_looked_at_again_when_nothing_was_touched_yet(
    at: Installation, database: Database, tmp_path: Path
) -> None:
    """The worker dies after it recorded what it found; whoever owns the model changes it; the adoption fails."""
    model = name()
    home = unmanaged(at, model)
    recorded: list[str] = []

    def adopt() -> Step:
        view = at.start(at.propose(model, versions=(2,), config=at.config(model), sets=(REFUSED,)))
        return Step(model, view, ChangeState.UNDONE, 3.0)

    def own(step: Step) -> None:
        seen = at.show(step.view)
        if seen.request.found is not None and not seen.journal and not recorded:
            recorded.append("here")
            config = home / "config.pbtxt"
            config.write_text(config.read_text().replace("count: 1", "count: 2"))
            at.load(model)

    walk = Walk(at, url_of(database), tmp_path, adopt, writes=True, after_hurt=own)
    found = walk.boundaries()
    for number in range(found.index("before forward remove_version")):
        walk.step("kill", number, found[number])
    config = lying(home)["config"]
    assert isinstance(config, dict)
    assert (recorded, config["instance_group"][0]["count"]) == (["here"], 2)
    assert (at.served(model), at.answer(model)) == ([2], 3.0)


@sqlite
def test_a_reconcile_of_what_was_never_accepted_touches_nothing(at: Installation) -> None:
    model = name()
    home = unmanaged(at, model)
    before = lying(home)
    undone = at.deploy(model, versions=(2,), config=at.config(model), sets=(REFUSED,))
    assert undone.request.state is ChangeState.UNDONE

    view = at.reconcile(model)

    assert (view.request.state, view.journal) == (ChangeState.UNDONE, ())
    assert view.request.message == "nothing was ever accepted here: what lies there is not ours to remove"
    assert (lying(home), at.served(model)) == (before, [2])
