# Who asks: bearer tokens.
from __future__ import annotations

import base64
from typing import Annotated

from fastapi import Depends, Request

from controlplane.domain.access import Principal
from controlplane.errors import Unauthenticated
from controlplane.services.rooms import Services

_HINT = "send 'Authorization: Bearer TOKEN'; tritonctl token create makes one"


def services_of(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


def token_of(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the request carries no token", hint=_HINT)
    return token.strip()


def authenticate(request: Request) -> Principal:
    """The principal of the request's token, found once per request. Raises Unauthenticated."""
    known = request.scope.get("principal")
    if isinstance(known, Principal):
        return known
    services = services_of(request)
    principal = services.access.authenticate(token_of(request))
    request.scope["principal"] = principal
    request.scope["checkpoint"] = _latest_checkpoint(services)
    return principal


def _latest_checkpoint(services: Services) -> str | None:
    note = services.audit.latest_note()
    return base64.b64encode(note.encode()).decode() if note else None


Caller = Annotated[Principal, Depends(authenticate)]
Rooms = Annotated[Services, Depends(services_of)]
