# Capsules: a sweep as a file, and its rounds again.
from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms


def export_sweep(
    sweep: int, caller: Caller, rooms: Rooms, *, artifacts: bool = False, anonymize: bool = False
) -> FileResponse:
    """One file with all that the sweep rests on; `artifacts`: and the versions' bytes. With `anonymize` names are others."""
    path = rooms.capsules.export(caller, sweep, artifacts=artifacts, anonymize=anonymize)
    return FileResponse(
        path, media_type="application/x-tar", filename=f"sweep-{sweep}.capsule", background=BackgroundTask(path.unlink)
    )


def replay_capsule(body: types.NewReplay, caller: Caller, rooms: Rooms) -> types.SweepView:
    """Queued as a sweep of its own. The capsule's document and what it needs were uploaded before."""
    found = rooms.capsules.replay(caller, body.capsule, bench=body.bench, model=body.model)
    return wire.of(types.SweepView, found)
