# Acceptance 6: a rollback, or a break-glass, that arrives while a load of the same model is in flight.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import ChangeState, ReviewState
from controlplane.errors import ChangeBlocked
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import Database
from controlplane.triton.pbtxt import PbtxtCodec
from tests.faults.walks import Step, check_rest, rest, url_of, walked
from tests.faults.workers import Wound, started
from tests.live.installation import ENV, Installation, effects
from tests.live.opaque import opaque_config, register_opaque, sleeping_while, source
from tests.live.servers import LiveTriton, MakeTriton

MODEL = "slow"
sqlite = pytest.mark.parametrize("dialect", ["sqlite"])


@pytest.fixture
def own(make_triton: MakeTriton) -> LiveTriton:
    """Loads hang here, of which a server can do four at a time."""
    return make_triton(name="own")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """As long as it is there, version 2 is not loaded."""
    path = tmp_path / "marker"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def at(tmp_path: Path, database: Database, own: LiveTriton, marker: Path) -> Iterator[Installation]:
    """Version 1 doubles and serves; version 2 triples and loads slowly."""
    for installation in walked(tmp_path, database, own):
        register_opaque(installation, MODEL, source(2.0), answers=2.0)
        register_opaque(installation, MODEL, source(3.0, prologue=sleeping_while(str(marker))), answers=3.0)
        first = installation.deploy(MODEL, versions=(1,), config=opaque_config(installation, MODEL))
        assert first.request.state is ChangeState.APPLIED, first.request.message
        marker.touch()
        yield installation
        marker.unlink(missing_ok=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def snapshot(at: Installation) -> dict[str, tuple[int, int]]:
    root = at.triton.repository / MODEL
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def loading(at: Installation, view: ChangeView) -> bool:
    return "load" in effects(at.show(view))


def allow(at: Installation, *, seconds: int) -> None:
    """That is how long a load may take from here on."""
    wish: JsonObject = {"approvals": 1, "load_timeout_seconds": seconds}
    at.environments.set_policy(at["admin"], ENV, wish, expected_number=None)


def stuck(at: Installation) -> ChangeView:
    allow(at, seconds=1)
    view = at.deploy(MODEL, versions=(2,))
    assert view.request.state is ChangeState.STUCK, view.request
    return view


@pytest.mark.parametrize("alive", [True, False])
def test_acceptance_6_a_rollback_takes_the_place_of_a_change_whose_load_is_in_flight(
    at: Installation, database: Database, tmp_path: Path, marker: Path, *, alive: bool
) -> None:
    """Another process is in the load, or dies in it. The rollback touches no file until the load ended; then the base is
    back, and the process that was pre-empted records nothing."""
    first = at.start(at.propose(MODEL, versions=(2,)))
    names = tmp_path / "names"
    with started(at.settings, url_of(database), Wound("record"), change=first.request.id, names=names) as process:
        until(lambda: loading(at, first))
        until(lambda: at.loading(MODEL))  # the load was sent
        files, journal = snapshot(at), at.show(first).journal
        back = at.changes.rollback(at["author"], ENV, MODEL, to=None, reason="at once")
        seen = at.show(first).request
        assert (seen.state, seen.message) == (ChangeState.UNDONE, f"pre-empted by rollback {back.request.id}")
        if not alive:
            process.kill()
        resting = threading.Thread(target=rest, args=(at, back))
        resting.start()
        until(lambda: loading(at, back))  # it joins the load that is in flight
        time.sleep(1)
        assert (snapshot(at), at.answer(MODEL)) == (files, 2.0)
        marker.unlink()
        resting.join(150)
        process.join(120)

    check_rest(at, Step(MODEL, back, ChangeState.APPLIED, 2.0))
    assert effects(at.show(back)) == ["load", "remove_version", "write_config", "load"]
    assert [entry.effect for entry in at.show(first).journal] == [entry.effect for entry in journal]
    revisions = at.environments.revisions(at["author"], ENV, MODEL)
    assert [(r.revision.number, r.revision.content.numbers) for r in revisions] == [(2, (1,)), (1, (1,))]


@sqlite
def test_acceptance_6_break_glass_does_not_take_the_place_of_a_change_unless_it_is_a_rollback(
    at: Installation, marker: Path
) -> None:
    first = stuck(at)
    other = at.propose(MODEL, sets=(("instance_group[0].count", "2"),))
    with pytest.raises(ChangeBlocked) as refused:
        at.changes.apply(at["admin"], other.request.id, break_glass="it cannot wait any longer")
    assert refused.value.details["blockers"] == [
        {"code": "active", "message": f"change {first.request.id} of the same model is being applied"}
    ]
    assert at.show(first).request.state is ChangeState.STUCK

    end = at.changes.rollback(at["author"], ENV, MODEL, to=0, reason="it harms")
    assert (end.request.state, end.needed) == (ChangeState.OPEN, 1)
    end = at.changes.apply(at["admin"], end.request.id, break_glass="it cannot wait any longer")
    assert (at.show(first).request.state, end.request.review) == (ChangeState.UNDONE, ReviewState.OPEN)

    files = snapshot(at)
    waiting = rest(at, end)
    assert (waiting.request.state, waiting.direction, effects(waiting)) == (ChangeState.STUCK, "forward", ["load"])
    assert (snapshot(at), at.answer(MODEL)) == (files, 2.0)

    marker.unlink()
    allow(at, seconds=30)
    at.changes.resume(at["author"], end.request.id, "retry")
    rest(at, end)
    check_rest(at, Step(MODEL, end, ChangeState.APPLIED, None))


@sqlite
def test_acceptance_6_a_second_rollback_still_puts_back_what_an_adoption_found(at: Installation, marker: Path) -> None:
    """The adoption's load hangs, and so the rollback that pre-empts it, and the next one."""
    model, code = "found", source(2.0, prologue=sleeping_while(str(marker)))
    marker.unlink()
    register_opaque(at, model, code, answers=2.0)
    home = at.triton.repository / model
    (home / "1").mkdir(parents=True)
    (home / "1" / "model.py").write_bytes(code)
    (home / "1" / "__pycache__").touch()  # a file, so that Triton cannot put bytecode there
    config = PbtxtCodec().check(opaque_config(at, model))
    (home / "config.pbtxt").write_text(PbtxtCodec().render(config))
    at.load(model)
    marker.touch()
    allow(at, seconds=1)
    chain = [
        at.deploy(model, versions=(1,), config=config, sets=(("dynamic_batching.max_queue_delay_microseconds", "9"),))
    ]
    for _ in range(2):
        assert at.show(chain[-1]).request.state is ChangeState.STUCK, at.show(chain[-1]).request
        chain.append(rest(at, at.changes.rollback(at["author"], ENV, model, to=0, reason="not yet")))
    marker.unlink()
    allow(at, seconds=30)
    at.changes.resume(at["author"], chain[-1].request.id, "retry")
    rest(at, chain[-1])

    assert [at.show(view).request.state for view in chain] == [ChangeState.UNDONE] * 3
    assert PbtxtCodec().parse((home / "config.pbtxt").read_text()) == config
    assert (at.served(model), at.answer(model)) == ([1], 2.0)
    deployment = at.environments.deployment(at["author"], ENV, model).deployment
    assert (deployment.revision, deployment.active_change) == (0, None)
