# A child process for one untrusted file: limits of time, memory and file size; the parent outlives whatever it does.
from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import controlplane

_GIB = 1024**3
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class InspectionLimits:
    """What an inspection may use, by the artifact's size. `memory_bytes` bounds the address space, so it is no
    reservation: mapped weights count in it."""

    seconds: int = 60
    seconds_per_gib: int = 60
    memory_bytes: int = 4 * _GIB
    memory_per_byte: int = 6

    def seconds_for(self, size: int) -> int:
        return self.seconds + self.seconds_per_gib * size // _GIB

    def memory_for(self, size: int) -> int:
        return self.memory_bytes + self.memory_per_byte * size


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How the child ended: its exit status (negative: the signal), or `timed_out`, and the end of what it complained."""

    status: int
    timed_out: bool
    complaint: str


def run_child(module: str, arguments: Sequence[str], *, work: Path, seconds: int) -> ChildEnd:
    """Run `python -m module arguments` with `work` as its directory and no more of our environment than Python needs.

    Returns when the child and every process of its group are gone; it is killed after `seconds` of wall-clock time. The
    module calls `limit_self` before it opens anything.
    """
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "PYTHONPATH": str(Path(controlplane.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Each thread's arena reserves 64 MiB of address space, which is what we limit.
        "MALLOC_ARENA_MAX": "2",
    }
    complaints = work / "stderr"
    with complaints.open("wb") as stderr:
        # -P: the directory of an untrusted file never comes to stand on the import path.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=work,
            env=environment,
            start_new_session=True,
        )
        timed_out = False
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return ChildEnd(child.returncode, timed_out, _tail(complaints))


def limit_self(*, memory_bytes: int, seconds: int, file_bytes: int) -> None:
    """In the child, first thing: what is read from here on can exhaust neither memory, CPU nor disk."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _tail(path: Path, length: int = 2000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - length))
        return file.read().decode("utf-8", "replace").strip()
