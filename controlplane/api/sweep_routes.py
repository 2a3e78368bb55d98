# The routes of sweeps, a part of the table of all routes.
from __future__ import annotations

from controlplane.api import capsules, sweep_evidence, sweeps
from controlplane.api.openapi import Route
from controlplane.domain.access import Permission
from controlplane.errors import (
    CapsuleInvalid,
    ConfigInvalid,
    ConfigPathInvalid,
    Conflict,
    CursorInvalid,
    NameInvalid,
    NotFound,
    SweepInvalid,
    TransitionIllegal,
)

_MOVING = (NotFound, TransitionIllegal, Conflict)
_SWEEP = "/v1/sweeps/{sweep}"
_SWEEPING = (NotFound, SweepInvalid, ConfigInvalid, ConfigPathInvalid, NameInvalid)
SWEEPS = (
    Route("POST", "/v1/sweeps/plan", Permission.SWEEP_RUN, sweeps.plan_sweep, errors=_SWEEPING),
    Route("GET", "/v1/sweeps", Permission.SWEEP_READ, sweeps.list_sweeps, errors=(CursorInvalid,)),
    Route("POST", "/v1/sweeps", Permission.SWEEP_RUN, sweeps.start_sweep, status=201, creates=True, errors=_SWEEPING),
    Route(
        "POST",
        "/v1/sweeps/replays",
        Permission.SWEEP_RUN,
        capsules.replay_capsule,
        status=201,
        creates=True,
        errors=(NotFound, CapsuleInvalid, SweepInvalid, NameInvalid),
    ),
    Route("GET", _SWEEP, Permission.SWEEP_READ, sweeps.show_sweep, errors=(NotFound,)),
    Route("GET", f"{_SWEEP}/capsule", Permission.SWEEP_RUN, capsules.export_sweep, errors=(NotFound, Conflict)),
    Route(
        "POST",
        f"{_SWEEP}/proposals",
        Permission.CHANGE_PROPOSE,
        sweep_evidence.propose_trial,
        status=201,
        creates=True,
        errors=(NotFound, Conflict, ConfigInvalid, ConfigPathInvalid, NameInvalid),
    ),
    Route("GET", f"{_SWEEP}/events", Permission.SWEEP_READ, sweeps.watch_sweep, errors=(NotFound,)),
    Route("GET", f"{_SWEEP}/trials", Permission.SWEEP_READ, sweeps.list_trials, errors=(NotFound, CursorInvalid)),
    Route("GET", f"{_SWEEP}/trials/{{trial}}", Permission.SWEEP_READ, sweeps.show_trial, errors=(NotFound,)),
    Route(
        "GET",
        f"{_SWEEP}/measurements",
        Permission.SWEEP_READ,
        sweeps.list_measurements,
        errors=(NotFound, CursorInvalid),
    ),
    Route("GET", f"{_SWEEP}/fingerprints", Permission.SWEEP_READ, sweeps.show_fingerprints, errors=(NotFound,)),
    Route("GET", f"{_SWEEP}/comparison", Permission.SWEEP_READ, sweeps.compare_trials, errors=(NotFound,)),
    Route(
        "POST",
        f"{_SWEEP}/cancellation",
        Permission.SWEEP_RUN,
        sweeps.cancel_sweep,
        creates=True,
        errors=_MOVING,
    ),
    Route(
        "POST",
        f"{_SWEEP}/resumption",
        Permission.SWEEP_RUN,
        sweeps.resume_sweep,
        status=202,
        creates=True,
        errors=_MOVING,
    ),
)
