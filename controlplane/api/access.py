# Principals, roles and tokens.
from __future__ import annotations

from datetime import timedelta

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.access import PrincipalKind, Role
from controlplane.errors import InvalidInput

_LONGEST_DAYS = 3650


def whoami(caller: Caller) -> types.Principal:
    return wire.of(types.Principal, caller)


def create_principal(body: types.NewPrincipal, caller: Caller, rooms: Rooms) -> types.Principal:
    kind = wire.member(PrincipalKind, body.kind, "kind")
    roles = {wire.member(Role, role, "role") for role in body.roles}
    return wire.of(types.Principal, rooms.access.create(caller, body.name, kind, roles))


def list_principals(caller: Caller, rooms: Rooms) -> types.Page[types.Principal]:
    return types.Page(tuple(wire.of(types.Principal, item) for item in rooms.access.principals(caller)))


def show_principal(name: str, caller: Caller, rooms: Rooms) -> types.Principal:
    """Everyone may look at themselves."""
    return wire.of(types.Principal, rooms.access.principal(caller, name))


def disable_principal(name: str, caller: Caller, rooms: Rooms) -> types.Principal:
    """Its tokens stop working with the next request."""
    return wire.of(types.Principal, rooms.access.disable(caller, name))


def enable_principal(name: str, caller: Caller, rooms: Rooms) -> types.Principal:
    return wire.of(types.Principal, rooms.access.enable(caller, name))


def grant_role(name: str, role: Role, caller: Caller, rooms: Rooms) -> types.Principal:
    return wire.of(types.Principal, rooms.access.grant(caller, name, role))


def revoke_role(name: str, role: Role, caller: Caller, rooms: Rooms) -> types.Principal:
    return wire.of(types.Principal, rooms.access.revoke(caller, name, role))


def create_token(body: types.NewToken, caller: Caller, rooms: Rooms) -> types.IssuedToken:
    """The secret is shown this once."""
    if body.days is not None and not 1 <= body.days <= _LONGEST_DAYS:
        raise InvalidInput(f"a token cannot live {body.days} days", hint=f"use 1 to {_LONGEST_DAYS}, or null for ever")
    lifetime = None if body.days is None else timedelta(days=body.days)
    issued = rooms.access.issue(caller, body.principal, body.label, lifetime)
    return types.IssuedToken(wire.of(types.Token, issued.token), issued.secret)


def list_tokens(caller: Caller, rooms: Rooms, principal: str | None = None) -> types.Page[types.Token]:
    """Everyone may list their own; all of them, without `principal`, takes the permission."""
    return types.Page(tuple(wire.of(types.Token, token) for token in rooms.access.tokens(caller, principal)))


def revoke_token(number: int, caller: Caller, rooms: Rooms) -> types.Token:
    """Everyone may revoke their own."""
    return wire.of(types.Token, rooms.access.revoke_token(caller, number))
