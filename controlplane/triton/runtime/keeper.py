# Power over a server that we launched, from another process than the one that supervises it.
from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from controlplane.domain.servers import Backend
from controlplane.errors import ServerUnreachable
from controlplane.triton.runtime.processes import birth, kill, stubs
from controlplane.triton.runtime.state import read_state

HOLD = "hold"
"""While a file of this name lies in the server's home, its supervisor does not start it. It names the model for whose sake."""
_RELEASE_SECONDS = 120.0
_DRAIN_SECONDS = 5.0
_POLL_SECONDS = 0.1


class ServerKeeper:
    """Implements the Keeper port. `alive` asks the server itself."""

    def __init__(self, home: Path, repository: Path, alive: Callable[[], bool]) -> None:
        self._home = home
        self._repository = repository
        self._alive = alive

    def kill(self, model: str) -> None:
        (self._home / HOLD).write_text(model)
        state = read_state(self._home)
        if state is not None:
            state.kill()

    def held(self) -> str | None:
        try:
            return (self._home / HOLD).read_text()
        except FileNotFoundError:
            return None

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

    def backends(self, model: str) -> frozenset[Backend]:
        state = read_state(self._home)
        if state is None:
            return frozenset()
        directory = str(self._repository / model) + "/"
        found = set()
        for pid in stubs(state.shm_prefix):
            born = birth(pid)
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if born is not None and any(word.startswith(directory) for word in command):
                found.add(Backend(pid, born))
        return frozenset(found)

    def kill_stale(self, backends: Collection[Backend]) -> int:
        """Backends that drain end by themselves within seconds of a reload; what is left after that hangs."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (stale := [b for b in backends if birth(b.pid) == b.born]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return sum(kill(backend.pid, backend.born) for backend in stale)
