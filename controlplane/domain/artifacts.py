# Immutable bytes: a manifest of paths and digests, itself named by a digest.
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.names import check_name
from controlplane.errors import ArtifactInvalid

CONFIG = "config.pbtxt"
BYTECODE = "__pycache__"
"""No file of any version lies in a directory of this name."""
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact. `path` is relative, with `/`; `sha256` is `sha256:<hex>` of its bytes; `size` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a directory holds: every file, sorted by path. Two equal manifests have one digest."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ArtifactInvalid("the paths of a manifest are sorted and different from each other")
        known = set(paths)
        for entry in self.files:
            check_digest(entry.sha256)
            if entry.size < 0:
                raise ArtifactInvalid(f"{entry.path!r} cannot have {entry.size} bytes")
        for path in paths:
            folder = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in known), None)
            if folder is not None:
                raise ArtifactInvalid(f"{folder!r} is a file and also the directory of {path!r}")
            for part in PurePosixPath(path).parts:
                check_name(part, "file")
                if part == BYTECODE:
                    raise ArtifactInvalid(
                        f"{path!r} is bytecode, which Python would prefer to the source", hint=f"leave {BYTECODE} out"
                    )
            if path != PurePosixPath(path).as_posix():
                raise ArtifactInvalid(f"the path {path!r} is not in its plain form")

    @property
    def digest(self) -> str:
        return digest(self.to_json())

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    def to_json(self) -> JsonObject:
        return {"files": [{"path": e.path, "size": str(e.size), "sha256": e.sha256} for e in self.files]}

    @classmethod
    def from_json(cls, tree: JsonObject) -> Manifest:
        files = tree["files"]
        if not isinstance(files, list):
            raise ArtifactInvalid("a manifest has a list of files")
        return cls(tuple(FileEntry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in files))


def check_digest(sha256: str) -> str:
    """Return `sha256`, or raise ArtifactInvalid."""
    if _SHA256.fullmatch(sha256) is None:
        raise ArtifactInvalid(f"{sha256[:80]!r} is not a digest", hint="a digest is sha256: and 64 hexadecimal digits")
    return sha256


NO_FILES = Manifest(())
"""What lies in the version directory of an ensemble, and beside most configs."""


def may_lie_beside(name: str, *, directory: bool) -> bool:
    """Whether an entry of this name may lie beside a config: Triton takes a directory `3.tmp` for version 3."""
    return name not in {CONFIG, BYTECODE} and not name.isdigit() and not (directory and name[0].isdigit())


def check_beside(beside: Manifest) -> Manifest:
    """Raises ArtifactInvalid for what cannot lie beside a config."""
    for entry in beside.files:
        name, slash, _ = entry.path.partition("/")
        if not may_lie_beside(name, directory=bool(slash)):
            raise ArtifactInvalid(
                f"{entry.path!r} cannot lie beside a config: Triton takes {name!r} for something else",
                hint="versions are registered, and the config has an option of its own",
            )
    return beside
