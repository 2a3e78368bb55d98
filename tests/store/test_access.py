# Principals, roles and tokens, on both databases.
from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from controlplane.domain.access import Permission, Principal, PrincipalKind, Role
from controlplane.errors import (
    AlreadyExists,
    Conflict,
    ControlPlaneError,
    InvalidInput,
    NameInvalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from controlplane.services.access import AccessService
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock


@pytest.fixture
def access(storage: Storage, clock: SteppingClock) -> AccessService:
    return AccessService(storage, clock)


@pytest.fixture
def admin(access: AccessService) -> Principal:
    return access.bootstrap("ada", None)[0]


def recorded(storage: Storage) -> list[tuple[str, str, dict[str, str]]]:
    with storage.read() as unit:
        return [(entry.actor.name, entry.action, dict(entry.subjects)) for entry in reversed(unit.audit.entries())]


def test_bootstrap_makes_the_first_admin_whose_token_works(access: AccessService, storage: Storage) -> None:
    principal, issued = access.bootstrap("ada", timedelta(days=1))
    assert principal.roles == {Role.ADMIN}
    assert issued.secret.startswith("tcp_")
    assert len(issued.secret) == 47
    assert access.authenticate(issued.secret) == principal
    assert recorded(storage) == [("system", "installation.bootstrapped", {"principal": "ada", "token": "1"})]


def test_bootstrap_is_refused_while_there_is_an_admin(access: AccessService, admin: Principal) -> None:
    with pytest.raises(Conflict, match="ada is an admin already"):
        access.bootstrap("eve", None)
    assert [principal.name for principal in access.principals(admin)] == ["ada"]


def test_of_many_bootstraps_at_once_one_succeeds(access: AccessService) -> None:
    def attempt(number: int) -> str:
        try:
            return access.bootstrap(f"admin{number}", None)[0].name
        except Conflict:
            return ""

    with ThreadPoolExecutor(6) as pool:
        made = [name for name in pool.map(attempt, range(6)) if name]
    assert len(made) == 1


def test_principals_are_created_with_roles_and_audited(
    access: AccessService, admin: Principal, storage: Storage
) -> None:
    made = access.create(admin, "ci", PrincipalKind.SERVICE_ACCOUNT, {Role.OPERATOR})
    assert access.principal(admin, "ci") == made
    assert (made.kind, made.roles) == (PrincipalKind.SERVICE_ACCOUNT, frozenset({Role.OPERATOR}))
    assert recorded(storage)[-1] == ("ada", "principal.created", {"principal": "ci"})


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("ada", PrincipalKind.PERSON, AlreadyExists),
        ("system", PrincipalKind.PERSON, InvalidInput),
        ("worker", PrincipalKind.SYSTEM, InvalidInput),
        ("../ada", PrincipalKind.PERSON, NameInvalid),
    ],
)
def test_a_principal_that_cannot_be_is_refused(
    access: AccessService, admin: Principal, name: str, kind: PrincipalKind, error: type[ControlPlaneError]
) -> None:
    with pytest.raises(error):
        access.create(admin, name, kind)
    assert [principal.name for principal in access.principals(admin)] == ["ada"]


def test_roles_are_granted_and_revoked_once_and_audited_once(
    access: AccessService, admin: Principal, storage: Storage
) -> None:
    access.create(admin, "bob", PrincipalKind.PERSON)
    for _ in range(2):
        assert access.grant(admin, "bob", Role.APPROVER).roles == {Role.APPROVER}
    for _ in range(2):
        assert access.revoke(admin, "bob", Role.APPROVER).roles == frozenset()
    subjects = {"principal": "bob", "role": "approver"}
    assert recorded(storage)[2:] == [("ada", "role.granted", subjects), ("ada", "role.revoked", subjects)]


def test_the_last_active_admin_cannot_be_disabled_or_demoted(access: AccessService, admin: Principal) -> None:
    access.create(admin, "robot", PrincipalKind.SERVICE_ACCOUNT, {Role.ADMIN})  # manages no access, so does not count
    with pytest.raises(Conflict, match="ada is the last active admin"):
        access.disable(admin, "ada")
    with pytest.raises(Conflict, match="ada is the last active admin"):
        access.revoke(admin, "ada", Role.ADMIN)
    assert access.principal(admin, "ada") == admin
    access.create(admin, "bob", PrincipalKind.PERSON, {Role.ADMIN})
    assert access.disable(admin, "ada").disabled_at is not None


def test_of_two_admins_who_disable_each_other_at_once_one_stays(access: AccessService, admin: Principal) -> None:
    bob = access.create(admin, "bob", PrincipalKind.PERSON, {Role.ADMIN})

    def attempt(pair: tuple[Principal, str]) -> bool:
        try:
            access.disable(*pair)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, [(admin, "bob"), (bob, "ada")])) == [False, True]


def test_a_token_stops_with_revocation_expiry_or_its_principal(
    access: AccessService, admin: Principal, clock: SteppingClock
) -> None:
    access.create(admin, "bob", PrincipalKind.PERSON, {Role.OPERATOR})
    one, two, three = (access.issue(admin, "bob", "laptop", timedelta(days=1)) for _ in range(3))
    assert [access.authenticate(each.secret).name for each in (one, two, three)] == ["bob"] * 3

    access.revoke_token(admin, one.token.id)
    with pytest.raises(Unauthenticated, match=f"token {one.token.id} was revoked"):
        access.authenticate(one.secret)

    access.disable(admin, "bob")
    with pytest.raises(Unauthenticated, match="the principal 'bob' is disabled"):
        access.authenticate(two.secret)
    access.enable(admin, "bob")
    assert access.authenticate(two.secret).name == "bob"

    clock.instant += timedelta(days=1)
    with pytest.raises(Unauthenticated, match=f"token {three.token.id} has expired"):
        access.authenticate(three.secret)


@pytest.mark.parametrize("secret", ["", "tcp_", "tcp_" + "A" * 43, "\ud800", "x" * 100_000])
def test_an_unknown_token_is_refused(access: AccessService, admin: Principal, secret: str) -> None:
    with pytest.raises(Unauthenticated, match="the token is not known"):
        access.authenticate(secret)


def test_no_secret_is_stored_or_shown_twice(access: AccessService, admin: Principal, storage: Storage) -> None:
    issued = access.issue(admin, "ada", "laptop", None)
    assert issued.secret not in repr(issued)
    with storage.database.reading() as connection:
        digests = connection.execute(text("SELECT digest FROM tokens ORDER BY id")).scalars().all()
        bodies = " ".join(connection.execute(text("SELECT body FROM audit_entries")).scalars())
    assert digests[-1] == hashlib.sha256(issued.secret.encode()).hexdigest()
    assert issued.secret not in bodies
    assert digests[-1] not in bodies


def test_everyone_lists_and_revokes_their_own_tokens_only(access: AccessService, admin: Principal) -> None:
    bob = access.create(admin, "bob", PrincipalKind.PERSON, {Role.VIEWER})
    theirs, mine = access.issue(admin, "ada", "", None), access.issue(admin, "bob", "mine", None)
    assert access.tokens(bob, "bob") == (mine.token,)
    assert access.revoke_token(bob, mine.token.id).revoked_at is not None
    for attempt in (
        lambda: access.tokens(bob),
        lambda: access.tokens(bob, "ada"),
        lambda: access.revoke_token(bob, theirs.token.id),
        lambda: access.issue(bob, "bob", "", None),
    ):
        with pytest.raises(PermissionDenied):
            attempt()


def test_a_refusal_is_audited_before_it_is_raised(access: AccessService, admin: Principal, storage: Storage) -> None:
    bob = access.create(admin, "bob", PrincipalKind.PERSON, {Role.VIEWER})
    with pytest.raises(PermissionDenied, match=r"bob may not change\.approve"):
        access.require(bob, Permission.CHANGE_APPROVE, subjects={"change": "12"})
    assert recorded(storage)[-1] == (
        "bob",
        "permission.refused",
        {"change": "12", "permission": "change.approve", "principal": "bob"},
    )


def test_what_does_not_exist_is_not_found(access: AccessService, admin: Principal) -> None:
    for attempt in (
        lambda: access.disable(admin, "nobody"),
        lambda: access.grant(admin, "nobody", Role.VIEWER),
        lambda: access.issue(admin, "nobody", "", None),
        lambda: access.revoke_token(admin, 99),
        lambda: access.principal(admin, "nobody"),
    ):
        with pytest.raises(NotFound):
            attempt()


def test_a_token_needs_a_future_and_a_short_label(access: AccessService, admin: Principal) -> None:
    for label, lifetime in (("", timedelta()), ("", timedelta(days=-1)), ("x" * 101, None)):
        with pytest.raises(InvalidInput):
            access.issue(admin, "ada", label, lifetime)
