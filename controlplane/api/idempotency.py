# Idempotency-Key: a repeated POST is answered as the first one was, without doing its work again.
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from controlplane.api.security import authenticate, services_of
from controlplane.domain.access import Principal
from controlplane.errors import InvalidInput
from controlplane.services.idempotency import IdempotencyService, KeptAnswer

Handle = Callable[[Request], Coroutine[Any, Any, Response]]
HEADER = "Idempotency-Key"
_LONGEST = 255
_SHOWN_ONCE = "secret"


async def once(handle: Handle, request: Request) -> Response:
    """The answer of `handle`, or the kept one of the same request before. Only answers that succeeded are kept: what was
    refused has done nothing and may be tried again."""
    key = request.headers.get(HEADER)
    if key is None:
        return await handle(request)
    if not 0 < len(key) <= _LONGEST:
        raise InvalidInput(f"the {HEADER} has {len(key)} characters", hint=f"use 1 to {_LONGEST}")
    principal = authenticate(request)
    asked = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + await request.body())
    service = services_of(request).idempotency
    kept = await run_in_threadpool(service.begin, principal, key, f"sha256:{asked.hexdigest()}")
    if kept is None:
        return await _do(service, principal, key, handle, request)
    return Response(kept.body, kept.status, headers={"Idempotency-Replayed": "true"}, media_type="application/json")


async def _do(
    service: IdempotencyService,
    principal: Principal,
    key: str,
    handle: Handle,
    request: Request,
) -> Response:
    try:
        response = await handle(request)
    except BaseException:
        await run_in_threadpool(service.abandon, principal, key)
        raise
    answer = KeptAnswer(response.status_code, _without_secret(bytes(response.body)))
    await run_in_threadpool(service.finish, principal, key, answer)
    return response


def _without_secret(body: bytes) -> str:
    """A token's secret is shown once and stored nowhere, so a repeated request does not get it."""
    tree = json.loads(body)
    if isinstance(tree, dict) and _SHOWN_ONCE in tree:
        tree[_SHOWN_ONCE] = None
        return json.dumps(tree)
    return body.decode()
