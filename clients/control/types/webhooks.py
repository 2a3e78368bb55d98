# Webhooks on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import Request


@dataclass(frozen=True, slots=True)
class Webhook:
    """`events` empty is all of them, `environment` None every one. Everything before audit entry `cursor` was told;
    `failures` counts attempts since the last success, `status` (HTTP) or `error` is the last attempt's."""

    id: int
    url: str
    events: tuple[str, ...]
    environment: str | None
    created_by: str
    created_at: str
    disabled_at: str | None
    cursor: int
    failures: int
    attempted_at: str | None
    status: int | None
    error: str | None
    next_attempt_at: str | None


@dataclass(frozen=True, slots=True)
class NewWebhook(Request):
    url: str
    events: tuple[str, ...] = ()
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedWebhook:
    """`secret` is shown this once; it is None in the repeated answer to a repeated request."""

    webhook: Webhook
    secret: str | None


@dataclass(frozen=True, slots=True)
class Ping:
    """The receiver's HTTP status, or why there is none."""

    status: int | None
    error: str | None
    delivered: bool
