# The lock file beside the repository that keeps a worker which lost its lease from touching a model.
from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.errors import IntegrityError, LeaseLost, OperationTimedOut

_POLL_SECONDS = 0.01
_CONTENT_BYTES = 512  # within one sector, so that a crash leaves the old line or the new one


@contextmanager
def fence(path: Path, token: int, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; the file remembers the greatest token that ever held it.

    A process that was suspended before the lock finds a greater token when it wakes, and gets LeaseLost; one that is
    suspended inside keeps everybody else out until it wakes or ends. Raises OperationTimedOut after `wait_seconds`, and
    IntegrityError when the file is not one of ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, time.monotonic() + wait_seconds, wait_seconds)
    try:
        seen = _token(path, os.pread(descriptor, _CONTENT_BYTES, 0))
        if seen > token:
            raise LeaseLost(
                f"the lease with token {token} is lost: token {seen} has been at {path.stem} since",
                hint="nothing was done; whoever holds the newer lease goes on",
                details={"token": str(token), "seen": str(seen)},
            )
        # Written even when the token is not new: the line names the process that holds the lock now.
        line = f"{token:020d} process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.pwrite(descriptor, line.ljust(_CONTENT_BYTES), 0)
        if seen < token:
            os.fsync(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, deadline: float, wait_seconds: float) -> int:
    """The locked file, open. A file that was deleted while this waited for it locks nothing, so it is opened anew."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        holder = os.pread(descriptor, _CONTENT_BYTES, 0).decode(errors="replace").strip()
                        raise OperationTimedOut(
                            f"{path} is locked by another process for longer than {wait_seconds:g} s",
                            hint="if the process in the lock file's line is stopped or hangs, end it: "
                            + (holder.partition(" ")[2] or "it has not written its line yet"),
                            details={"lock": str(path)},
                        ) from None
                    time.sleep(_POLL_SECONDS)
            if _is_still_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _token(path: Path, content: bytes) -> int:
    if not content:
        return 0
    number = content.partition(b" ")[0]
    if not number.isdigit():
        raise IntegrityError(
            f"{path} is not a lock file of ours: it begins with {content[:40]!r}",
            hint="find out who wrote it; when no worker runs, delete it",
        )
    return int(number)
