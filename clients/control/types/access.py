# Principals and tokens on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import Request


@dataclass(frozen=True, slots=True)
class Principal:
    name: str
    kind: str
    roles: tuple[str, ...]
    created_at: str
    disabled_at: str | None


@dataclass(frozen=True, slots=True)
class NewPrincipal(Request):
    """`kind` is `person` or `service_account`."""

    name: str
    kind: str = "person"
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    principal: str
    label: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


@dataclass(frozen=True, slots=True)
class NewToken(Request):
    principal: str
    label: str = ""
    days: int | None = 90
    """None never expires."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`secret` is shown this once; it is None in the repeated answer to a repeated request."""

    token: Token
    secret: str | None
