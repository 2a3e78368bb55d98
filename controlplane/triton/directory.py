# Reading one model's directory: what belongs, what does not, its digests and its times.
"""What Triton would take for the model is the rule: `config.pbtxt`, directories named by a positive number, and files beside
them that the config may name. A directory that only begins with a number is none of them: Triton reads `3.tmp` as version 3.
Symbolic links count only as files that stay within the model's directory; devices and pipes are never opened."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain.artifacts import BYTECODE, CONFIG, FileEntry, Manifest, may_lie_beside
from controlplane.domain.names import check_name, check_version
from controlplane.domain.servers import ModelFiles
from controlplane.errors import NameInvalid

ITSELF = "."
"""The stray that stands for the whole entry, when a model's directory is no directory."""

_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_MAX_CONFIG_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 32
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Scan:
    """Names and places, nothing read yet. `beside` and `strays` are relative to the model's directory, strays as raw
    names."""

    config: Path | None = None
    versions: dict[int, list[str]] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def scan(directory: Path) -> Scan:
    """`directory` may be missing; then everything is empty. Raises OSError when it cannot be read."""
    if not os.path.lexists(directory):
        return Scan()
    if directory.is_symlink() or not directory.is_dir():
        return Scan(strays=[ITSELF])
    with os.scandir(directory):  # raises OSError: an unreadable directory must not look like an empty one
        home = Path(os.path.realpath(directory))
    config: Path | None = None
    versions: dict[int, list[str]] = {}
    beside: list[str] = []
    strays: list[str] = []
    for entry in _entries(directory):
        if entry.name == CONFIG and _is_file(entry, home):
            config = directory / CONFIG
            continue
        number = _version_number(entry.name)
        if number is not None and entry.is_dir(follow_symlinks=False):
            files, inner = _walk(entry.path, home, "", _MAX_DEPTH)
            if files or not inner:  # an empty one is an ensemble's
                versions[number] = files
                strays += [f"{entry.name}/{path}" for path in inner]
                continue
        elif _is_named(entry.name) and may_lie_beside(entry.name, directory=entry.is_dir()):
            files, inner = _below(entry, home)
            beside += files
            strays += inner
            continue
        strays.append(entry.name)
    return Scan(config, versions, beside, strays)


def newest_ns(path: Path) -> int:
    """The greatest modification or change time at and below `path`, as Triton takes it; 0 when nothing is there."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return 0
    newest = max(info.st_mtime_ns, info.st_ctime_ns)
    if stat.S_ISLNK(info.st_mode):
        try:
            info = path.stat()
        except OSError:
            return newest
        return max(newest, info.st_mtime_ns, info.st_ctime_ns)
    if stat.S_ISDIR(info.st_mode):
        for entry in _entries(path):
            newest = max(newest, newest_ns(Path(entry.path)))
    return newest


class Reader:
    """Observes model directories, and remembers the digests of files that did not change. Safe to share between threads.

    A file that changed less than two seconds before it was hashed is hashed again next time: it may change once more
    within one tick of the file system's clock, and its times would not tell.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, dict[tuple[int, ...], str]] = {}

    def observe(self, directory: Path) -> ModelFiles:
        seen = scan(directory)
        known = self._known.get(directory.name, {})
        fresh: dict[tuple[int, ...], str] = {}
        strays = list(seen.strays)
        text: str | None = None
        if seen.config is not None:
            text = _read_config(seen.config)
            if text is None:
                strays.append(CONFIG)
        versions: dict[int, Manifest] = {}

        def hashed(prefix: str, paths: list[str]) -> Manifest:
            entries: list[FileEntry] = []
            for path in paths:
                entry = _hash(directory / (prefix + path), path, known, fresh)
                if entry is None:
                    strays.append(prefix + path)
                else:
                    entries.append(entry)
            return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))

        for number, paths in seen.versions.items():
            manifest = hashed(f"{number}/", paths)
            if manifest.files or not paths:
                versions[number] = manifest
        beside = hashed("", seen.beside)
        with self._lock:
            self._known[directory.name] = fresh
        return ModelFiles(text, versions, tuple(sorted(map(_printable, strays))), newest_ns(directory), beside)


def _hash(
    path: Path, name: str, known: dict[tuple[int, ...], str], fresh: dict[tuple[int, ...], str]
) -> FileEntry | None:
    """None when the file cannot be read. A file that is being written all the time has the digest of the last try."""
    try:
        with path.open("rb", buffering=0) as file:
            for _ in range(3):
                before = _identity(file.fileno())
                begun = time.time_ns()
                file.seek(0)
                sha256 = known.get(before) or "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
                if _identity(file.fileno()) == before:
                    break
    except OSError:
        return None
    *_, size, _mtime, ctime = before
    if begun - ctime > _RACY_NS:
        fresh[before] = sha256
    return FileEntry(name, size, sha256)


def _identity(descriptor: int) -> tuple[int, ...]:
    info = os.fstat(descriptor)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _read_config(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
        return data.decode() if len(data) <= _MAX_CONFIG_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None


def _below(entry: os.DirEntry[str], home: Path) -> tuple[list[str], list[str]]:
    """An entry beside the config: its files and strays, relative to the model's directory."""
    if not entry.is_dir(follow_symlinks=False):
        return ([entry.name], []) if _is_file(entry, home) else ([], [entry.name])
    files, strays = _walk(entry.path, home, entry.name + "/", _MAX_DEPTH)
    return (files, strays) if files else ([], [entry.name])


def _walk(directory: str, home: Path, prefix: str, depth: int) -> tuple[list[str], list[str]]:
    """Files that belong and strays, both relative. A directory without any file is a stray as a whole; so is
    `__pycache__`, unless it is the empty file that we put there."""
    files: list[str] = []
    strays: list[str] = []
    for entry in _entries(directory):
        path = prefix + entry.name
        if entry.name == BYTECODE:
            if not entry.is_file(follow_symlinks=False) or entry.stat().st_size:
                strays.append(path)
        elif entry.is_dir(follow_symlinks=False) and _is_named(entry.name) and depth:
            inner, lost = _walk(entry.path, home, path + "/", depth - 1)
            files += inner
            strays += lost if inner else [path]
        elif _is_file(entry, home):
            files.append(path)
        else:
            strays.append(path)
    return files, strays


def _entries(directory: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:  # unreadable, or gone meanwhile: nothing in it can be said to belong
        return
    yield from entries


def _is_file(entry: os.DirEntry[str], home: Path) -> bool:
    if not _is_named(entry.name):
        return False
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    target = Path(os.path.realpath(entry.path))
    return target.is_relative_to(home) and target.is_file()


def _is_named(name: str) -> bool:
    try:
        check_name(name, "file")
    except NameInvalid:
        return False
    return True


def _version_number(name: str) -> int | None:
    if _VERSION.fullmatch(name) is None:
        return None
    try:
        return check_version(int(name))
    except NameInvalid:
        return None


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
