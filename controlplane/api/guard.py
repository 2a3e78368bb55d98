# What stands before every endpoint: who asks, whether they may, and whether it was asked before.
from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from controlplane.api.idempotency import Handle, once
from controlplane.api.plausible import check_body, check_parameters
from controlplane.api.security import authenticate, services_of
from controlplane.domain.access import Permission


def guarded(permission: Permission | None, *, creates: bool) -> type[APIRoute]:
    """A class of routes that authenticate and authorize before a byte of the body is read, and let nothing pass that no
    field could hold. Without a permission the
    service alone decides, by whose thing it is. A refusal is audited by the service that decides it."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Handle:
            handle = super().get_route_handler()

            async def handle_guarded(request: Request) -> Response:
                await run_in_threadpool(_check, request, permission)
                check_parameters(request)
                if self.body_field is not None:
                    check_body(await request.body())
                return await (once(handle, request) if creates else handle(request))

            return handle_guarded

    return Guarded


def _check(request: Request, permission: Permission | None) -> None:
    principal = authenticate(request)
    if permission is not None:
        services_of(request).access.require(principal, permission, request_id=request.scope["request_id"])
