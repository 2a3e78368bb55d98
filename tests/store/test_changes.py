# Acceptance 8 and §3 of the design: who may let what happen, without any server: votes, policies, time, break-glass.
from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.domain.access import Role
from controlplane.domain.changes import ChangeState, ReviewState
from controlplane.domain.times import format_instant
from controlplane.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    TransitionIllegal,
)
from controlplane.services.planning import Proposal
from tests.store.house import CONFIG, ENV, MODEL, House


def test_a_change_needs_as_many_distinct_people_as_the_policy_says(house: House) -> None:
    house.policy(approvals=2)
    view = house.propose()
    assert house.blocked(view) == ["approvals"]
    house.approve(view, "anna", "anna")
    assert house.show(view).counted == ("anna",)
    assert house.blocked(view) == ["approvals"]
    house.approve(view, "abel")
    started = house.apply(view)
    assert (started.request.state, started.counted) == (ChangeState.APPLYING, ("anna", "abel"))
    assert house.actions(view) == [
        ("olga", "change.proposed"),
        ("olga", "change.refused"),
        ("anna", "change.approved"),
        ("anna", "change.approved"),
        ("olga", "change.refused"),
        ("abel", "change.approved"),
        ("olga", "change.started"),
    ]


def test_authors_service_accounts_and_the_unentitled_do_not_approve(house: House) -> None:
    view = house.propose(by="ada")
    for name, message in (("ada", "authors and editors"), ("robot", "robot"), ("olga", "olga"), ("vera", "vera")):
        with pytest.raises(PermissionDenied, match=message):
            house.approve(view, name)
    assert house.show(view).approvals == ()
    assert ("ada", "change.refused") in house.actions(view)


def test_self_approval_is_possible_where_the_policy_allows_it(house: House) -> None:
    house.policy(self_approval=True)
    view = house.propose(by="ada")
    house.approve(view, "ada")
    assert house.apply(view, by="ada").request.state is ChangeState.APPLYING


def test_without_approvals_proposing_and_applying_is_all(house: House) -> None:
    house.policy(approvals=0)
    assert house.apply(house.propose()).request.state is ChangeState.APPLYING


def test_who_is_no_longer_entitled_no_longer_counts(house: House) -> None:
    view = house.propose()
    house.approve(view, "anna")
    assert house.show(view).blockers == ()
    house.access.disable(house["ada"], "anna")
    assert house.blocked(view) == ["approvals"]
    house.approve(view, "abel")
    house.access.revoke(house["ada"], "abel", Role.APPROVER)
    assert house.show(view).counted == ()
    assert "not counted: abel, anna" in house.show(view).blockers[0].message


def test_consent_is_to_one_plan_and_an_edit_drops_it(house: House) -> None:
    view = house.propose()
    house.approve(view, "anna")
    edited = house.changes.replan(
        house["otto"], view.request.id, Proposal(ENV, MODEL, "better", versions=(2,), config=CONFIG)
    )
    assert (edited.request.plan_number, edited.request.last_editor, edited.counted) == (2, "otto", ())
    assert edited.plan.digest != view.plan.digest
    with pytest.raises(PreconditionFailed, match="has another plan now"):
        house.approve(view, "abel")
    assert house.blocked(edited) == ["approvals"]
    house.approve(edited, "abel")
    assert house.show(edited).counted == ("abel",)


def test_planning_the_same_again_keeps_consent_and_a_stricter_policy_drops_it(house: House) -> None:
    view = house.propose()
    house.approve(view, "anna")
    again = house.changes.replan(house["olga"], view.request.id)
    assert (again.plan.digest, again.counted) == (view.plan.digest, ("anna",))
    house.policy(approvals=2)
    assert house.blocked(view) == ["approvals"]
    assert house.changes.replan(house["olga"], view.request.id).counted == ()


def test_an_edit_cannot_make_a_change_another(house: House) -> None:
    view = house.propose()
    house.environments.create(house["ada"], "other", "", {"approvals": 0})
    for edits in (
        Proposal("other", MODEL, "elsewhere", versions=(1,), config=CONFIG),
        Proposal(ENV, "letters", "another model", versions=(1,), config=CONFIG),
        Proposal(ENV, MODEL, "reconcile", reconcile=True),
    ):
        with pytest.raises(InvalidInput, match="an edit cannot make it another"):
            house.changes.replan(house["olga"], view.request.id, edits)
    assert house.show(view).plan == view.plan


def test_a_change_that_was_planned_on_another_revision_is_stale_until_it_is_planned_again(house: House) -> None:
    house.deploy(1)
    late = house.propose(2)
    house.approve(late, "anna")
    house.deploy(3)
    assert house.blocked(late) == ["stale"]
    again = house.changes.replan(house["olga"], late.request.id)
    assert (again.plan.base_revision, again.counted) == (2, ())


def test_one_change_of_a_model_at_a_time(house: House) -> None:
    first, second = house.propose(1), house.propose(1, sets=(("max_batch_size", "4"),))
    for view in (first, second):
        house.approve(view, "anna")
    house.apply(first)
    assert house.blocked(second) == ["active"]
    assert house.blocked(first) == ["state"]


def test_a_rejected_change_is_closed_for_ever(house: House) -> None:
    view = house.propose()
    rejected = house.changes.reject(house["anna"], view.request.id, view.plan.digest, "not now")
    assert (rejected.request.state, rejected.request.message) == (ChangeState.REJECTED, "not now")
    assert house.blocked(view) == ["state"]
    for attempt in (
        lambda: house.approve(view, "abel"),
        lambda: house.changes.replan(house["olga"], view.request.id),
        lambda: house.changes.withdraw(house["olga"], view.request.id),
        lambda: house.changes.resume(house["olga"], view.request.id, "retry"),
    ):
        with pytest.raises(TransitionIllegal):
            attempt()


def test_a_change_is_withdrawn_by_who_wrote_it_or_an_admin(house: House) -> None:
    views = [house.propose(), house.propose()]
    with pytest.raises(PermissionDenied, match="only olga or an admin withdraws it"):
        house.changes.withdraw(house["otto"], views[0].request.id)
    for name, view in zip(("olga", "ada"), views, strict=True):
        assert house.changes.withdraw(house[name], view.request.id).request.state is ChangeState.WITHDRAWN
    assert house.actions(views[0])[1:] == [("otto", "change.refused"), ("olga", "change.withdrawn")]


def test_a_change_expires_and_the_worker_closes_it(house: House) -> None:
    house.policy(expires_after_hours=1)
    view = house.propose()
    house.approve(view, "anna")
    assert house.changes.expire() == 0
    house.clock.instant += timedelta(hours=1)
    assert house.blocked(view) == ["expired"]
    assert house.changes.expire() == 1
    closed = house.show(view)
    assert (closed.request.state, closed.request.message) == (ChangeState.EXPIRED, "nobody applied it in time")
    assert house.actions(view)[-1] == ("system", "change.expired")
    assert house.changes.expire() == 0


def test_nothing_is_applied_in_a_freeze_window_but_a_rollback(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    now = house.clock.now()
    window = {"name": "holidays", "starts_at": now, "ends_at": now + timedelta(hours=1)}
    house.policy(freeze_windows=[{k: v if isinstance(v, str) else format_instant(v) for k, v in window.items()}])  # type: ignore[arg-type]
    view = house.propose(3)
    house.approve(view, "anna")
    assert house.blocked(view) == ["freeze"]
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="it is worse")
    assert (back.request.state, back.plan.desired.numbers) == (ChangeState.APPLYING, (1,))
    house.record(back)
    house.clock.instant += timedelta(hours=1)
    again = house.changes.replan(house["olga"], view.request.id)
    house.approve(again, "anna")
    assert house.apply(again).request.state is ChangeState.APPLYING


def test_breaking_the_glass_lifts_the_policy_and_opens_a_review_that_someone_else_closes(house: House) -> None:
    view = house.propose()
    with pytest.raises(PermissionDenied):
        house.apply(view, break_glass="the site is down")
    with pytest.raises(InvalidInput, match="too short"):
        house.apply(view, by="ada", break_glass="hurry")
    broken = house.apply(view, by="ada", break_glass="the site is down")
    assert (broken.request.state, broken.request.review) == (ChangeState.APPLYING, ReviewState.OPEN)
    house.access.grant(house["ada"], "olga", Role.APPROVER)
    olga = house.access.principal(house["ada"], "olga")
    for own in (house["ada"], olga):
        with pytest.raises(PermissionDenied, match="closed by someone else"):
            house.changes.close_review(own, view.request.id, "fine")
    closed = house.changes.close_review(house["anna"], view.request.id, "it was needed")
    assert closed.request.review is ReviewState.CLOSED
    house.propose()
    listed = [house.changes.list(house["vera"], review=state) for state in (ReviewState.OPEN, ReviewState.CLOSED)]
    assert [[request.id for request in found] for found in listed] == [[], [view.request.id]]
    with pytest.raises(Conflict, match="no open review"):
        house.changes.close_review(house["anna"], view.request.id, "again")
    assert [entry for entry in house.actions(view) if entry[1] in ("glass.broken", "review.closed")] == [
        ("ada", "glass.broken"),
        ("anna", "review.closed"),
    ]


def test_breaking_the_glass_lifts_nothing_but_the_policy(house: House) -> None:
    house.deploy(1)
    late = house.propose(2)
    house.deploy(3)
    assert house.blocked(late, by="ada", break_glass="the site is down") == ["stale"]
    assert house.show(late).request.break_glass is None
    house.policy(break_glass=False)
    again = house.changes.replan(house["olga"], late.request.id)
    assert house.blocked(again, by="ada", break_glass="the site is down") == ["break_glass"]
    assert house.show(again).request.review is ReviewState.NONE


def test_a_failed_gate_blocks_and_a_new_gate_asks_for_a_new_plan(house: House) -> None:
    view = house.propose()
    house.approve(view, "anna")
    house.policy(gates=["golden"])
    assert house.blocked(view) == ["policy"]
    again = house.changes.replan(house["olga"], view.request.id)
    house.approve(again, "anna")
    assert [gate.outcome for gate in again.plan.gates] == ["failed"]
    assert house.blocked(again) == ["gate"]


def test_a_rollback_goes_to_the_last_good_revision_and_its_content_needs_an_acknowledgement_to_return(
    house: House,
) -> None:
    for version in (1, 2, 3):
        house.deploy(version)
    for expected in (2, 1):
        back = house.changes.rollback(house["anna"], ENV, MODEL, to=None, reason="it is worse")
        assert back.plan.desired.numbers == (expected,)
        house.record(back)
    with pytest.raises(NotFound, match="no earlier revision that was not rolled back"):
        house.changes.rollback(house["anna"], ENV, MODEL, to=None, reason="it is worse")
    view = house.propose(3)
    house.approve(view, "anna")
    assert house.blocked(view) == ["rolled_back"]
    known = house.propose(3, acknowledge=("rolled_back",))
    house.approve(known, "anna")
    assert house.apply(known).request.state is ChangeState.APPLYING


def test_a_rollback_waits_for_approval_where_the_policy_asks_for_it(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    house.policy(rollback_approvals=1)
    with pytest.raises(PermissionDenied):
        house.changes.rollback(house["vera"], ENV, MODEL, to=1, reason="it is worse")
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="it is worse")
    assert back.request.state is ChangeState.OPEN
    assert house.blocked(back) == ["approvals"]
    house.approve(back, "anna")
    assert house.apply(back).request.state is ChangeState.APPLYING


def test_a_decision_that_there_is_none_of_is_refused(house: House) -> None:
    with pytest.raises(InvalidInput, match="'again' is no decision"):
        house.changes.resume(house["olga"], house.propose().request.id, "again")
