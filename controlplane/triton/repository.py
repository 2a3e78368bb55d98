# Triton's model repository on a local disk: every change is staged outside, made durable, and renamed in.
"""Triton reloads only what is newer than what it loaded, so whatever is put in place gets a time greater than any that was
in the model's directory before, and the directory itself carries that mark on when something is taken out.

Triton's Python backend writes bytecode into the version directory, whatever its environment says, and Python prefers it to
the source that was approved. An empty file in the place of that directory prevents both."""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from controlplane.domain.artifacts import BYTECODE, CONFIG, Manifest
from controlplane.domain.names import check_name, check_version
from controlplane.domain.servers import ModelFiles
from controlplane.errors import RepositoryFailed, SettingsInvalid
from controlplane.triton.directory import ITSELF, Reader, newest_ns, scan
from controlplane.triton.fence import fence

_PREFIX = "tritonctl-"
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755  # Triton may run as another user

P = ParamSpec("P")
R = TypeVar("R")


class Blobs(Protocol):
    """What is needed of the artifact store."""

    def fetch(self, manifest: Manifest, directory: Path) -> None: ...


def _on_disk(
    method: Callable[Concatenate[LocalRepository, P], R],
) -> Callable[Concatenate[LocalRepository, P], R]:
    """Turns OSError into RepositoryFailed."""

    @wraps(method)
    def call(self: LocalRepository, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            raise RepositoryFailed(
                f"{method.__name__} failed in the model repository {self.root}: {error}",
                hint="free space or mend the permissions there; the same change can be applied again",
                details={"errno": error.errno},
            ) from error

    return call


class LocalRepository:
    """The `ModelRepository` of services/ports.py over `root`.

    Staging and lock files lie beside `root`, in a directory of this repository's own: `.tritonctl-NAME/` with `staging/`
    and `locks/`. Links in `root` are followed once, here, so that every name of a repository finds the same locks.
    Safe to share between threads; two writers of one model are kept apart by `fence`. Beyond what the port says, methods
    raise RepositoryFailed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        beside = self.root.parent / f".tritonctl-{self.root.name}"
        self.staging = beside / "staging"
        self._locks = beside / "locks"
        self._reader = Reader()

    @_on_disk
    def observe(self, model: str) -> ModelFiles:
        return self._reader.observe(self._home(model))

    @_on_disk
    def write_version(self, model: str, number: int, manifest: Manifest, store: Blobs) -> None:
        home, name = self._home(model), str(check_version(number))
        if self._reader.observe(home).versions.get(number) == manifest:
            return
        with self._staged() as stage:
            staged = stage / name
            staged.mkdir()
            store.fetch(manifest, staged)
            for directory in {path.parent for path in staged.rglob("*.py")}:
                (directory / BYTECODE).touch()  # a file, so that nobody makes the directory
            self._put(home, name, staged)

    @_on_disk
    def write_beside(self, model: str, beside: Manifest, store: Blobs) -> None:
        home = self._home(model)
        there, wanted = _by_entry(self._reader.observe(home).beside), _by_entry(beside)
        self._take_out(home, sorted(there.keys() - wanted.keys()))
        for name, manifest in wanted.items():
            if there.get(name) == manifest and not (home / name).is_symlink():
                continue
            with self._staged() as stage:
                fetched = stage / "fetched"
                fetched.mkdir()
                store.fetch(manifest, fetched)
                staged = (fetched / name).rename(stage / "entry")
                self._put(home, name, staged)

    @_on_disk
    def write_config(self, model: str, text: str) -> None:
        home = self._home(model)
        if not (home / CONFIG).is_symlink() and self._reader.observe(home).config_text == text:
            return
        with self._staged() as stage:
            staged = stage / CONFIG
            staged.write_bytes(text.encode())
            self._put(home, CONFIG, staged)

    @_on_disk
    def remove_version(self, model: str, number: int) -> None:
        self._take_out(self._home(model), [str(check_version(number))])

    @_on_disk
    def remove_strays(self, model: str) -> None:
        home = self._home(model)
        strays = scan(home).strays
        self._take_out(home, strays)
        for path in (home / stray for stray in strays if stray.endswith(f"/{BYTECODE}")):
            path.touch()
            _sync(path.parent)

    @_on_disk
    def remove_model(self, model: str) -> None:
        self._take_out(self._home(model), [ITSELF])

    @_on_disk
    def touch(self, model: str) -> None:
        home = self._home(model)
        seen = scan(home)
        if seen.strays == [ITSELF]:
            return
        fresh = _later_than(newest_ns(home))
        for path in [*([seen.config] if seen.config else []), *(home / str(number) for number in seen.versions), home]:
            if path.exists():
                os.utime(path, ns=(fresh, fresh))
                _sync(path)

    def fence(self, model: str, token: int, *, wait_seconds: float) -> AbstractContextManager[None]:
        check_name(model, "model")
        return fence(self._locks / f"{model}.lock", token, wait_seconds=wait_seconds)

    @_on_disk
    def clean_staging(self, *, older_than_seconds: float = 3600.0) -> int:
        """Delete what killed processes left there, and return how many. Something written to since then is at work."""
        limit = time.time_ns() - int(older_than_seconds * 1e9)
        left = [path for path in self.staging.glob(f"{_PREFIX}*") if _changed_ns(path) < limit]
        for path in left:
            shutil.rmtree(path)
        return len(left)

    def _home(self, model: str) -> Path:
        return self.root / check_name(model, "model")

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """A directory of its own in staging, gone at the end with what is still in it."""
        self.staging.mkdir(parents=True, exist_ok=True)
        if self.staging.stat().st_dev != self.root.stat().st_dev:
            raise SettingsInvalid(
                f"the staging directory {self.staging} is on another file system than {self.root}",
                hint="nothing can be renamed from one to the other: mount the directory that holds the repository",
            )
        stage = self.staging / f"{_PREFIX}{uuid.uuid4().hex}"
        stage.mkdir(mode=0o700)
        try:
            yield stage
        finally:
            # What cannot be deleted is garbage, no failure of the effect: `clean_staging` meets it again and says so.
            shutil.rmtree(stage, ignore_errors=True)

    def _put(self, home: Path, name: str, staged: Path) -> None:
        """Make `staged` the entry `name` of the model: durable, readable, and newer than all that is there."""
        fresh = _later_than(newest_ns(home))
        if home.is_symlink() or not home.is_dir():
            # The first entry comes with its directory, so that Triton never meets an empty one.
            self._take_out(home, [ITSELF])
            whole = staged.parent / "model"
            whole.mkdir()
            staged.rename(whole / name)
            _seal(whole, fresh)
            whole.rename(home)
            _sync(self.root)
            return
        _seal(staged, fresh)
        target = home / name
        if target.is_dir() and not target.is_symlink():
            # Moved, not deleted, so that the place is empty for no longer than two renames take.
            target.rename(staged.parent / "old")
        elif staged.is_dir() and os.path.lexists(target):
            target.unlink()
        staged.rename(target)
        self._mark(home, fresh)

    def _take_out(self, home: Path, names: Sequence[str]) -> None:
        """Move entries of a model's directory into staging, then delete them there. Missing ones are no matter."""
        present = [name for name in names if os.path.lexists(home / name)]
        if not present:
            return
        fresh = _later_than(newest_ns(home))
        with self._staged() as stage:
            for index, name in enumerate(present):
                (home / name).rename(stage / str(index))
            if ITSELF in present:
                _sync(self.root)
            else:
                self._mark(home, fresh)

    def _mark(self, home: Path, fresh: int) -> None:
        """Without this the mark of a file with a time in the future would leave together with the file."""
        os.utime(home, ns=(fresh, fresh))
        _sync(home)


def _by_entry(beside: Manifest) -> dict[str, Manifest]:
    """What lies beside the config by the entries of the model's directory: files and whole directories."""
    names = sorted({entry.path.partition("/")[0] for entry in beside.files})
    return {
        name: Manifest(tuple(entry for entry in beside.files if entry.path.partition("/")[0] == name)) for name in names
    }


def _later_than(before: int) -> int:
    return max(time.time_ns(), before + 1)


def _seal(path: Path, fresh: int) -> None:
    """Modes and times of a staged tree, contents before directories, all of it on the medium."""
    if path.is_dir():
        for entry in path.iterdir():
            _seal(entry, fresh)
    path.chmod(_DIRECTORY_MODE if path.is_dir() else _FILE_MODE)
    os.utime(path, ns=(fresh, fresh))
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed_ns(path: Path) -> int:
    """The greatest change time at and below `path`: it cannot be set, so it says when somebody was last at work."""
    try:
        info = path.lstat()
        below = list(path.iterdir()) if stat.S_ISDIR(info.st_mode) else []
    except FileNotFoundError:  # taken away this moment: somebody is at work
        return time.time_ns()
    return max(info.st_ctime_ns, *map(_changed_ns, below), 0)
