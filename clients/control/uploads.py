# Files on their way into the artifact store: content-addressed, resumable.
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from clients.control.errors import ApiError
from clients.control.transport import Connection
from clients.control.types import File

PIECE_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_RESTARTS = 3

Progress = Callable[[int], None]
"""Called with the number of bytes that are done since the call before."""


class UploadsRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload(self, source: Path, path: str, *, progress: Progress = lambda _: None) -> File:
        """Hash the file, and send what the API does not hold yet; `path` is its name in the artifact. `progress` gets the
        file's size in all, and nothing is sent of bytes that are there already."""
        sha256 = _hash(source)
        size = source.stat().st_size
        answer = self._connection.request("HEAD", f"/v1/blobs/{sha256}", accept=frozenset({401, 403, 404}))
        if answer.status_code in (401, 403):
            # The answer to a HEAD has no body to say why: sending nothing is refused in words.
            self._connection.request("PUT", f"/v1/blobs/{sha256}", content=b"")
        if answer.is_success:
            progress(size)
            return File(path, size, sha256)
        if size <= PIECE_BYTES:
            self._connection.request("PUT", f"/v1/blobs/{sha256}", content=source.read_bytes())
            progress(size)
        else:
            self._send(source, sha256, size, int(answer.headers.get("Upload-Offset", "0")), progress)
        return File(path, size, sha256)

    def _send(self, source: Path, sha256: str, size: int, start: int, progress: Progress) -> None:
        restarts = 0
        progress(start)
        with source.open("rb") as file:
            while start < size:
                file.seek(start)
                piece = file.read(PIECE_BYTES)
                headers = {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/{size}"}
                try:
                    self._connection.request("PUT", f"/v1/blobs/{sha256}", content=piece, headers=headers)
                except ApiError as error:
                    offset = error.details.get("offset")
                    if not isinstance(offset, int) or restarts == _RESTARTS:
                        raise
                    restarts += 1
                    progress(offset - start)
                    start = offset
                    continue
                progress(len(piece))
                start += len(piece)


def _hash(source: Path) -> str:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return f"sha256:{digest.hexdigest()}"
