# Who asks, and whether the route lets them: bearer tokens and the declared permission.
from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from controlplane.domain.access import Permission, Principal
from controlplane.errors import Unauthenticated
from controlplane.services.rooms import Services

_HINT = "send 'Authorization: Bearer TOKEN'; tritonctl token create makes one"


def services_of(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


def authenticate(request: Request) -> Principal:
    """The principal of the request's token, found once per request. Raises Unauthenticated."""
    known = request.scope.get("principal")
    if isinstance(known, Principal):
        return known
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the request carries no token", hint=_HINT)
    services = services_of(request)
    principal = services.access.authenticate(token.strip())
    request.scope["principal"] = principal
    request.scope["checkpoint"] = _latest_checkpoint(services)
    return principal


def requires(permission: Permission) -> Callable[[Request], None]:
    """The dependency of every route. A refusal is audited by the service that decides it."""

    def check(request: Request) -> None:
        services_of(request).access.require(authenticate(request), permission)

    return check


def _latest_checkpoint(services: Services) -> str | None:
    note = services.audit.latest_note()
    return base64.b64encode(note.encode()).decode() if note else None


Caller = Annotated[Principal, Depends(authenticate)]
Rooms = Annotated[Services, Depends(services_of)]
