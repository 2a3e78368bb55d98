# Uploads: bytes on their way into the artifact store, resumable in pieces.
"""A whole blob streams straight into the store. A blob in pieces is gathered in a file of this host and goes into the store
with its last piece; where the next piece comes to another host, the answer says so by its offset, and the sender starts
again from there."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controlplane.domain.access import Permission, Principal
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.errors import ArtifactCorrupt, ArtifactInvalid, Conflict, InvalidInput, NotFound, TooLarge
from controlplane.services.access import AccessService
from controlplane.services.ports import ArtifactStore

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_FORGOTTEN_SECONDS = 24 * 3600.0
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Upload:
    """`offset` is how many bytes are here: where the next piece begins, unless the blob is `complete`."""

    complete: bool
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes from `start` up to, not including, `end`, of `total`."""

    start: int
    end: int
    total: int


class BlobService:
    def __init__(self, store: ArtifactStore, access: AccessService, parts: Path, *, max_bytes: int) -> None:
        self._store = store
        self._access = access
        self._parts = parts
        self._max_bytes = max_bytes

    def status(self, principal: Principal, sha256: str) -> Upload:
        self._access.require(principal, Permission.MODEL_REGISTER)
        if (
            self._store.touch(_checked(sha256)) is not None
        ):  # the sender leaves it out: it stays for as long as a new one
            return Upload(complete=True, offset=0)
        part = self._part(sha256)
        return Upload(complete=False, offset=part.stat().st_size if part.exists() else 0)

    def put(self, principal: Principal, sha256: str, chunks: Iterable[bytes], piece: Piece | None) -> Upload:
        """Raises ArtifactInvalid when the bytes are not those of the name (nothing is kept then), and Conflict, with the
        offset to go on from in its details, for a piece that does not follow what is here."""
        self._access.require(principal, Permission.MODEL_REGISTER)
        _checked(sha256)
        if piece is None:
            return self._finish(sha256, self._limited(chunks))
        if not 0 <= piece.start < piece.end <= piece.total:
            raise InvalidInput(f"the piece {piece.start}-{piece.end - 1}/{piece.total} is not possible")
        if piece.total > self._max_bytes:
            raise self._too_large()
        return self._gather(sha256, chunks, piece)

    def manifest(self, files: Iterable[FileEntry]) -> Manifest:
        """Of files whose bytes are here, and stay for a day. Raises NotFound for bytes that were never uploaded, and
        ArtifactInvalid for a size that is not theirs."""
        found = Manifest(tuple(sorted(files, key=lambda file: file.path)))
        for file in found.files:
            size = self._store.touch(file.sha256)
            if size is None:
                raise NotFound(
                    f"the artifact store holds no blob {file.sha256} for {file.path!r}", hint="upload it again"
                )
            if size != file.size:
                raise ArtifactInvalid(
                    f"{file.path} has {size} bytes, the manifest says {file.size}", hint="write the size of the file"
                )
        return found

    def _gather(self, sha256: str, chunks: Iterable[bytes], piece: Piece) -> Upload:
        self._parts.mkdir(parents=True, exist_ok=True)
        self._forget_old()
        path = self._part(sha256)
        with path.open("ab") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            here = os.fstat(part.fileno()).st_size
            if here != piece.start:
                raise Conflict(
                    f"{here} bytes of {sha256} are here, the piece starts at {piece.start}",
                    hint="go on from the offset",
                    details={"offset": here},
                )
            _append(part, chunks, piece)
            if piece.end < piece.total:
                return Upload(complete=False, offset=piece.end)
            path.unlink()
            with open(f"/proc/self/fd/{part.fileno()}", "rb") as whole:  # noqa: PTH123  # the file has no name any more
                return self._finish(sha256, iter(lambda: whole.read(_CHUNK_BYTES), b""))

    def _finish(self, sha256: str, chunks: Iterable[bytes]) -> Upload:
        try:
            _, size = self._store.add_stream(chunks, sha256)
        except ArtifactCorrupt as error:
            raise ArtifactInvalid(f"the bytes that came are not {sha256}", hint="send them again") from error
        return Upload(complete=True, offset=size)

    def _limited(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        seen = 0
        for chunk in chunks:
            seen += len(chunk)
            if seen > self._max_bytes:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"an artifact's file may have {self._max_bytes} bytes", hint="the setting is artifacts.max_bytes"
        )

    def _part(self, sha256: str) -> Path:
        return self._parts / f"{sha256.removeprefix('sha256:')}.part"

    def _forget_old(self) -> None:
        """Uploads that nobody went on with for a day."""
        for part in self._parts.glob("*.part"):
            if part.stat().st_mtime < time.time() - _FORGOTTEN_SECONDS:
                part.unlink(missing_ok=True)


def _append(part: BinaryIO, chunks: Iterable[bytes], piece: Piece) -> None:
    """What came before a broken connection stays: the sender goes on after it."""
    left = piece.end - piece.start
    for chunk in chunks:
        if len(chunk) > left:
            part.truncate(piece.start)
            raise InvalidInput("the piece is longer than it said")
        part.write(chunk)
        left -= len(chunk)
    part.flush()
    if left:
        raise InvalidInput(f"the piece is {left} bytes shorter than it said", hint="go on from the offset")


def _checked(sha256: str) -> str:
    if _SHA256.fullmatch(sha256) is None:
        raise InvalidInput(f"{sha256[:80]!r} is not a digest", hint="write sha256: and 64 hexadecimal digits")
    return sha256
