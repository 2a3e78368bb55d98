# An ensemble and its members are planned and locked together, on both databases.
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import event

from controlplane.domain.artifacts import NO_FILES
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection, Model, Version
from controlplane.domain.changes import ChangeState
from controlplane.domain.environments import Revision, RevisionContent
from controlplane.errors import ChangeBlocked, ControlPlaneError
from controlplane.services.change_views import ChangeView
from controlplane.services.planning import Proposal
from tests.store.house import ENV, MODEL, House

FIRST = f"tritonctl rollback pipe --env {ENV}"


def config(member: str, number: int) -> JsonObject:
    """Of an ensemble with one member; -1 pins no version of it."""
    step: JsonObject = {"model_name": member, "model_version": str(number)}
    return {
        "platform": "ensemble",
        "ensemble_scheduling": {"step": [{**step, "input_map": {"x": "x"}, "output_map": {"y": "y"}}]},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["1"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1"]}],
    }


def pipe(house: House, number: int = -1) -> ChangeView:
    """An approved change that deploys an ensemble, which pins that version of its member."""
    with house.storage.write() as unit:
        unit.catalog.ensure_model(Model("pipe", "olga", "", (), house.clock.now()))
        found = Inspection(None, None, "ensemble")
        version = Version("pipe", 1, NO_FILES, found, "", "olga", house.clock.now(), config=config(MODEL, number))
        unit.catalog.add_version(version)
    view = house.changes.propose(house["olga"], Proposal(ENV, "pipe", "a reason", versions=(1,)))
    house.approve(view, "anna")
    return view


def serve(house: House, view: ChangeView) -> None:
    """Apply it, and write what the worker writes then."""
    house.apply(view)
    with house.storage.write() as unit:
        at = unit.environments.deployment(ENV, "pipe")
        assert at is not None
        unit.environments.guard(ENV, "pipe", at.lease_token, revision=at.revision + 1, active_change=None)
        unit.environments.add_revision(
            Revision(ENV, "pipe", at.revision + 1, view.plan.desired, view.request.id, house.clock.now(), ())
        )
        unit.changes.move(view.request.id, ChangeState.APPLIED)


@contextmanager
def counted(house: House) -> Iterator[list[str]]:
    """The statements that run meanwhile."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(house.storage.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(house.storage.database.engine, "before_cursor_execute", note)


def member(house: House, number: int) -> ChangeView:
    view = house.propose(number)
    house.approve(view, "anna")
    return view


def test_an_ensemble_waits_for_its_member_and_the_member_for_the_ensemble(house: House) -> None:
    ensemble = pipe(house)
    assert house.blocked(ensemble) == ["members"]
    house.deploy(1)
    second = member(house, 2)
    house.apply(ensemble)
    assert house.blocked(second) == ["active"]


@pytest.mark.parametrize("again", range(4))
def test_of_an_ensemble_and_its_member_applied_at_once_one_waits(house: House, again: int) -> None:
    house.deploy(1)
    views = [pipe(house), member(house, 2)]

    def apply(view: ChangeView) -> str:
        try:
            house.apply(view)
        except ChangeBlocked as error:
            return str(error.details["blockers"])
        return "applied"

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(apply, views if again % 2 else views[::-1]))
    assert sorted(text == "applied" for text in said) == [False, True]
    assert "'code': 'active'" in next(text for text in said if text != "applied")


@pytest.mark.parametrize("to", [1, 0])
@pytest.mark.parametrize("approvals", [1, 0])
def test_a_rollback_that_takes_an_ensemble_down_needs_an_approval(house: House, to: int, approvals: int) -> None:
    house.deploy(1)
    house.deploy(2)
    serve(house, pipe(house, 2))
    house.policy(approvals=approvals)
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=to, reason="2 is bad")
    assert (back.request.state, back.needed) == (ChangeState.OPEN, 1)
    assert any("the ensemble 'pipe'" in note for note in back.plan.notes)
    (blocker,) = back.blockers
    assert blocker.code == "approvals"
    assert blocker.message.startswith("0 of 1 approvals; the ensemble 'pipe'")
    assert f"first: {FIRST}{'' if to else ' --to 0'} --reason …" in blocker.message
    if to:
        house.approve(back, "anna")
        back = house.apply(back)
    else:
        back = house.apply(back, by="ada", break_glass="clients are getting wrong answers")
    assert back.request.state is ChangeState.APPLYING


def test_a_rollback_that_leaves_an_ensemble_what_it_needs_is_as_free_as_ever(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    serve(house, pipe(house))
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="2 is bad")
    assert back.request.state is ChangeState.APPLYING
    assert not any("ensemble" in note for note in back.plan.notes)


def test_neither_rollback_nor_reconcile_preempts_the_change_of_an_ensemble(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    ensemble = house.apply(pipe(house))
    active = f"change {ensemble.request.id} of the ensemble 'pipe', which uses it, is being applied"
    with pytest.raises(ChangeBlocked) as error:
        house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="2 is bad")
    assert f"{active}: wait for it, or roll that back first: {FIRST} --reason …" in str(error.value)
    again = house.changes.propose(house["olga"], Proposal(ENV, MODEL, "a reason", reconcile=True))
    assert active in again.plan.notes
    house.approve(again, "anna")
    assert house.blocked(again) == ["active"]
    undone = house.changes.rollback(house["olga"], ENV, "pipe", to=0, reason="stuck")  # frees the way
    assert (undone.needed, undone.request.state) == (0, ChangeState.APPLYING)


def test_an_ensemble_neither_rolls_back_nor_is_reconciled_while_its_member_changes(house: House) -> None:
    house.deploy(1)
    serve(house, pipe(house, 1))
    free = house.changes.propose(house["olga"], Proposal(ENV, "pipe", "a reason", config=config(MODEL, -1)))
    house.approve(free, "anna")
    serve(house, free)
    house.apply(member(house, 2))
    with pytest.raises(ChangeBlocked, match=f"roll that back first: tritonctl rollback {MODEL} "):
        house.changes.rollback(house["olga"], ENV, "pipe", to=1, reason="it is slow")
    reconcile = house.changes.propose(house["olga"], Proposal(ENV, "pipe", "a reason", reconcile=True))
    house.approve(reconcile, "anna")
    assert house.blocked(reconcile) == ["active"]


def test_looking_at_a_change_asks_no_more_where_there_are_more_models(house: House) -> None:
    house.deploy(1)
    view = pipe(house)
    with counted(house) as few:
        house.show(view)
    others = [f"other{number}" for number in range(20)]
    with house.storage.write() as unit:
        for name in others:
            unit.environments.ensure_deployment(ENV, name)
            unit.environments.guard(ENV, name, 0, revision=1, active_change=view.request.id)
            content = RevisionContent((), {"backend": "x"})
            unit.environments.add_revision(Revision(ENV, name, 1, content, None, house.clock.now(), ()))
    with counted(house) as many:
        house.show(view)
    assert len(few) == len(many)


def test_members_that_a_replan_names_meanwhile_are_not_left_unlocked(house: House, dialect: str) -> None:
    house.deploy(1)
    view = pipe(house)
    ended: list[str] = []

    def apply() -> None:
        try:
            house.apply(view)
        except ControlPlaneError as error:
            ended.append(str(error))

    with house.storage.write() as unit:  # as a replan holds it
        unit.environments.lock(ENV, "pipe")
        unit.changes.lock(view.request.id)
        thread = threading.Thread(target=apply)
        thread.start()
        thread.join(2)  # it has read the plan, and waits for the lock
        assert thread.is_alive()
        desired = replace(view.plan.desired, config=config("other", -1))
        unit.changes.edit(view.request.id, plan_number=2)
        unit.changes.add_plan(replace(view.plan, number=2, desired=desired))
    thread.join(90)
    # SQLite's only writer reads the new plan from the start.
    expected = "was planned anew meanwhile" if dialect == "postgresql" else "its member 'other' is not deployed"
    assert expected in ended[0]
