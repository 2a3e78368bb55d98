# Acceptance 7 and 8: what is decided on a change is decided on what was seen, whoever acts at the same moment.
from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.domain.changes import ChangeState, JournalEntry
from controlplane.domain.environments import Direction
from controlplane.domain.policies import Policy
from controlplane.errors import (
    Conflict,
    ControlPlaneError,
    InvalidInput,
    LeaseLost,
    LoadUnknown,
    OperationTimedOut,
    PermissionDenied,
    PolicyInvalid,
    ServerRefused,
    ServerUnreachable,
)
from controlplane.services.planning import Proposal
from tests.store.house import CONFIG, ENV, MODEL, House


def test_an_apply_waits_for_a_replan_and_then_asks_for_approval_of_the_new_plan(house: House) -> None:
    view = house.propose(1)
    house.approve(view, "anna")
    ended: list[object] = []

    def apply() -> None:
        try:
            ended.append(house.apply(view, by="otto"))
        except ControlPlaneError as error:
            ended.append(error.code)

    with house.storage.write() as unit:  # as a replan holds it
        unit.environments.lock(ENV, MODEL)
        unit.changes.lock(view.request.id)
        thread = threading.Thread(target=apply)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        plan = unit.changes.plan(unit.changes.get(view.request.id))
        unit.changes.edit(view.request.id, plan_number=2)
        unit.changes.add_plan(replace(plan, number=2, reason="another"))
    thread.join(90)
    assert ended == ["change.blocked"]
    now = house.show(view)
    assert (now.request.state, now.plan.number, now.counted) == (ChangeState.OPEN, 2, ())


def test_only_one_of_two_replans_of_the_same_plan_counts(house: House) -> None:
    view = house.propose(1)
    draft = house.changes._planner.again
    edits = Proposal(ENV, MODEL, "mine", versions=(1,), config=CONFIG)

    def meanwhile(*given: object) -> object:
        house.changes._planner.again = draft  # type: ignore[method-assign]
        house.changes.replan(house["otto"], view.request.id)
        return draft(*given)  # type: ignore[arg-type]

    house.changes._planner.again = meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict, match="planned anew meanwhile"):
        house.changes.replan(house["olga"], view.request.id, edits)


def test_what_expires_is_judged_again_when_it_is_closed(house: House) -> None:
    view = house.propose(1)
    house.clock.instant += timedelta(hours=200)
    with house.storage.read() as unit:
        assert [request.id for request in unit.changes.expired(house.clock.now())] == [view.request.id]
    house.changes.replan(house["olga"], view.request.id)
    assert house.changes.expire() == 0
    assert house.show(view).request.state is ChangeState.OPEN


def test_only_a_blockers_word_can_be_acknowledged_and_approvers_see_it(house: House) -> None:
    view = house.propose(1)
    house.approve(view, "anna")
    for word in ("inconclusive", "restart_server", "sha256:1"):
        with pytest.raises(InvalidInput, match="cannot be acknowledged"):
            house.propose(2, acknowledge=(word,))
    edits = Proposal(ENV, MODEL, "a reason", versions=(1,), config=CONFIG, acknowledge=("rolled_back",))
    again = house.changes.replan(house["olga"], view.request.id, edits)
    assert (again.plan.acknowledged, again.counted) == (("rolled_back",), ())


def test_what_cannot_be_verified_is_for_a_person_to_decide(house: House) -> None:
    view = house.propose(1)
    house.approve(view, "anna")
    house.apply(view)
    with house.storage.write() as unit:
        unit.changes.move(view.request.id, ChangeState.PAUSED)
    for decision in ("accept", "restart"):
        with pytest.raises(PermissionDenied, match="for a person to decide"):
            house.changes.resume(house["robot"], view.request.id, decision)
    resumed = house.changes.resume(house["olga"], view.request.id, "accept")
    assert resumed.request.state is ChangeState.APPLYING


def test_a_rollback_that_only_preempts_leaves_the_accepted_content_good(house: House) -> None:
    house.deploy(1)
    two = house.propose(2)
    house.approve(two, "anna")
    house.apply(two)
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="2 hangs")
    assert (back.plan.desired.numbers, back.request.state) == ((1,), ChangeState.APPLYING)
    house.record(back)
    house.deploy(3)
    again = house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="3 is bad")
    assert again.plan.desired.numbers == (1,)


def test_going_back_to_what_was_rolled_back_needs_the_approvals_of_a_change(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    house.record(house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="2 is bad"))
    again = house.changes.rollback(house["olga"], ENV, MODEL, to=2, reason="once more")
    assert (again.request.state, again.needed) == (ChangeState.OPEN, 1)


def test_ending_the_service_by_a_rollback_needs_the_approvals_of_a_change(house: House) -> None:
    house.propose(1)  # a wish alone: nothing was ever applied
    with pytest.raises(Conflict, match="was never deployed"):
        house.changes.rollback(house["anna"], ENV, MODEL, to=0, reason="oops")
    house.deploy(1)
    ended = house.changes.rollback(house["anna"], ENV, MODEL, to=0, reason="no longer needed")
    assert (ended.request.state, ended.needed) == (ChangeState.OPEN, 1)


@pytest.mark.parametrize("error", [ServerUnreachable, LeaseLost, OperationTimedOut, ServerRefused])
@pytest.mark.parametrize("effect", ["load", "kill_server"])
def test_what_never_reached_the_server_says_nothing_of_an_unresolved_load(
    house: House, error: type[ControlPlaneError], effect: str
) -> None:
    def journal(what: str, failed: ControlPlaneError | None) -> None:
        entry = JournalEntry(ENV, MODEL, None, "remote", Direction.FORWARD, what, None, "", 1, house.clock.now())
        unit.changes.finish(unit.changes.start(entry), house.clock.now(), failed)

    with house.storage.write() as unit:
        journal("load", LoadUnknown("never ended"))
        journal(effect, error("not done"))
        assert unit.changes.unresolved_load("remote", MODEL)
        journal("kill_server", None)
        assert not unit.changes.unresolved_load("remote", MODEL)


def test_moments_that_no_calendar_reaches_and_roles_that_are_none_are_refused() -> None:
    window = {"name": "x", "starts_at": "0001-01-01T00:00:00+23:00", "ends_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(PolicyInvalid, match="too far away"):
        Policy.from_json({"freeze_windows": [window]})
    with pytest.raises(PolicyInvalid, match="unknown role 'aprover'"):
        Policy.from_json({"approver_roles": ["aprover"]})
