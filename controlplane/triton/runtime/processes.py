# Server processes as the operating system sees them: who still lives, and what a dead one left behind.
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
STUB = "triton_python_backend_stub"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def birth(pid: int) -> str | None:
    """What tells this process from a later one with the same number: boot and start in clock ticks. None when it is
    gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in {"Z", "X"}:
        return None
    return f"{_BOOT.read_text().strip()}:{fields[19]}"


def kill(pid: int, born: str, *, deadline_seconds: float = 10.0) -> bool:
    """SIGKILL that very process and wait until it is gone; False when it still is not."""
    if birth(pid) == born:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + deadline_seconds
    while birth(pid) == born:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def sweep(prefix: str, *, deadline_seconds: float = 5.0) -> None:
    """Kill the stubs and remove the shared memory of the *dead* server that had this unique prefix.

    Healthy stubs notice the death within half a second and clean up themselves; a hung one never does.
    """
    end = time.monotonic() + deadline_seconds
    while pids := list(stubs(prefix)):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    for path in shared_memory(prefix):
        path.unlink(missing_ok=True)


def stubs(prefix: str) -> Iterator[int]:
    """The backend processes, and the shells that start them, of the server with this prefix."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if prefix in command and STUB in command and birth(int(entry.name)) is not None:
            yield int(entry.name)


def shared_memory(prefix: str) -> list[Path]:
    return sorted(path for path in SHARED_MEMORY.iterdir() if path.name.startswith(prefix))
