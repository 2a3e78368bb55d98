# Power over a server that we launched, from another process than the one that supervises it.
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

from controlplane.errors import ServerUnreachable
from controlplane.triton.runtime.processes import stubs
from controlplane.triton.runtime.state import read_state

HOLD = "hold"
"""While a file of this name lies in the server's home, its supervisor does not start it."""
_RELEASE_SECONDS = 120.0
_DRAIN_SECONDS = 5.0
_POLL_SECONDS = 0.1


class ServerKeeper:
    """Implements the Keeper port. `alive` asks the server itself."""

    def __init__(self, home: Path, repository: Path, alive: Callable[[], bool]) -> None:
        self._home = home
        self._repository = repository
        self._alive = alive

    def kill(self) -> None:
        (self._home / HOLD).touch()
        state = read_state(self._home)
        if state is not None:
            state.kill()

    def release(self) -> None:
        (self._home / HOLD).unlink(missing_ok=True)
        deadline = time.monotonic() + _RELEASE_SECONDS
        while not self._alive():
            if time.monotonic() > deadline:
                raise ServerUnreachable(
                    f"the server in {self._home} did not come back in {_RELEASE_SECONDS:.0f} s",
                    hint="is `tritonctl up` still running? look into its log",
                )
            time.sleep(_POLL_SECONDS)

    def kill_stale_backends(self, model: str, before: datetime) -> int:
        """Backends that drain end by themselves within seconds of a reload; what is left after that hangs."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (stale := self._older(model, before)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for pid in stale:
            os.kill(pid, signal.SIGKILL)
        return len(stale)

    def _older(self, model: str, before: datetime) -> list[int]:
        state = read_state(self._home)
        if state is None:
            return []
        directory = str(self._repository / model) + "/"
        found = []
        for pid in stubs(state.shm_prefix):
            try:
                process = psutil.Process(pid)
                if process.create_time() < before.timestamp() and any(
                    word.startswith(directory) for word in process.cmdline()
                ):
                    found.append(pid)
            except psutil.NoSuchProcess:
                continue
        return found
