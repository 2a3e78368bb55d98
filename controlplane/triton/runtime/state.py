# state.json: how another process finds the running server of a home directory.
from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.triton.runtime import processes

STATE = "state.json"
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    grpc: int
    http: int
    metrics: int

    @property
    def grpc_address(self) -> str:
        return f"{HOST}:{self.grpc}"

    @property
    def http_address(self) -> str:
        return f"{HOST}:{self.http}"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self.metrics}/metrics"


@dataclass(frozen=True, slots=True)
class ServerState:
    """`generation` counts the starts in this home. `pid` and `born` are None while a start is under way: the shared
    memory prefix is on disk before anything could use it."""

    generation: int
    shm_prefix: str
    ports: Ports
    log: str
    pid: int | None
    born: str | None

    def alive(self) -> bool:
        return self.pid is not None and self.born is not None and processes.birth(self.pid) == self.born

    def kill(self) -> None:
        """SIGKILL the server if it is still that one, and remove what it leaves behind. Whoever supervises it starts
        it again."""
        if self.pid is not None and self.born is not None:
            processes.kill(self.pid, self.born)
        processes.sweep(self.shm_prefix)


def read_state(home: Path) -> ServerState | None:
    """The last start in this home, or None when there was none. It may have died since: ask `alive`."""
    try:
        fields = json.loads((home / STATE).read_text())
        return ServerState(**{**fields, "ports": Ports(**fields["ports"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, state: ServerState) -> None:
    temporary = home / f"{STATE}.new"
    with temporary.open("w") as stream:
        json.dump(asdict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(home / STATE)
