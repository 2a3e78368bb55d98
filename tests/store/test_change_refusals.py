# Decisions that are refused: each is in the audit log and says what, which value, and what to do instead.
from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.domain.canonical import Json
from controlplane.domain.changes import ChangeKind, RollbackTarget
from controlplane.domain.times import format_instant
from controlplane.errors import ChangeBlocked, Conflict, InvalidInput, NotFound, PermissionDenied, PreconditionFailed
from controlplane.services.change_views import ChangeView
from controlplane.services.planning import Proposal
from tests.store.house import CONFIG, ENV, MODEL, House


def refusals(house: House, view: ChangeView) -> list[tuple[str, dict[str, Json]]]:
    """Who was refused what on the change, the oldest first."""
    with house.storage.read() as unit:
        found = unit.audit.entries(subject=("change", str(view.request.id)), action="change.refused")
    return [(entry.actor.name, dict(entry.details)) for entry in reversed(found)]


def test_a_vote_on_a_plan_that_is_no_longer_the_plan_is_refused_and_recorded(house: House) -> None:
    view = house.propose()
    again = house.changes.replan(
        house["olga"], view.request.id, Proposal(ENV, MODEL, "another reason", versions=(2,), config=CONFIG)
    )
    for vote in (house.changes.approve, house.changes.reject):
        with pytest.raises(PreconditionFailed, match="has another plan now"):
            vote(house["anna"], view.request.id, view.plan.digest, "looks good")
    assert refusals(house, view) == [
        (
            "anna",
            {
                "decision": decision,
                "reason": "precondition.failed",
                "plan": again.plan.digest,
                "voted_on": view.plan.digest,
            },
        )
        for decision in ("approve", "reject")
    ]


def test_what_a_voter_wrote_for_a_digest_is_not_recorded_without_end(house: House) -> None:
    view = house.propose()
    with pytest.raises(PreconditionFailed):
        house.changes.approve(house["anna"], view.request.id, "x" * 100_000, "")
    assert refusals(house, view)[0][1]["voted_on"] == "x" * 80


def test_every_decision_on_a_change_that_is_over_is_refused_and_recorded(house: House) -> None:
    view = house.propose()
    number, plan = view.request.id, view.plan.digest
    house.changes.withdraw(house["olga"], number)
    attempts: list[tuple[str, str, Callable[[], object]]] = [
        ("anna", "approve", lambda: house.approve(view, "anna")),
        ("anna", "reject", lambda: house.changes.reject(house["anna"], number, plan, "no")),
        ("olga", "withdraw", lambda: house.changes.withdraw(house["olga"], number)),
        ("olga", "apply", lambda: house.apply(view)),
        ("olga", "resume", lambda: house.changes.resume(house["olga"], number, "retry")),
        ("anna", "close_review", lambda: house.changes.close_review(house["anna"], number, "fine")),
    ]
    for _, _, attempt in attempts:
        with pytest.raises(Conflict) as error:
            attempt()
        assert error.value.hint == f"tritonctl change show {number}"
    assert [(name, details["decision"]) for name, details in refusals(house, view)] == [
        (name, decision) for name, decision, _ in attempts
    ]


def test_a_personal_refusal_says_who_decides_instead(house: House) -> None:
    view = house.propose(by="ada")
    with pytest.raises(PermissionDenied, match="ada wrote or edited change 1") as error:
        house.approve(view, "ada")
    assert error.value.hint == "ask somebody else, who may: tritonctl change approve 1"
    house.apply(view, by="ada", break_glass="the site is down")
    with pytest.raises(PermissionDenied, match="review is closed by someone else") as error:
        house.changes.close_review(house["ada"], 1, "fine")
    assert error.value.hint == "ask another approver: tritonctl change close-review 1 --comment …"
    assert [details["decision"] for _, details in refusals(house, view)] == ["approve", "close_review"]


def test_a_change_that_is_applied_and_served_may_be_applied_again_and_nothing_happens(house: House) -> None:
    house.deploy(1)
    applied = house.changes.show(house["vera"], 1)
    before = house.actions(applied)
    assert house.apply(applied) == applied
    assert house.actions(applied) == before
    with pytest.raises(PermissionDenied):
        house.apply(applied, by="vera")


def test_a_change_that_was_applied_and_is_not_served_any_more_says_how_to_go_back_to_it(house: House) -> None:
    house.deploy(1)
    first = house.changes.show(house["vera"], 1)
    house.deploy(2)
    with pytest.raises(ChangeBlocked, match=f"tritonctl rollback {MODEL} --env {ENV} --to 1 --reason"):
        house.apply(first)
    second = house.changes.show(house["vera"], 2)
    with house.storage.write() as unit:
        deployment = unit.environments.deployment(ENV, MODEL)
        assert deployment is not None
        unit.environments.guard(ENV, MODEL, deployment.lease_token, drift=["config.pbtxt differs"])
    with pytest.raises(ChangeBlocked, match=r"drift was observed: tritonctl change propose .* --reconcile"):
        house.apply(second)


def test_a_change_that_is_being_applied_says_how_to_follow_it(house: House) -> None:
    view = house.propose()
    house.approve(view, "anna")
    house.apply(view)
    with pytest.raises(ChangeBlocked, match="it is applying: tritonctl change watch 1"):
        house.apply(view)


def test_what_blocks_first_says_the_next_command(house: House) -> None:
    late = house.propose(2, config=CONFIG)
    with pytest.raises(ChangeBlocked) as error:
        house.apply(late)
    assert error.value.hint == "ask somebody else, who may: tritonctl change approve 1"
    house.deploy(1)
    with pytest.raises(ChangeBlocked) as error:
        house.apply(late)
    assert error.value.hint == "tritonctl change replan 1"


def test_withdrawing_twice_says_that_it_is_withdrawn(house: House) -> None:
    view = house.propose()
    house.changes.withdraw(house["olga"], view.request.id)
    with pytest.raises(Conflict, match=r"^change 1 is withdrawn already$"):
        house.changes.withdraw(house["olga"], view.request.id)


def test_proposing_what_an_open_change_proposes_is_allowed_and_said(house: House) -> None:
    first = house.propose()
    second = house.propose(by="otto")
    assert not any("proposes the same" in note for note in first.plan.notes)
    assert "change 1 by olga, still open, proposes the same: one of them is enough" in second.plan.notes
    other = house.propose(2, config=CONFIG)
    assert not any("proposes the same" in note for note in other.plan.notes)
    house.changes.withdraw(house["olga"], first.request.id)
    third = house.propose()
    assert [note for note in third.plan.notes if "proposes the same" in note] == [
        "change 2 by otto, still open, proposes the same: one of them is enough"
    ]
    assert second.plan.digest == first.plan.digest  # notes are no part of what is approved


def test_a_freeze_names_the_glass_only_where_breaking_it_is_all_that_it_takes(house: House) -> None:
    view = house.propose()
    now = house.clock.now()
    window = {"name": "holidays", "starts_at": format_instant(now), "ends_at": format_instant(now + timedelta(hours=1))}
    hints = []
    for clauses in ({"freeze_windows": [window]}, {"break_glass": False}, {"break_glass": True, "freeze_windows": []}):
        house.policy(**clauses)
        with pytest.raises(ChangeBlocked) as error:
            house.apply(view)
        hints.append(error.value.hint)
    asks = "ask somebody else, who may: tritonctl change approve 1"
    assert hints == [
        "wait; in an emergency, as an admin: tritonctl change apply 1 --break-glass WHY",
        asks,
        asks,
    ]


def test_a_rollback_during_a_freeze_says_that_it_is_exempt(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    now = house.clock.now()
    starts_at, ends_at = format_instant(now), format_instant(now + timedelta(hours=1))
    house.policy(freeze_windows=[{"name": "holidays", "starts_at": starts_at, "ends_at": ends_at}])
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="it is worse")
    assert f"freeze window 'holidays' is on until {ends_at}: rollbacks are exempt" in back.plan.notes


def test_a_revision_says_what_made_it_and_a_rollback_where_it_goes(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="it is worse")
    first, second = reversed(house.environments.revisions(house["vera"], ENV, MODEL))
    assert back.target == RollbackTarget(1, first.revision.accepted_at)
    house.record(back)
    assert house.show(back).target == back.target
    third = house.environments.revision(house["vera"], ENV, MODEL, 3)
    assert house.environments.revisions(house["vera"], ENV, MODEL) == (third, second, first)
    assert [(view.kind, view.reason) for view in (first, second, third)] == [
        (ChangeKind.CHANGE, "a reason"),
        (ChangeKind.CHANGE, "a reason"),
        (ChangeKind.ROLLBACK, "it is worse"),
    ]


def test_a_rollback_that_goes_nowhere_says_what_is_possible(house: House) -> None:
    with pytest.raises(NotFound, match="was never deployed") as missing:
        house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="it is worse")
    assert missing.value.hint == f"tritonctl change propose {MODEL} --env {ENV} --version N --reason …"
    house.deploy(1)
    with pytest.raises(NotFound, match="revision 1 of 'digits' in 'production' is its first") as first:
        house.changes.rollback(house["olga"], ENV, MODEL, to=None, reason="it is worse")
    assert first.value.hint is not None
    assert "--to 0" in first.value.hint
    with pytest.raises(Conflict, match="serves the content of revision 1 already") as same:
        house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="it is worse")
    assert same.value.hint == f"choose another: tritonctl revision list {MODEL} --env {ENV}"


def test_a_value_of_the_wrong_kind_says_how_it_is_written(house: House) -> None:
    with pytest.raises(InvalidInput, match="max_batch_size must be a whole number, not 'abc'") as error:
        house.propose(sets=(("max_batch_size", "abc"),))
    assert error.value.hint == "write it as: --set 'max_batch_size=VALUE', with a value of that kind"


def test_what_is_small_is_not_nothing(house: House) -> None:
    house.environments.create(house["ada"], "ours", "", {"gates": ["headroom"]})
    house.environments.add_server(house["ada"], "ours", "ours", "127.0.0.1:2", "/nowhere/ours", home="/nowhere")
    view = house.changes.propose(house["olga"], Proposal("ours", MODEL, "a reason", versions=(1, 2), config=CONFIG))
    assert view.plan.gates[0].message.startswith("old and new weigh 2 B side by side; half of the host's memory is ")
