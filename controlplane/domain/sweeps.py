# Sweeps and their trials as they are kept; which states follow which.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.sweep_rounds import Measurement
from controlplane.errors import TransitionIllegal


class SweepState(StrEnum):
    """What is stored. A running sweep whose worker died is still running: the next worker goes on with it."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S = SweepState
TRANSITIONS: dict[SweepState, frozenset[SweepState]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.FINISHED, _S.FAILED, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.QUEUED}),  # resumed
    _S.CANCELLED: frozenset({_S.QUEUED}),  # resumed
    _S.FINISHED: frozenset(),
}
ACTIVE = frozenset({_S.QUEUED, _S.RUNNING})


def check_transition(sweep: int, old: SweepState, new: SweepState) -> None:
    """Raises TransitionIllegal when the table does not have it."""
    if new not in TRANSITIONS[old]:
        raise TransitionIllegal(
            f"sweep {sweep} is {old.value}: it cannot become {new.value}",
            hint=f"tritonctl sweep show {sweep}",
            details={"sweep": sweep, "state": old.value},
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of a sweep. `candidate` is its digest; `config` the codec's normal form under the model's name; `parameters`
    the values that make it of the base config. `refused` says why it was not tried, `failure` why it could not be
    measured, with `log`, the end of the server's; both are empty otherwise. `fates` are what the search decided, in order."""

    sweep: int
    number: int
    candidate: str
    version: int
    artifact: str
    config: JsonObject | None
    config_digest: str
    parameters: JsonObject
    base: bool = False
    refused: tuple[str, ...] = ()
    failure: str = ""
    log: str = ""
    fates: tuple[JsonObject, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.sweep}.{self.number}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A measurement as it is kept. `claim` is the lease's token under which it was made: between two claims nobody measured, so
    that time counts for nothing."""

    measurement: Measurement
    claim: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """`spec` is what was asked for, `space` what that means (dimensions, reasons, counts), `load` under which load and why,
    `plan` the stages and the estimate, `objectives` those of the model at the time. `answer` and `evidence` come at the
    end: the front, the choice with its reason, and the digest of everything that it rests on."""

    id: int
    model: str
    spec: JsonObject
    spec_digest: str
    space: JsonObject
    load: JsonObject
    plan: JsonObject
    objectives: tuple[JsonObject, ...]
    state: SweepState
    started_by: str
    created_at: datetime
    environment: str | None = None
    """Whose current revision the base configs are of; None: they were generated."""
    base_revision: int | None = None
    bench: str = "embedded"
    """`embedded`, a bench server's address, or a Dask scheduler's."""
    began_at: datetime | None = None
    finished_at: datetime | None = None
    progress: JsonObject = field(default_factory=dict)
    """What is known so far: stage, blocks done and ordered, seconds left, the leader."""
    message: str = ""
    answer: JsonObject | None = None
    evidence: str | None = None


def evidence_digest(sweep: Sweep, trials: tuple[Trial, ...], measurements: tuple[Measurement, ...]) -> str:
    """Of everything that the answer rests on; whoever has the rows can take it again."""
    return digest_of_rows(sweep, trials, [digest(one.to_json()) for one in measurements])


def digest_of_rows(sweep: Sweep, trials: tuple[Trial, ...], measurements: Sequence[str]) -> str:
    """The same, by the measurements' digests."""
    return digest(
        {
            "schema": 2,
            "spec": sweep.spec_digest,
            "model": sweep.model,
            "objectives": list(sweep.objectives),
            "space": sweep.space,
            "load": sweep.load,
            "plan": sweep.plan,
            "trials": [
                {
                    "candidate": trial.candidate,
                    "version": trial.version,
                    "artifact": trial.artifact,
                    "config": trial.config_digest,
                    "refused": list(trial.refused),
                    "failure": trial.failure,
                    "fates": list(trial.fates),
                }
                for trial in trials
            ],
            "measurements": list(measurements),
            "answer": sweep.answer,
        }
    )
