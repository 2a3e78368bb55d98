# The file of a capsule: an uncompressed tar of `capsule.json` and the blobs beside it; written whole or not at all, read from anybody.
"""What a hostile file could use is not there: nothing is packed, so nothing unpacks to more than it is; entries are plain files with
one of two forms of name; nothing is ever written by a name from inside. The document comes first and says which blobs follow."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from controlplane.domain.canonical import canonical_bytes
from controlplane.domain.capsules import Capsule, capsule_from_json, findings
from controlplane.errors import ArtifactCorrupt, CapsuleInvalid, NotFound
from controlplane.services.ports import ArtifactStore

DOCUMENT = "capsule.json"
MOST_DOCUMENT_BYTES = 128 << 20
MOST_BLOB_BYTES = (8 << 30) - 1
"""As many as the format has digits for."""
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_BLOCK = 512
_CHUNK = 1 << 20


def write_capsule(capsule: Capsule, store: ArtifactStore, file: IO[bytes]) -> None:
    """The same capsule gives the same bytes. Blobs are verified as they pass: raises ArtifactCorrupt and NotFound, and
    CapsuleInvalid for one that is too large."""
    document = canonical_bytes(capsule.to_json())
    if len(document) > MOST_DOCUMENT_BYTES:
        raise CapsuleInvalid(f"the capsule's document has {len(document)} bytes, and may have {MOST_DOCUMENT_BYTES}")
    _write(file, DOCUMENT, len(document), [document])
    for sha256, size in sorted(capsule.blobs.items()):
        if size > MOST_BLOB_BYTES:
            raise CapsuleInvalid(
                f"{sha256} has {size} bytes, and a capsule's blob may have {MOST_BLOB_BYTES}",
                hint="leave the artifacts out: a replay takes them by digest from its own store",
            )
        _write(file, f"blobs/{sha256.removeprefix('sha256:')}", size, store.read(sha256))
    file.write(bytes(2 * _BLOCK))


class CapsuleFile:
    """An open capsule whose document was read; `open_capsule` makes it."""

    def __init__(self, file: IO[bytes], capsule: Capsule, places: Mapping[str, int]) -> None:
        self._file = file
        self._places = places
        self.capsule = capsule

    def blob(self, sha256: str) -> Iterator[bytes]:
        """Chunks, verified as they pass: raises CapsuleInvalid after the last of altered bytes."""
        self._file.seek(self._places[sha256])
        left, seen = self.capsule.blobs[sha256], hashlib.sha256()
        while left:
            chunk = self._file.read(min(left, _CHUNK))
            if not chunk:
                raise CapsuleInvalid(f"the capsule ends in the middle of {sha256}", hint="get it again")
            left -= len(chunk)
            seen.update(chunk)
            yield chunk
        if f"sha256:{seen.hexdigest()}" != sha256:
            raise CapsuleInvalid(f"the bytes of {sha256} are sha256:{seen.hexdigest()}", hint="get the capsule again")

    def verify(self) -> tuple[str, ...]:
        """In words, whatever does not check out of all the digests inside; empty when all do."""
        found = list(findings(self.capsule))
        for sha256 in self._places:
            try:
                for _ in self.blob(sha256):
                    pass
            except CapsuleInvalid as error:
                found.append(error.message)
        return tuple(found)


@contextmanager
def open_capsule(path: Path) -> Iterator[CapsuleFile]:
    """Raises CapsuleInvalid for whatever is not a capsule, is not whole, or has more in it than its document says."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise CapsuleInvalid(f"{path} cannot be read: {error.strerror}") from None
    with file:
        name, size = _head(file)
        if name != DOCUMENT:
            raise CapsuleInvalid(f"{path} is no capsule of a sweep", hint="tritonctl sweep export SWEEP --out FILE")
        capsule = read_document(_taken(file, size, MOST_DOCUMENT_BYTES))
        places: dict[str, int] = {}
        _skip(file, -size % _BLOCK)
        while True:
            name, size = _head(file)
            if not name:
                break
            match = _BLOB.fullmatch(name)
            sha256 = f"sha256:{match[1]}" if match else ""
            if capsule.blobs.get(sha256) != size or sha256 in places:
                raise CapsuleInvalid(
                    f"the capsule has {name[:80]!r} of {size} bytes in it, of which its document says nothing"
                )
            places[sha256] = file.tell()
            _skip(file, size + -size % _BLOCK)
        missing = sorted(capsule.blobs.keys() - places.keys())
        if missing:
            raise CapsuleInvalid(f"the capsule says that {missing[0]} is in it, and it is not", hint="get it again")
        yield CapsuleFile(file, capsule, places)


def read_capsule(artifacts: ArtifactStore, document: str) -> Capsule:
    """Whose document is a blob. Raises NotFound, and CapsuleInvalid."""
    size = artifacts.touch(document)
    if size is None:
        raise NotFound(f"the artifact store holds no blob {document[:80]}", hint="tritonctl sweep replay FILE")
    if size > MOST_DOCUMENT_BYTES:
        raise CapsuleInvalid(f"the capsule's document has {size} bytes, and may have {MOST_DOCUMENT_BYTES}")
    return read_document(b"".join(artifacts.read(document)))


def read_document(data: bytes) -> Capsule:
    """`capsule.json`, whoever wrote it. Raises CapsuleInvalid."""
    if len(data) > MOST_DOCUMENT_BYTES:
        raise CapsuleInvalid(f"the capsule's document has {len(data)} bytes, and may have {MOST_DOCUMENT_BYTES}")
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CapsuleInvalid(f"the capsule's document is no JSON: {str(error)[:200]}", hint="get it again") from None
    capsule = capsule_from_json(tree)
    if canonical_bytes(capsule.to_json()) != data:
        raise CapsuleInvalid("the capsule's document is not written in its one form", hint="get it again")
    return capsule


def _write(file: IO[bytes], name: str, size: int, chunks: Iterable[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    written = 0
    for chunk in chunks:
        file.write(chunk)
        written += len(chunk)
    if written != size:
        raise ArtifactCorrupt(f"{name} has {written} bytes, and should have {size}")
    file.write(bytes(-size % _BLOCK))


def _head(file: IO[bytes]) -> tuple[str, int]:
    """Name and size of the entry that follows, both empty at the end. Only what `write_capsule` writes is taken."""
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise CapsuleInvalid("the file is no capsule, or was cut off", hint="get it again")
    if not block.strip(b"\0"):
        while rest := file.read(_CHUNK):
            if rest.strip(b"\0"):
                raise CapsuleInvalid("something follows after the end of the capsule", hint="get it again")
        return "", 0
    try:
        checksum = int(block[148:156].strip(b"\0 "), 8)
        size = int(block[124:136].strip(b"\0 "), 8)
        name = block[:100].rstrip(b"\0").decode("ascii")
    except ValueError:
        checksum, size, name = -1, 0, ""
    plain = block[156:157] == b"0" and block[257:263] == b"ustar\0" and not block[345:500].strip(b"\0")
    if checksum != sum(block[:148]) + 8 * 32 + sum(block[156:]) or not plain or size < 0:
        raise CapsuleInvalid("the file is no capsule: it is not a tar of plain files", hint="get it again")
    return name, size


def _taken(file: IO[bytes], size: int, most: int) -> bytes:
    if size > most:
        raise CapsuleInvalid(f"the capsule's document has {size} bytes, and may have {most}")
    data = file.read(size)
    if len(data) < size:
        raise CapsuleInvalid("the file was cut off", hint="get it again")
    return data


def _skip(file: IO[bytes], count: int) -> None:
    """Forward, and not beyond the end: an entry that says more than there is ends here."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    if here + count > end:
        raise CapsuleInvalid("the file was cut off", hint="get it again")
    file.seek(here + count)
