# The permission table, every role against every permission.
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.domain.access import PERMISSIONS, Permission, Principal, PrincipalKind, Role, why_not

WHEN = datetime(2026, 11, 22, tzinfo=UTC)

# Written out again on purpose: a changed permission has to be changed twice.
EXPECTED = {
    Role.VIEWER: {"catalog.read", "environment.read", "change.read", "sweep.read", "audit.read"},
    Role.OPERATOR: {
        "catalog.read", "environment.read", "change.read", "audit.read", "model.register", "objective.set",
        "change.propose", "change.apply", "change.withdraw", "change.rollback", "deployment.reconcile", "sweep.read",
        "sweep.run",
    },
    Role.APPROVER: {
        "catalog.read", "environment.read", "change.read", "sweep.read", "audit.read", "change.approve", "review.close",
        "change.rollback",
    },
    Role.ADMIN: {permission.value for permission in Permission},
}  # fmt: skip
PERSONS_ONLY = {"change.approve", "review.close", "change.break_glass", "access.manage"}


def principal(kind: PrincipalKind, *roles: Role, disabled: bool = False) -> Principal:
    return Principal(1, "someone", kind, frozenset(roles), WHEN, WHEN if disabled else None)


def allowed(one: Principal) -> set[str]:
    return {permission.value for permission in Permission if one.may(permission)}


def test_the_table_names_every_permission() -> None:
    assert set(PERMISSIONS) == set(Permission)


@pytest.mark.parametrize("role", Role)
def test_a_person_with_a_role_may_exactly_this(role: Role) -> None:
    assert allowed(principal(PrincipalKind.PERSON, role)) == EXPECTED[role]


@pytest.mark.parametrize("role", Role)
def test_a_service_account_never_consents_and_never_manages_access(role: Role) -> None:
    assert allowed(principal(PrincipalKind.SERVICE_ACCOUNT, role)) == EXPECTED[role] - PERSONS_ONLY


def test_roles_add_up() -> None:
    both = principal(PrincipalKind.PERSON, Role.OPERATOR, Role.APPROVER)
    assert allowed(both) == EXPECTED[Role.OPERATOR] | EXPECTED[Role.APPROVER]


def test_whoever_may_not_is_told_which_role_would_do_and_who_can_help() -> None:
    viewer = principal(PrincipalKind.PERSON, Role.VIEWER)
    assert why_not(viewer, Permission.CHANGE_APPROVE) == (
        "someone may not change.approve: that takes the role approver or admin, and it has viewer",
        "ask an admin: tritonctl principal grant someone approver; or act as somebody else: --context NAME",
    )
    assert "has no role" in why_not(principal(PrincipalKind.PERSON), Permission.CHANGE_READ)[0]
    robot = principal(PrincipalKind.SERVICE_ACCOUNT, *Role)
    assert why_not(robot, Permission.CHANGE_APPROVE)[0].endswith("only people may, and it is a service account")
    assert "disabled" in why_not(principal(PrincipalKind.PERSON, *Role, disabled=True), Permission.CHANGE_READ)[0]


def test_without_a_role_or_disabled_nothing_is_allowed() -> None:
    assert allowed(principal(PrincipalKind.PERSON)) == set()
    assert allowed(principal(PrincipalKind.PERSON, *Role, disabled=True)) == set()
