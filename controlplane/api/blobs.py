# Uploads of content-addressed bytes.
from __future__ import annotations

import re
from collections.abc import Iterator

from anyio import from_thread
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from controlplane.api.security import Caller, Rooms
from controlplane.errors import InvalidInput
from controlplane.services.blobs import Piece, Upload

OFFSET_HEADER = "Upload-Offset"
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def find_blob(sha256: str, caller: Caller, rooms: Rooms) -> Response:
    """200 when the bytes are there; 404, with how many of them in Upload-Offset, when they are not."""
    return _answer(rooms.blobs.status(caller, sha256), incomplete=404)


async def upload_blob(sha256: str, request: Request, caller: Caller, rooms: Rooms) -> Response:
    """The whole bytes, or a piece of them by Content-Range. 202 asks for the piece at Upload-Offset."""
    piece = _piece(request.headers.get("Content-Range"))
    stream = request.stream()

    async def following() -> bytes | None:
        try:
            return await anext(stream, None)
        except ClientDisconnect:
            raise InvalidInput("the sender went away", hint="go on from the offset") from None

    def chunks() -> Iterator[bytes]:
        while (chunk := from_thread.run(following)) is not None:
            yield chunk

    return _answer(await run_in_threadpool(rooms.blobs.put, caller, sha256, chunks(), piece), incomplete=202)


def _answer(upload: Upload, *, incomplete: int) -> Response:
    if upload.complete:
        return Response(status_code=200)
    return Response(status_code=incomplete, headers={OFFSET_HEADER: str(upload.offset)})


def _piece(header: str | None) -> Piece | None:
    if header is None:
        return None
    found = _RANGE.fullmatch(header)
    if found is None:
        raise InvalidInput(f"the Content-Range {header!r} cannot be read", hint="write bytes FIRST-LAST/TOTAL")
    first, last, total = (int(text) for text in found.groups())
    return Piece(first, last + 1, total)
