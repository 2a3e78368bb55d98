# Checkpoints and the signing key as files, outside the database.
from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from controlplane.domain.notes import Signer, Verifier

_FILE = re.compile(r"(\d{12,})\.checkpoint")


class CheckpointFiles:
    """One file for each signed checkpoint, `000000000042.checkpoint` for size 42. Copy the directory elsewhere: what it
    excludes depends on who can write it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, size: int, note: str) -> Path:
        """Whole or not at all, even through a power cut. A file that is there stays."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{size:012}.checkpoint"
        if not path.exists():
            _write(path, note, mode=0o644)
        return path

    def read(self) -> Sequence[tuple[int, str]]:
        """Size as the name says it, and content, the smallest first; nothing when there is no directory."""
        if not self.directory.is_dir():
            return []
        named = ((_FILE.fullmatch(path.name), path) for path in self.directory.iterdir())
        return sorted(
            (int(match[1]), path.read_text(encoding="utf-8", errors="replace")) for match, path in named if match
        )

    def newest(self) -> str | None:
        files = self.read()
        return files[-1][1] if files else None


def ensure_signing_key(path: Path, name: str) -> Signer:
    """The key in `path`, which is made for the log `name` when it is missing. Only its owner can read it. Of two
    processes that make it at once one wins, and both use that one. Raises InvalidInput for an unreadable key."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, Signer.generate(name).private_text() + "\n", mode=0o600, keep=True)
    return Signer.parse(path.read_text(encoding="utf-8"))


def rotate_signing_key(path: Path, name: str) -> Signer:
    """Replace the key in `path` by a new one and remember the old one's public half beside it, so that what it signed
    still counts. Stop the signing processes first. A crash in between leaves the old key in force."""
    old = ensure_signing_key(path, name).verifier
    known = retired_verifiers(path)
    if old not in known:
        _write(_retired(path), "".join(f"{verifier}\n" for verifier in (*known, old)), mode=0o644)
    new = Signer.generate(name)
    _write(path, new.private_text() + "\n", mode=0o600)
    return new


def retired_verifiers(path: Path) -> Sequence[Verifier]:
    """The public halves of the keys that were in `path` before, the oldest first. Raises InvalidInput."""
    retired = _retired(path)
    lines = retired.read_text(encoding="utf-8").splitlines() if retired.exists() else []
    return [Verifier.parse(line) for line in lines if line]


def _retired(path: Path) -> Path:
    return path.with_name(f"{path.name}.retired")


def _write(path: Path, text: str, *, mode: int, keep: bool = False) -> None:
    """`keep`: when another process was faster, its file stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        if keep:
            os.link(temporary, path)
        else:
            temporary.rename(path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
