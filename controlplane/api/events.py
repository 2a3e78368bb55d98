# Server-sent events of something that moves: as it is, and again whenever it moved, until it rests or may no longer be seen.
from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any, TypeVar

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from controlplane.api.security import token_of
from controlplane.domain.access import Principal
from controlplane.errors import AccessDenied
from controlplane.services.rooms import Services

_POLL_SECONDS = 0.25
_HEARTBEAT_SECONDS = 5.0
_RECHECK_SECONDS = 3.0
"""How long who lost their token or role goes on seeing."""
_LONGEST_SECONDS = 3600.0

Seen = TypeVar("Seen")


def stream(
    name: str,
    caller: Principal,
    rooms: Services,
    request: Request,
    *,
    look: Callable[[Principal], Seen],
    told: Callable[[Seen], Any],
    moves: Callable[[Seen], bool],
) -> StreamingResponse:
    """Events called `name`, with `told` of what `look` sees, a dataclass, as long as it `moves`. What `look` raises at first is the
    answer; it is called in a thread."""
    first, token = look(caller), token_of(request)

    async def events() -> AsyncIterator[str]:
        seen, whom = first, caller
        sent, silent, checked = "", 0.0, time.monotonic()
        for _ in range(int(_LONGEST_SECONDS / _POLL_SECONDS)):
            data = json.dumps(asdict(told(seen)))
            if data != sent:
                yield f"event: {name}\ndata: {data}\n\n"
                sent, silent = data, 0.0
            elif silent >= _HEARTBEAT_SECONDS:
                yield ": still here\n\n"
                silent = 0.0
            if not moves(seen):
                return
            await anyio.sleep(_POLL_SECONDS)
            silent += _POLL_SECONDS
            try:
                if time.monotonic() - checked >= _RECHECK_SECONDS:
                    whom, checked = await run_in_threadpool(rooms.access.authenticate, token), time.monotonic()
                seen = await run_in_threadpool(look, whom)
            except AccessDenied:
                return

    return StreamingResponse(events(), media_type="text/event-stream")
