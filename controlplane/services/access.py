# Who is who: principals, roles, tokens, and the one place where a permission is required.
from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.domain.access import SYSTEM, Permission, Principal, PrincipalKind, Role, Token, why_not
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.names import check_name
from controlplane.domain.times import format_instant
from controlplane.errors import Conflict, InvalidInput, PermissionDenied, Unauthenticated
from controlplane.services.ports import Clock
from controlplane.storage.unit_of_work import Storage, UnitOfWork

TOKEN_PREFIX = "tcp_"  # noqa: S105 - so that leaked tokens can be searched for
_LOG_IN = "ask an admin for a token: tritonctl token create NAME"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`secret` is what its holder sends. It exists here and nowhere else."""

    token: Token
    secret: str = field(repr=False)


class AccessService:
    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    def authenticate(self, secret: str) -> Principal:
        """Whose token this is. Raises Unauthenticated; that is not audited, because nobody is known to have asked."""
        with self._storage.read() as unit:
            found = unit.access.by_token(_digest(secret))
        if found is None:
            raise Unauthenticated("the token is not known", hint=_LOG_IN)
        principal, token = found
        if token.revoked_at is not None:
            raise Unauthenticated(f"token {token.id} was revoked", hint=_LOG_IN)
        if not token.valid(self._clock.now()):
            raise Unauthenticated(f"token {token.id} has expired", hint=_LOG_IN)
        if not principal.active:
            raise Unauthenticated(f"the principal {principal.name!r} is disabled", hint="ask an admin")
        return principal

    def require(
        self,
        principal: Principal,
        permission: Permission,
        *,
        subjects: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Raise PermissionDenied unless `principal` may; the refusal is audited first."""
        if not principal.may(permission):
            message, hint = why_not(principal, permission)
            self._refuse(
                principal,
                message,
                hint,
                subjects={**(subjects or {}), "permission": permission.value},
                details={"roles": [role.value for role in sorted(principal.roles)]},
                request_id=request_id,
            )

    def _refuse(
        self,
        principal: Principal,
        message: str,
        hint: str,
        *,
        subjects: Mapping[str, str],
        details: Mapping[str, Json],
        request_id: str | None,
    ) -> None:
        """Audit the refusal in a transaction of its own, then raise PermissionDenied. Call it outside transactions."""
        fact = AuditFact(
            principal.actor,
            Action.PERMISSION_REFUSED,
            {**subjects, "principal": principal.name},
            {**details, "reason": message},
            request_id,
        )
        with self._storage.write() as unit:
            unit.audit.append(fact)
        raise PermissionDenied(message, hint=hint)

    def bootstrap(self, name: str, lifetime: timedelta | None) -> tuple[Principal, IssuedToken]:
        """The first admin, made by whoever has the database. Raises Conflict when there is an active one."""
        _check_new(name, PrincipalKind.PERSON)
        now = self._clock.now()
        with self._storage.write() as unit:
            unit.access.lock()
            admins = unit.access.admins()
            if admins:
                raise Conflict(
                    f"{admins[0].name} is an admin already", hint="let an admin make more: tritonctl principal create"
                )
            principal = unit.access.add(name, PrincipalKind.PERSON, {Role.ADMIN}, now)
            issued = self._issue(unit, name, "bootstrap", lifetime)
            unit.audit.append(
                AuditFact(
                    SYSTEM,
                    Action.INSTALLATION_BOOTSTRAPPED,
                    {"principal": name, "token": str(issued.token.id)},
                    {"expires_at": _instant(issued.token)},
                )
            )
        return principal, issued

    def create(self, principal: Principal, name: str, kind: PrincipalKind, roles: Collection[Role] = ()) -> Principal:
        """Raises AlreadyExists, NameInvalid."""
        self.require(principal, Permission.ACCESS_MANAGE)
        _check_new(name, kind)
        with self._storage.write() as unit:
            unit.access.lock()
            created = unit.access.add(name, kind, frozenset(roles), self._clock.now())
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.PRINCIPAL_CREATED,
                    {"principal": name},
                    {"kind": kind.value, "roles": [role.value for role in sorted(roles)]},
                )
            )
        return created

    def disable(self, principal: Principal, name: str) -> Principal:
        """Its tokens stop working with the next request. Raises NotFound, and Conflict for the last admin."""
        return self._set_disabled(principal, name, disabled=True)

    def enable(self, principal: Principal, name: str) -> Principal:
        return self._set_disabled(principal, name, disabled=False)

    def grant(self, principal: Principal, name: str, role: Role) -> Principal:
        """Raises NotFound."""
        self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.write() as unit:
            unit.access.lock()
            held = role in unit.access.get(name).roles
            changed = unit.access.grant(name, role)
            if not held:
                unit.audit.append(
                    AuditFact(principal.actor, Action.ROLE_GRANTED, {"principal": name, "role": role.value})
                )
        return changed

    def revoke(self, principal: Principal, name: str, role: Role) -> Principal:
        """Raises NotFound, and Conflict for the last admin."""
        self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.write() as unit:
            unit.access.lock()
            held = role in unit.access.get(name).roles
            changed = unit.access.revoke(name, role)
            _check_an_admin_is_left(unit, name)
            if held:
                unit.audit.append(
                    AuditFact(principal.actor, Action.ROLE_REVOKED, {"principal": name, "role": role.value})
                )
        return changed

    def principals(self, principal: Principal) -> tuple[Principal, ...]:
        self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.read() as unit:
            return unit.access.principals()

    def principal(self, principal: Principal, name: str) -> Principal:
        """Everyone may look at themselves. Raises NotFound."""
        if name != principal.name:
            self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.read() as unit:
            return unit.access.get(name)

    def issue(self, principal: Principal, owner: str, label: str, lifetime: timedelta | None) -> IssuedToken:
        """A new token for `owner`; `lifetime` None never expires. Raises NotFound."""
        self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.write() as unit:
            issued = self._issue(unit, owner, label, lifetime)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.TOKEN_ISSUED,
                    {"principal": owner, "token": str(issued.token.id)},
                    {"label": label, "expires_at": _instant(issued.token)},
                )
            )
        return issued

    def tokens(self, principal: Principal, owner: str | None = None) -> tuple[Token, ...]:
        """Of one principal or of all, the newest first; everyone may list their own."""
        if owner != principal.name:
            self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.read() as unit:
            return unit.access.tokens(owner)

    def revoke_token(self, principal: Principal, number: int) -> Token:
        """Everyone may revoke their own. Raises NotFound."""
        with self._storage.read() as unit:
            owner = unit.access.token(number).principal
        if owner != principal.name:
            self.require(principal, Permission.ACCESS_MANAGE, subjects={"token": str(number)})
        with self._storage.write() as unit:
            before = unit.access.token(number)
            revoked = unit.access.revoke_token(number, self._clock.now())
            if before.revoked_at is None:
                subjects = {"principal": owner, "token": str(number)}
                unit.audit.append(AuditFact(principal.actor, Action.TOKEN_REVOKED, subjects))
        return revoked

    def _set_disabled(self, principal: Principal, name: str, *, disabled: bool) -> Principal:
        self.require(principal, Permission.ACCESS_MANAGE)
        with self._storage.write() as unit:
            unit.access.lock()
            before = unit.access.get(name)
            if before.active != disabled:
                return before
            changed = unit.access.set_disabled(name, self._clock.now() if disabled else None)
            _check_an_admin_is_left(unit, name)
            action = Action.PRINCIPAL_DISABLED if disabled else Action.PRINCIPAL_ENABLED
            unit.audit.append(AuditFact(principal.actor, action, {"principal": name}))
        return changed

    def _issue(self, unit: UnitOfWork, owner: str, label: str, lifetime: timedelta | None) -> IssuedToken:
        if lifetime is not None and lifetime <= timedelta():
            raise InvalidInput(f"a token cannot live {lifetime}", hint="give at least a day")
        if len(label) > 100:
            raise InvalidInput(f"the label has {len(label)} characters", hint="use at most 100")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        expires_at = None if lifetime is None else now + lifetime
        return IssuedToken(unit.access.add_token(owner, label, _digest(secret), now, expires_at), secret)


def _check_new(name: str, kind: PrincipalKind) -> None:
    check_name(name, "principal")
    if kind is PrincipalKind.SYSTEM or name == SYSTEM.name:
        raise InvalidInput(f"{SYSTEM.name!r} is the control plane itself", hint="choose another name and kind")


def _check_an_admin_is_left(unit: UnitOfWork, name: str) -> None:
    if not unit.access.admins():
        raise Conflict(
            f"{name} is the last active admin", hint="make another first: tritonctl principal grant NAME admin"
        )


def _digest(secret: str) -> str:
    """Plain SHA-256 is enough for 256 random bits, and costs the same for every guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _instant(token: Token) -> str | None:
    return None if token.expires_at is None else format_instant(token.expires_at)
