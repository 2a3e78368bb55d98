# Use cases of a sweep: plan, start, look, compare, cancel, resume.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from clients.load.statistics import Interval
from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_answer import figures_of_answer
from controlplane.domain.sweep_compare import Compared, compared, figures_seen
from controlplane.domain.sweep_course import asked_of
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweep_spec import SweepSpec, spec_from_json
from controlplane.domain.sweeps import ACTIVE, Sweep, SweepState, Trial
from controlplane.errors import InvalidInput, TransitionIllegal
from controlplane.services.access import AccessService
from controlplane.services.ports import Clock
from controlplane.services.sweep_drafts import Draft, SweepDrafts
from controlplane.storage.unit_of_work import Storage, UnitOfWork


@dataclass(frozen=True, slots=True)
class TrialSeen:
    """A trial with what its blocks showed so far, by figure, and how many blocks it has."""

    trial: Trial
    figures: Mapping[str, Interval]
    blocks: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of trial `other` with trial `one`; `margin` is the share by which they may differ without mattering."""

    one: Trial
    other: Trial
    margin: float
    figures: tuple[Compared, ...]


class SweepService:
    """Whoever may operate starts, cancels and resumes; everyone may look. What is measured, and when, is the worker's business
    (`services/sweep_runner.py`)."""

    def __init__(self, storage: Storage, access: AccessService, drafts: SweepDrafts, clock: Clock) -> None:
        self._storage = storage
        self._access = access
        self._drafts = drafts
        self._clock = clock

    # ask

    def plan_only(
        self, principal: Principal, spec: SweepSpec, *, environment: str | None = None, bench: str | None = None
    ) -> Draft:
        """What `start` would do: nothing is kept, and the sweep's id is 0."""
        self._access.require(principal, Permission.SWEEP_RUN, subjects={"model": spec.model})
        return self._draft(principal, spec, environment, bench)

    def start(
        self, principal: Principal, spec: SweepSpec, *, environment: str | None = None, bench: str | None = None
    ) -> Sweep:
        """Queued, with its trials. `environment`: whose current config is the base; without, configs are generated. `bench` is None
        for one of our own, or an address. Raises SweepInvalid with the reason where nothing can be measured."""
        self._access.require(principal, Permission.SWEEP_RUN, subjects={"model": spec.model})
        draft = self._draft(principal, spec, environment, bench)
        with self._storage.write() as unit:
            sweep = unit.sweeps.add(draft.sweep, draft.trials)
            tried = sum(1 for one in draft.trials if not one.refused)
            details: dict[str, Json] = {
                "spec": sweep.spec_digest,
                "bench": sweep.bench,
                "base_revision": sweep.base_revision,
                "method": str(sweep.plan["method"]),
                "tried": tried,
                "refused": len(draft.trials) - tried,
                "seconds": sweep.plan["seconds"],
            }
            unit.audit.append(AuditFact(principal.actor, Action.SWEEP_STARTED, subjects(sweep), details))
        return sweep

    def cancel(self, principal: Principal, sweep: int) -> Sweep:
        """What was measured stays. Nothing to do for one that was cancelled already."""
        self._access.require(principal, Permission.SWEEP_RUN, subjects={"sweep": str(sweep)})
        with self._storage.write() as unit:
            found = unit.sweeps.get(sweep, lock=True)
            if found.state is SweepState.CANCELLED:
                return found
            moved = unit.sweeps.move(
                sweep, SweepState.CANCELLED, finished_at=self._clock.now(), message=f"cancelled by {principal.name}"
            )
            details: dict[str, Json] = {"measurements": unit.sweeps.measured(sweep)}
            unit.audit.append(AuditFact(principal.actor, Action.SWEEP_CANCELLED, subjects(moved), details))
        return moved

    def resume(self, principal: Principal, sweep: int) -> Sweep:
        """Queue one that failed or was cancelled: it goes on with what it has. Nothing to do for one that is active."""
        self._access.require(principal, Permission.SWEEP_RUN, subjects={"sweep": str(sweep)})
        with self._storage.write() as unit:
            found = unit.sweeps.get(sweep, lock=True)
            if found.state in ACTIVE:
                return found
            if found.state is SweepState.FINISHED:
                raise TransitionIllegal(
                    f"sweep {sweep} is finished: it has its answer",
                    hint=f"to measure again: tritonctl sweep run {found.model}",
                    details={"sweep": sweep, "state": found.state.value},
                )
            moved = unit.sweeps.move(sweep, SweepState.QUEUED, finished_at=None, message="")
            details: dict[str, Json] = {"measurements": unit.sweeps.measured(sweep), "was": found.state.value}
            unit.audit.append(AuditFact(principal.actor, Action.SWEEP_RESUMED, subjects(moved), details))
        return moved

    # look

    def list(
        self,
        principal: Principal,
        *,
        model: str | None = None,
        state: SweepState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[Sweep, ...]:
        """The newest first; `before` is the id at which the page before ended."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            return unit.sweeps.list(model=model, state=state, before=before, limit=limit)

    def get(self, principal: Principal, sweep: int) -> Sweep:
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            return unit.sweeps.get(sweep)

    def trials(self, principal: Principal, sweep: int) -> tuple[TrialSeen, ...]:
        """Tried and refused ones, by number."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            found = unit.sweeps.get(sweep)
            return _seen(found, unit.sweeps.trials(sweep), _measured(unit, sweep))

    def trial(self, principal: Principal, sweep: int, number: int) -> TrialSeen:
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            trial = unit.sweeps.trial(sweep, number)
            return _seen(unit.sweeps.get(sweep), (trial,), _measured(unit, sweep, trial.candidate))[0]

    def measurements(
        self, principal: Principal, sweep: int, *, trial: int | None = None, skip: int = 0, limit: int | None = None
    ) -> tuple[Measurement, ...]:
        """By round and place, after so many that are skipped."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            unit.sweeps.get(sweep)
            candidate = None if trial is None else unit.sweeps.trial(sweep, trial).candidate
            taken = unit.sweeps.measurements(sweep, candidate=candidate, skip=skip, limit=limit)
            return tuple(one.measurement for one in taken)

    def numbers(self, principal: Principal, sweep: int) -> dict[str, int]:
        """Of trials, by candidate."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            unit.sweeps.get(sweep)
            return {one.candidate: one.number for one in unit.sweeps.trials(sweep)}

    def fingerprints(self, principal: Principal, sweep: int) -> dict[str, Fingerprint]:
        """By digest, the machines that its blocks were measured on."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            unit.sweeps.get(sweep)
            return unit.sweeps.fingerprints(one.fingerprint for one in _measured(unit, sweep))

    def compare(self, principal: Principal, sweep: int, one: int, other: int) -> Comparison:
        """Trial `other` beside trial `one`, by the blocks of turns that both were in."""
        self._access.require(principal, Permission.SWEEP_READ)
        if one == other:
            raise InvalidInput(
                f"trial {one} is compared with itself", hint=f"tritonctl sweep compare {sweep}.1 {sweep}.2"
            )
        with self._storage.read() as unit:
            found = unit.sweeps.get(sweep)
            trials = [unit.sweeps.trial(sweep, number) for number in (one, other)]
            rows = _measured(unit, sweep)
        margin = float(spec_from_json(found.spec).search.margin_percent) / 100
        figures = compared(asked_of(found), rows, trials[0].candidate, trials[1].candidate, margin)
        return Comparison(trials[0], trials[1], margin, figures)

    def _draft(self, principal: Principal, spec: SweepSpec, environment: str | None, bench: str | None) -> Draft:
        self._access.require(principal, Permission.CATALOG_READ)
        if environment is not None:
            self._access.require(principal, Permission.ENVIRONMENT_READ)
        return self._drafts.draft(
            spec, environment=environment, bench=bench, started_by=principal.name, now=self._clock.now()
        )


def subjects(sweep: Sweep) -> dict[str, str]:
    """What an audit entry about the sweep is found by."""
    found = {"sweep": str(sweep.id), "model": sweep.model}
    return found if sweep.environment is None else {**found, "environment": sweep.environment}


def _measured(unit: UnitOfWork, sweep: int, candidate: str | None = None) -> tuple[Measurement, ...]:
    return tuple(one.measurement for one in unit.sweeps.measurements(sweep, candidate=candidate))


def _seen(sweep: Sweep, trials: tuple[Trial, ...], rows: tuple[Measurement, ...]) -> tuple[TrialSeen, ...]:
    """Of a trial that the answer has figures of, those."""
    figures = figures_seen(asked_of(sweep), rows)
    told = figures_of_answer(sweep)
    return tuple(
        TrialSeen(
            replace(one, sweep=sweep.id),
            told.get(one.name) or figures.get(one.candidate, {}),
            sum(1 for row in rows if row.order.candidate == one.candidate),
        )
        for one in trials
    )
