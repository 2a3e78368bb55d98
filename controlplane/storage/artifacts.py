# The content-addressed artifact store, on any object store that obstore can reach.
"""A blob lies at `blobs/sha256/ab/<64 hex>` and is named by the SHA-256 of its bytes. It is streamed to a staging key while
it is hashed, and renamed to its name when it is whole, so a reader never meets half a blob and a kill leaves only staged
bytes, which `sweep` removes. On a local disk the bytes are on the medium before they get their name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from controlplane.domain.artifacts import FileEntry, Manifest, check_digest
from controlplane.domain.names import check_name
from controlplane.errors import ArtifactCorrupt, ArtifactInvalid, NotFound

CHUNK_BYTES = 4 * 1024 * 1024
MAX_BLOB_BYTES = 256 * 1024**3
MAX_FILES = 10_000
_STAGING = "staging"
_TRASH = "trash"
_BLOBS = "blobs/sha256"
# Given digests, those that some version needs.
Needed = Callable[[Collection[str]], Collection[str]]


class ObjectArtifactStore:
    """The `ArtifactStore` of services/ports.py. Safe for any number of processes and threads at once."""

    def __init__(self, store: ObjectStore, *, max_blob_bytes: int = MAX_BLOB_BYTES) -> None:
        self._store = store
        self._root = Path(str(store.prefix)) if isinstance(store, LocalStore) and store.prefix is not None else None
        self._max_blob_bytes = max_blob_bytes

    @classmethod
    def local(cls, directory: Path, *, max_blob_bytes: int = MAX_BLOB_BYTES) -> ObjectArtifactStore:
        return cls(LocalStore(directory, mkdir=True), max_blob_bytes=max_blob_bytes)

    def add_file(self, source: Path, path: str) -> FileEntry:
        descriptor = _open_regular(source)
        try:
            sha256, size = self._add(lambda: os.read(descriptor, CHUNK_BYTES), None)
        finally:
            os.close(descriptor)
        return FileEntry(path, size, sha256)

    def add_directory(self, directory: Path) -> Manifest:
        """Every file below `directory`. Raises ArtifactInvalid for symbolic links and anything else that is not a file,
        and NameInvalid for a name that Triton may not see, both before a byte is stored."""
        return Manifest(tuple(self.add_file(directory / path, path) for path in list_files(directory)))

    def add_stream(self, chunks: Iterable[bytes], expected_sha256: str | None = None) -> tuple[str, int]:
        if expected_sha256 is not None:
            _hex_of(expected_sha256)
        source = iter(chunks)
        # An empty chunk in the middle is no end: only the iterator's own end is.
        return self._add(lambda: next((chunk for chunk in source if chunk), b""), expected_sha256)

    def has(self, sha256: str) -> bool:
        try:
            obstore.head(self._store, _key(sha256))
        except FileNotFoundError:
            return False
        return True

    def touch(self, sha256: str) -> int | None:
        key = _key(sha256)
        try:
            if self._root is not None:
                os.utime(self._root / key)
                # Looked at under its name after its time was renewed: who sets it aside from now on sees the new time.
                return (self._root / key).stat().st_size
            staged = f"{_STAGING}/{uuid.uuid4().hex}"
            obstore.copy(self._store, key, staged)  # an object cannot be copied onto itself everywhere
            obstore.rename(self._store, staged, key)
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError:
            return None

    def read(self, sha256: str) -> Iterator[bytes]:
        key = _key(sha256)
        try:
            size = obstore.head(self._store, key)["size"]
            digest = hashlib.sha256()
            for start in range(0, size, CHUNK_BYTES):
                length = min(CHUNK_BYTES, size - start)
                chunk = obstore.get_range(self._store, key, start=start, length=length).to_bytes()
                digest.update(chunk)
                yield chunk
        except FileNotFoundError:
            raise NotFound(f"the artifact store holds no blob {sha256}", hint="upload it again") from None
        if digest.hexdigest() != _hex_of(sha256):
            raise ArtifactCorrupt(
                f"the blob {sha256} has other bytes now: sha256:{digest.hexdigest()}",
                hint="restore the artifact store from a backup, or register the same file again: that heals the blob",
            )

    def fetch(self, manifest: Manifest, directory: Path) -> None:
        folders = {directory}
        for entry in manifest.files:
            target = directory / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.update(parent for parent in target.parents if parent.is_relative_to(directory))
            try:
                self._write(entry, target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
        for folder in folders:
            _sync_directory(folder)

    def _write(self, entry: FileEntry, target: Path) -> None:
        with target.open("xb", buffering=0) as file:
            for chunk in self.read(entry.sha256):
                file.write(chunk)
            if file.tell() != entry.size:
                raise ArtifactInvalid(f"{entry.path} has {file.tell()} bytes, the manifest says {entry.size}")
            os.fsync(file.fileno())

    def discard(self, blobs: Collection[str], needed: Needed) -> list[str]:
        self._set_aside(set(blobs) - set(needed(blobs)))
        aside = self._aside()
        return sorted(self._decide(aside, aside & set(blobs), needed))

    def sweep(self, needed: Needed, *, older_than: datetime, dry_run: bool = False) -> dict[str, int]:
        # Also what a process that was killed had set aside.
        paths = {**self._paths(_TRASH, older_than), **self._paths(_BLOBS, older_than)}
        old = {"sha256:" + path.rsplit("/", 1)[-1]: size for path, size in paths.items()}
        if dry_run:
            return {sha256: old[sha256] for sha256 in sorted(old.keys() - set(needed(old)))}
        for path in self._paths(_STAGING, older_than):
            self._delete(path)
        self._sweep_torn_uploads(older_than)
        garbage = old.keys() - set(needed(old))
        self._set_aside(sha256 for sha256 in garbage if not self._renewed(_key(sha256), older_than))
        aside = self._aside()
        # Set aside, nothing is touched any more: now its time is final. A local rename keeps it; elsewhere a rename is a
        # copy, whose time says nothing.
        touched = {sha256 for sha256 in aside if self._root and self._renewed(_trash(sha256), older_than)}
        return {sha256: old.get(sha256, 0) for sha256 in sorted(self._decide(aside, aside - touched, needed))}

    def _renewed(self, key: str, older_than: datetime) -> bool:
        try:
            return bool(obstore.head(self._store, key)["last_modified"] >= older_than)
        except FileNotFoundError:
            return False

    def _set_aside(self, blobs: Iterable[str]) -> None:
        for sha256 in blobs:
            self._move(_key(sha256), _trash(sha256))

    def _aside(self) -> set[str]:
        return {"sha256:" + path.rsplit("/", 1)[-1] for path in self._paths(_TRASH, None)}

    def _decide(self, aside: set[str], deletable: set[str], needed: Needed) -> set[str]:
        """Delete what is deletable and not needed, and return that; put the rest back, whoever set it aside."""
        deleted = deletable - set(needed(aside))
        for sha256 in deleted:
            self._delete(_trash(sha256))
        for sha256 in aside - deleted:
            self._move(_trash(sha256), _key(sha256))
        return deleted

    def _add(self, read: Callable[[], bytes], expected: str | None) -> tuple[str, int]:
        staged = f"{_STAGING}/{uuid.uuid4().hex}"
        digest, size = hashlib.sha256(), 0

        def pass_through() -> Iterator[bytes]:
            nonlocal size
            while chunk := read():
                size += len(chunk)
                if size > self._max_blob_bytes:
                    raise ArtifactInvalid(f"the file is larger than the limit of {self._max_blob_bytes} bytes")
                digest.update(chunk)
                yield chunk
            if expected is not None and digest.hexdigest() != _hex_of(expected):
                # Raised inside the upload, which is then aborted: nothing of it becomes visible.
                raise ArtifactCorrupt(
                    f"the bytes have the digest sha256:{digest.hexdigest()}, not {expected}", hint="upload it again"
                )

        obstore.put(self._store, staged, pass_through(), chunk_size=CHUNK_BYTES, max_concurrency=2)
        sha256 = "sha256:" + digest.hexdigest()
        key = _key(sha256)
        self._sync(staged)
        try:
            # Over an existing blob too: the bytes are the same, and one that was damaged is whole again.
            obstore.rename(self._store, staged, key)
        except (BaseError, OSError):
            obstore.delete(self._store, staged)
            raise
        self._sync(key, parents=True)
        return sha256, size

    def _paths(self, prefix: str, older_than: datetime | None) -> dict[str, int]:
        """With their sizes."""
        found = [meta for page in obstore.list(self._store, prefix) for meta in page]
        return {
            meta["path"]: meta["size"] for meta in found if older_than is None or meta["last_modified"] < older_than
        }

    def _move(self, source: str, target: str) -> None:
        """Harmless when another process was first."""
        with contextlib.suppress(FileNotFoundError):
            obstore.rename(self._store, source, target)

    def _delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def _sync(self, key: str, *, parents: bool = False) -> None:
        """A local store leaves durability to its caller; an object store answers only when the bytes are safe."""
        if self._root is None:
            return
        path = self._root / key
        if not parents:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            return
        for parent in path.parents:
            _sync_directory(parent)
            if parent == self._root:
                return

    def _sweep_torn_uploads(self, older_than: datetime) -> None:
        """obstore writes a local upload to `<key>#<n>` and hides that name from its listings."""
        if self._root is None or not (self._root / _STAGING).is_dir():
            return
        for path in (self._root / _STAGING).iterdir():
            if datetime.fromtimestamp(path.lstat().st_mtime, UTC) < older_than:
                path.unlink(missing_ok=True)


def list_files(directory: Path) -> list[str]:
    """The relative paths of every file below `directory`, sorted; see `ObjectArtifactStore.add_directory` for what is refused."""
    found: list[str] = []
    for folder, names, files in os.walk(directory, onerror=_refuse_unreadable):
        relative = Path(folder).relative_to(directory)
        for name in (*names, *files):
            check_name(name, "file")
            mode = (Path(folder) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ArtifactInvalid(
                    f"{(relative / name).as_posix()} is not a plain file",
                    hint="replace symbolic links by what they point to",
                )
        found += [(relative / name).as_posix() for name in files]
        if len(found) > MAX_FILES:
            raise ArtifactInvalid(f"{directory.name} holds more than {MAX_FILES} files")
    if not found:
        raise ArtifactInvalid(f"{directory.name} holds no file")
    return sorted(found)


def _refuse_unreadable(error: OSError) -> None:
    raise ArtifactInvalid(f"{error.filename} cannot be read: {error.strerror}")


def _open_regular(source: Path) -> int:
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactInvalid(f"{source.name!r} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactInvalid(f"{source.name!r} is not a plain file")
    return descriptor


def _hex_of(sha256: str) -> str:
    return check_digest(sha256).removeprefix("sha256:")


def _key(sha256: str) -> str:
    digits = _hex_of(sha256)
    return f"{_BLOBS}/{digits[:2]}/{digits}"


def _trash(sha256: str) -> str:
    return f"{_TRASH}/{_hex_of(sha256)}"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
