# What lies in a repository before a change's first effect: put back when the change fails, or not touched at all.
from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.services.catalog import Registration
from controlplane.services.change_views import ChangeView
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.installation import ENV, Installation, effects
from tests.live.onnx_graphs import parse

REFUSED = ("model_operations.op_library_filename[+]", "absent.so")

# On one database: what is shown here is about files and Triton.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


def put(at: Installation, model: str, policy: str = "version_policy: { all {} }") -> Path:
    """Versions 1 and 2, answering 2x and 3x, as somebody else would put and load them."""
    home = at.triton.repository / model
    for number, factor in ((1, 2.0), (2, 3.0)):
        graph = parse(f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}")
        (home / str(number)).mkdir(parents=True)
        (home / str(number) / "model.onnx").write_bytes(graph.SerializeToString())
    text = PbtxtCodec().render(PbtxtCodec().check(at.config(model)))
    (home / "config.pbtxt").write_text(text + policy)
    at.load(model)
    return home


def register(at: Installation, model: str, *numbers: int) -> None:
    for number in numbers:
        manifest = at.artifacts.add_directory(at.triton.repository / model / str(number))
        at.catalog.register_version(at["author"], Registration(model, manifest, number))


def lying(home: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file with its inode, time and bytes."""
    return {
        str(path.relative_to(home)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def adopt(at: Installation, model: str, *versions: int, sets: tuple[tuple[str, str], ...] = ()) -> ChangeView:
    return at.start(at.propose(model, versions=versions, config=at.config(model), sets=sets))


def deployed(at: Installation, model: str) -> tuple[int, int | None]:
    deployment = at.environments.deployment(at["author"], ENV, model).deployment
    return deployment.revision, deployment.active_change


def test_an_adoption_that_fails_leaves_the_model_served_as_it_was(at: Installation, model: str) -> None:
    home = put(at, model)
    config = PbtxtCodec().parse((home / "config.pbtxt").read_text())
    register(at, model, 1, 2)

    undone = at.finish(adopt(at, model, 1, 2, sets=(REFUSED,)))

    assert undone.request.state is ChangeState.UNDONE
    assert "absent.so" in undone.request.message
    assert (effects(undone), effects(undone, "back")) == (["write_config", "load"], ["write_config", "load"])
    assert PbtxtCodec().parse((home / "config.pbtxt").read_text()) == config
    assert (at.served(model), at.answer(model, version=1), at.answer(model)) == ([1, 2], 2.0, 3.0)
    assert deployed(at, model) == (0, None)

    assert at.finish(adopt(at, model, 1, 2)).request.state is ChangeState.APPLIED
    assert at.drift(model) == ()


def test_an_adoption_that_fails_puts_back_a_version_that_lay_there_unserved(at: Installation, model: str) -> None:
    home = put(at, model, policy="")
    files = {name: data for name, (_, _, data) in lying(home).items() if name != "config.pbtxt"}
    assert at.served(model) == [2]
    register(at, model, 1, 2)

    undone = at.finish(adopt(at, model, 2, sets=(REFUSED,)))

    assert undone.request.state is ChangeState.UNDONE
    assert effects(undone, "back") == ["write_version", "write_config", "load"]
    assert {name: data for name, (_, _, data) in lying(home).items() if name != "config.pbtxt"} == files
    assert (at.served(model), at.answer(model)) == ([2], 3.0)


def test_a_rollback_that_preempts_an_adoption_puts_back_what_lay_there(at: Installation, model: str) -> None:
    put(at, model)
    register(at, model, 1, 2)

    def preempt(name: str) -> None:
        if name == "after forward remove_version":
            at.changes.rollback(at["author"], ENV, model, to=0, reason="not yet")

    worker = at.worker(boundary=preempt)
    first = at.start(at.propose(model, versions=(2,), config=at.config(model)))
    worker.once()
    assert effects(at.show(first)) == ["remove_version"]
    back = at.show(at.finish(at.changes.show(at["author"], first.request.id + 1)))

    assert (back.request.state, effects(back)) == (ChangeState.UNDONE, ["write_version", "load"])
    assert (at.served(model), at.answer(model, version=1), at.answer(model)) == ([1, 2], 2.0, 3.0)
    assert deployed(at, model) == (0, None)


def test_a_rollback_that_preempts_an_adoption_before_it_began_touches_nothing(at: Installation, model: str) -> None:
    home = put(at, model)
    before = lying(home)
    register(at, model, 1, 2)

    adopt(at, model, 1, 2)
    back = at.rollback(model, to=0)

    assert (back.request.state, effects(back)) == (ChangeState.UNDONE, [])
    assert (lying(home), at.served(model), deployed(at, model)) == (before, [1, 2], (0, None))


def test_a_first_change_of_a_name_that_is_taken_touches_nothing(at: Installation, model: str) -> None:
    home = put(at, model)
    (home / "notes.txt").write_text("mine")
    before = lying(home)
    at.register(model, 7.0)

    undone = at.finish(adopt(at, model, 1))

    assert (undone.request.state, effects(undone)) == (ChangeState.UNDONE, [])
    assert undone.request.message == (
        f"{model!r} is on this server already (version 1, version 2) and is not under management, so nothing was"
        " touched: beside the config, and not as the change has it: notes.txt; version 1 has other bytes than the registered ones;"
        " version 2 is not registered; `tritonctl model adopt` takes what is served under management"
    )
    assert (lying(home), at.served(model), deployed(at, model)) == (before, [1, 2], (0, None))


def test_drift_that_no_watch_has_seen_is_reported_and_not_overwritten(at: Installation, model: str) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    home = at.triton.repository / model
    path = home / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 3"))
    at.load(model)
    before = lying(home)

    undone = at.deploy(model, sets=(("dynamic_batching.max_queue_delay_microseconds", "700"),))

    assert (undone.request.state, effects(undone), lying(home)) == (ChangeState.UNDONE, [], before)
    drift = at.environments.deployment(at["author"], ENV, model).deployment.drift
    assert drift[0] == "config.pbtxt differs"
    assert undone.request.message == (
        f"drift was observed before the first effect: {'; '.join(drift)}; reconcile or roll back first"
    )
    assert at.drift(model) == drift
    actions = [entry.action for entry in at.audit(("model", model)) if entry.action.startswith("deployment.")]
    assert actions == ["deployment.drifted"]
    assert at.reconcile(model).request.state is ChangeState.APPLIED


@pytest.mark.parametrize(
    ("directions", "state"), [(("forward",), ChangeState.UNDONE), (("forward", "back"), ChangeState.STUCK)]
)
def test_an_unexpected_failure_turns_a_change_back_or_gets_its_undo_stuck(
    at: Installation, model: str, *, directions: tuple[str, ...], state: ChangeState
) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))

    def stumble(name: str) -> None:
        if name in [f"before {direction} load" for direction in directions]:
            raise ZeroDivisionError(name)

    ended = at.finish(at.start(at.propose(model, versions=(2,))), at.worker(boundary=stumble))
    assert (ended.request.state, ended.request.message) == (
        state,
        f"ZeroDivisionError: before {directions[-1]} load",
    )
    if state is ChangeState.STUCK:
        at.changes.resume(at["author"], ended.request.id, "retry")
        assert at.finish(ended).request.state is ChangeState.UNDONE
    assert (at.answer(model), at.drift(model)) == (2.0, ())
