# Acceptance 6: a load that never returns ends stuck, touches nothing while it is unresolved, and is resolved.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import Database
from controlplane.triton.runtime.keeper import ServerKeeper
from tests.live.installation import ENV, Installation, install
from tests.live.opaque import opaque_config, register_opaque, sleeping_while, source
from tests.live.servers import LiveTriton

MODEL = "slow"


@pytest.fixture
def dialect() -> str:
    """What is shown here is about Triton; the kill walk covers both databases."""
    return "sqlite"


def test_a_server_that_a_dead_worker_held_down_comes_back_with_the_next_change(
    tmp_path: Path, database: Database, supervised: LiveTriton
) -> None:
    at = install(tmp_path, database, supervised)
    for model in ("one", "two"):
        at.register(model, 2.0)
        at.register(model, 3.0)
        at.deploy(model, versions=(1,), config=at.config(model))
    keeper = ServerKeeper(supervised.home, supervised.repository, alive=lambda: True)
    for held in ("one", "two"):
        keeper.kill(held)  # and then its worker dies

        view = at.deploy("one", versions=(2,) if held == "one" else (1,))

        assert (view.request.state, view.request.message, keeper.held()) == (ChangeState.APPLIED, "", None)
        assert at.answer("one") == (3.0 if held == "one" else 2.0)
        assert at.answer("two") == 2.0


def allow(at: Installation, *, seconds: int) -> None:
    """That is how long a load may take from here on."""
    at.environments.set_policy(at["admin"], ENV, {"load_timeout_seconds": seconds}, expected_number=None)


@dataclass
class Stuck:
    at: Installation
    view: ChangeView
    marker: Path

    def snapshot(self) -> dict[str, tuple[int, int, bytes]]:
        root = self.at.triton.repository / MODEL
        return {
            str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
            for path in root.rglob("*")
            if path.is_file()
        }

    @property
    def state(self) -> ChangeState:
        return self.at.show(self.view).request.state

    def work(self, passes: int = 3) -> None:
        for _ in range(passes):
            self.at.drift(MODEL)

    def let_go(self, view: ChangeView | None = None) -> None:
        """The load ends, and the change, or this one in its place, is worked on until it is stuck no more."""
        self.marker.unlink()
        allow(self.at, seconds=60)
        for _ in range(30):
            self.work(1)
            if self.at.show(view or self.view).request.state in {ChangeState.APPLIED, ChangeState.UNDONE}:
                break


@pytest.fixture
def stuck(tmp_path: Path, database: Database, supervised: LiveTriton) -> Iterator[Stuck]:
    """Version 1 serves; version 2 is being loaded and does not end as long as `marker` is there."""
    at = install(tmp_path, database, supervised)
    marker = tmp_path / "marker"
    register_opaque(at, MODEL, source(2.0), answers=2.0)
    register_opaque(at, MODEL, source(3.0, prologue=sleeping_while(str(marker))), answers=3.0)
    first = at.deploy(MODEL, versions=(1,), config=opaque_config(at, MODEL))
    assert first.request.state is ChangeState.APPLIED, first.request.message
    marker.touch()
    allow(at, seconds=2)
    view = at.deploy(MODEL, versions=(2,))
    assert view.request.state is ChangeState.STUCK
    assert "did not end within 2 s" in view.request.message
    assert at.answer(MODEL) == 2.0
    yield Stuck(at, view, marker)
    marker.unlink(missing_ok=True)
    at.check_audit()


def test_acceptance_6_a_load_that_ends_late_is_verified_and_applied(stuck: Stuck) -> None:
    files = stuck.snapshot()
    stuck.work()
    assert (stuck.state, stuck.snapshot(), stuck.at.answer(MODEL)) == (ChangeState.STUCK, files, 2.0)

    stuck.let_go()

    view = stuck.at.show(stuck.view)
    assert (view.request.state, view.request.message) == (ChangeState.APPLIED, "")
    assert (stuck.at.answer(MODEL), stuck.at.served(MODEL)) == (3.0, [2])
    assert stuck.at.drift(MODEL) == ()
    actions = [entry.action for entry in stuck.at.audit(("change", str(view.request.id)))]
    assert actions[:2] == ["change.applied", "change.stuck"]


def test_acceptance_6_an_undo_waits_for_the_load_before_it_touches_a_file(stuck: Stuck) -> None:
    files = stuck.snapshot()
    stuck.at.changes.resume(stuck.at["author"], stuck.view.request.id, "undo")
    stuck.work()
    assert (stuck.state, stuck.snapshot(), stuck.at.answer(MODEL)) == (ChangeState.STUCK, files, 2.0)

    stuck.let_go()

    assert stuck.state is ChangeState.UNDONE
    assert (stuck.at.answer(MODEL), stuck.at.served(MODEL)) == (2.0, [1])
    assert sorted(stuck.snapshot()) == ["1/__pycache__", "1/model.py", "config.pbtxt"]
    assert stuck.at.drift(MODEL) == ()


def test_acceptance_6_a_rollback_takes_the_place_of_a_stuck_change_and_waits_as_well(stuck: Stuck) -> None:
    files = stuck.snapshot()
    back = stuck.at.rollback(MODEL)
    assert (stuck.state, back.request.state, stuck.snapshot()) == (ChangeState.UNDONE, ChangeState.STUCK, files)
    assert stuck.at.show(stuck.view).request.message == f"pre-empted by rollback {back.request.id}"

    stuck.let_go(back)

    assert stuck.at.show(back).request.state is ChangeState.APPLIED
    assert (stuck.at.answer(MODEL), stuck.at.served(MODEL)) == (2.0, [1])
    revisions = stuck.at.environments.revisions(stuck.at["author"], ENV, MODEL)
    assert [(r.revision.number, r.revision.content.numbers) for r in revisions] == [(2, (1,)), (1, (1,))]
    assert stuck.at.drift(MODEL) == ()


def test_acceptance_6_a_load_that_never_ends_is_undone_by_a_restart_of_our_own_server(stuck: Stuck) -> None:
    before = stuck.at.triton.process.state
    allow(stuck.at, seconds=60)  # for what is loaded after it
    stuck.at.changes.resume(stuck.at["author"], stuck.view.request.id, "restart")
    stuck.work(1)

    view = stuck.at.show(stuck.view)
    assert view.request.state is ChangeState.UNDONE, view.request
    assert (stuck.at.answer(MODEL), stuck.at.served(MODEL)) == (2.0, [1])
    assert sorted(stuck.snapshot()) == ["1/__pycache__", "1/model.py", "config.pbtxt"]
    assert stuck.at.triton.process.state.generation == before.generation + 1
    assert not before.alive()
    back = [entry.effect for entry in view.journal if entry.direction.value == "back"]
    assert back == ["kill_server", "remove_version", "write_config", "release_server", "load"]
    assert stuck.at.drift(MODEL) == ()
