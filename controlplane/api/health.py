# Probes of an orchestrator, without authentication.
from __future__ import annotations

from controlplane.api.security import Rooms


def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


def readyz(rooms: Rooms) -> dict[str, str]:
    """The database answers and has this program's schema; 503 otherwise."""
    rooms.installation.check()
    return {"status": "ready"}
