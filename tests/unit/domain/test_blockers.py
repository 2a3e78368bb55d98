# Why a change may not be applied now.
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.blockers import Situation, Voter, blockers, counted, needed
from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import (
    TRANSITIONS,
    Approval,
    ChangeKind,
    ChangeRequest,
    ChangeState,
    GateResult,
    Plan,
    check_transition,
)
from controlplane.domain.environments import NOTHING, Deployment, Direction, RevisionContent, VersionRef
from controlplane.domain.policies import FreezeWindow, Policy
from controlplane.errors import PolicyInvalid, TransitionIllegal

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = Policy(approvals=1)
CONTENT = RevisionContent((VersionRef(1, "sha256:" + "1" * 64),), {"name": "m"})
REQUEST = ChangeRequest(
    id=7,
    environment="prod",
    model="m",
    kind=ChangeKind.CHANGE,
    state=ChangeState.OPEN,
    reason="r",
    hypothesis="",
    expected_effect="",
    author="ann",
    last_editor="ann",
    created_at=NOW,
    expires_at=NOW + timedelta(hours=1),
    plan_number=1,
)
PLAN = Plan(
    change=7,
    number=1,
    base_revision=0,
    base_digest=NOTHING.digest,
    desired=CONTENT,
    reason="r",
    kind=ChangeKind.CHANGE,
    reload_class="reload",
    clauses=POLICY.clauses(),
    diff=(),
    gates=(),
    notes=(),
    made_by="ann",
    made_at=NOW,
)
DEPLOYMENT = Deployment("prod", "m", 0, None, Direction.FORWARD, 0, None, None, (), None)
VOTERS = {
    "ann": Voter("ann", True, True, frozenset({"operator", "approver"})),
    "bob": Voter("bob", True, True, frozenset({"approver"})),
    "bot": Voter("bot", True, False, frozenset({"approver"})),
    "gone": Voter("gone", False, True, frozenset({"approver"})),
    "eve": Voter("eve", True, True, frozenset({"viewer"})),
}
AT = Situation(DEPLOYMENT, NOTHING.digest, POLICY, POLICY, VOTERS, frozenset(), NOW)


def vote(principal: str, digest: str = PLAN.digest) -> Approval:
    return Approval(7, digest, principal, "", NOW)


def codes(
    request: ChangeRequest = REQUEST,
    plan: Plan = PLAN,
    approvals: tuple[Approval, ...] = (vote("bob"),),
    at: Situation = AT,
) -> list[str]:
    return [blocker.code for blocker in blockers(request, plan, approvals, at)]


def test_an_approved_change_on_its_base_is_not_blocked() -> None:
    assert codes() == []


def test_votes_of_authors_services_the_departed_and_the_unentitled_do_not_count() -> None:
    votes = tuple(vote(name) for name in ("ann", "bot", "gone", "eve", "stranger"))
    assert counted(REQUEST, PLAN, votes, AT) == ()
    assert codes(approvals=votes) == ["approvals"]


def test_the_same_person_counts_once_and_only_for_the_current_plan() -> None:
    assert counted(REQUEST, PLAN, (vote("bob"), vote("bob")), AT) == ("bob",)
    assert codes(approvals=(vote("bob", "sha256:other"),)) == ["approvals"]


def test_a_last_editor_does_not_approve() -> None:
    assert codes(replace(REQUEST, last_editor="bob")) == ["approvals"]


def test_self_approval_needs_both_policies() -> None:
    alone = Policy(approvals=1, self_approval=True)
    own = (vote("ann"),)
    assert counted(REQUEST, PLAN, own, replace(AT, bound=alone, live=alone)) == ("ann",)
    assert counted(REQUEST, PLAN, own, replace(AT, bound=alone)) == ()


def test_the_stricter_of_bound_and_live_policy_decides() -> None:
    assert needed(REQUEST, PLAN, replace(AT, live=Policy(approvals=2))) == 2
    assert needed(REQUEST, PLAN, replace(AT, live=Policy(approvals=0))) == 1
    assert codes(at=replace(AT, live=Policy(approvals=1, gates=("golden",)))) == ["policy"]


def test_a_moved_base_makes_it_stale() -> None:
    assert codes(at=replace(AT, deployment=replace(DEPLOYMENT, revision=1))) == ["stale"]
    assert codes(at=replace(AT, base_digest="sha256:other")) == ["stale"]


def test_another_active_change_blocks_all_but_a_rollback() -> None:
    busy = replace(AT, deployment=replace(DEPLOYMENT, active_change=6))
    assert codes(at=busy) == ["active"]
    assert codes(replace(REQUEST, kind=ChangeKind.ROLLBACK), approvals=(), at=busy) == []


def test_freeze_drift_expiry_and_gates_each_block() -> None:
    window = FreezeWindow("holidays", NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    frozen = replace(AT, live=Policy(approvals=1, freeze_windows=(window,)))
    assert codes(at=frozen) == ["freeze"]
    assert (
        codes(at=replace(frozen, now=window.ends_at), request=replace(REQUEST, expires_at=NOW + timedelta(days=1)))
        == []
    )
    assert codes(at=replace(AT, deployment=replace(DEPLOYMENT, drift=("bytes",)))) == ["drift"]
    assert codes(at=replace(AT, now=REQUEST.expires_at)) == ["expired"]
    for outcome in ("failed", "inconclusive", "error"):
        gated = replace(PLAN, gates=(GateResult("golden", outcome, "none"),))
        assert codes(plan=gated, approvals=(vote("bob", gated.digest),)) == ["gate"]


def test_content_that_was_rolled_back_needs_an_acknowledgement() -> None:
    at = replace(AT, rolled_back=frozenset({CONTENT.digest}))
    assert codes(at=at) == ["rolled_back"]
    known = replace(PLAN, acknowledged=("rolled_back",))
    assert known.digest != PLAN.digest
    assert codes(plan=known, approvals=(vote("bob", known.digest),), at=at) == []


def test_a_rollback_is_exempt_from_freeze_and_needs_what_the_policy_says_for_rollbacks() -> None:
    window = FreezeWindow("holidays", NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    rollback = replace(REQUEST, kind=ChangeKind.ROLLBACK)
    assert codes(rollback, approvals=(), at=replace(AT, live=Policy(freeze_windows=(window,)))) == []
    assert codes(rollback, approvals=(), at=replace(AT, live=Policy(rollback_approvals=1))) == ["approvals"]


def test_a_rollback_to_what_was_rolled_back_needs_a_changes_approvals_and_those_of_rollbacks() -> None:
    rollback = replace(REQUEST, kind=ChangeKind.ROLLBACK)
    for asked in (Policy(approvals=2), Policy(approvals=0, rollback_approvals=2)):
        at = replace(AT, bound=asked, live=asked)
        assert needed(rollback, PLAN, replace(at, rolled_back=frozenset({PLAN.desired.digest}))) == 2
        assert needed(rollback, PLAN, at) == asked.rollback_approvals


def test_break_glass_lifts_policy_but_not_a_moved_base() -> None:
    broken = replace(REQUEST, break_glass="the site is down")
    assert codes(broken, approvals=()) == []
    assert codes(broken, approvals=(), at=replace(AT, deployment=replace(DEPLOYMENT, revision=1))) == ["stale"]


def test_a_closed_change_says_so_and_nothing_else() -> None:
    assert codes(replace(REQUEST, state=ChangeState.APPLIED), approvals=()) == ["state"]


def test_the_plan_digest_binds_reason_content_base_and_policy_but_not_the_explanation() -> None:
    same = replace(PLAN, notes=("n",), diff=({"path": "x"},), number=2, made_by="bob")
    assert same.digest == PLAN.digest
    others = [
        replace(PLAN, reason="other"),
        replace(PLAN, base_digest="sha256:x"),
        replace(PLAN, base_revision=1),
        replace(PLAN, desired=NOTHING),
        replace(PLAN, reload_class="in_place"),
        replace(PLAN, clauses=Policy(approvals=2).clauses()),
        replace(PLAN, gates=(GateResult("golden", "passed", ""),)),
    ]
    assert len({PLAN.digest, *(plan.digest for plan in others)}) == len(others) + 1


def test_terminal_states_lead_nowhere_and_others_refuse_what_the_table_lacks() -> None:
    assert {state.value for state, following in TRANSITIONS.items() if not following} == {
        "applied",
        "undone",
        "rejected",
        "withdrawn",
        "expired",
    }
    for old, allowed in TRANSITIONS.items():
        for new in ChangeState:
            if new in allowed:
                check_transition(7, old, new)
            else:
                with pytest.raises(TransitionIllegal, match=f"change 7 is {old.value}"):
                    check_transition(7, old, new)


def test_a_policy_round_trips_and_refuses_what_it_does_not_know() -> None:
    window = FreezeWindow("holidays", NOW, NOW + timedelta(days=1))
    policy = Policy(approvals=2, gates=("golden",), keep_warm=True, freeze_windows=(window,))
    assert Policy.from_json(policy.to_json()) == policy
    wrong: tuple[JsonObject, ...] = (
        {"aprovals": 1},
        {"approvals": "1"},
        {"approvals": True},
        {"approvals": -1},
        {"gates": ["unheard"]},
        {"freeze_windows": [{"name": "x"}]},
        {"freeze_windows": [{"name": "x", "starts_at": "2026-01-01", "ends_at": "2026-01-02T00:00:00Z"}]},
    )
    for tree in wrong:
        with pytest.raises(PolicyInvalid):
            Policy.from_json(tree)


def test_a_freeze_that_ends_before_it_starts_is_refused_with_both_moments_and_the_right_order() -> None:
    window = {"name": "holidays", "starts_at": "2026-12-24T00:00:00Z", "ends_at": "2026-12-23T00:00:00Z"}
    with pytest.raises(PolicyInvalid, match=r"starts at 2026-12-24.* ends at 2026-12-23") as error:
        Policy.from_json({"freeze_windows": [window]})
    assert error.value.hint == "--freeze holidays=START/END, the earlier moment first"
