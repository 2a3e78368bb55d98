# Drives one active change to its end: forward to its plan, or back to its base.
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Version
from controlplane.domain.changes import ChangeKind, ChangeRequest, ChangeState, Plan
from controlplane.domain.converge import Desired, Effect, Found, Step
from controlplane.domain.environments import (
    NOTHING,
    Deployment,
    Direction,
    Environment,
    Proof,
    ProofStatus,
    Revision,
    RevisionContent,
    ServerSpec,
)
from controlplane.errors import ControlPlaneError, LeaseLost, LoadUnknown, VerificationFailed
from controlplane.services.drift import audit_drift
from controlplane.services.engine import Engine, Work
from controlplane.services.first_look import FirstLook, Look
from controlplane.services.latency import LatencyGates
from controlplane.services.lease import Lease
from controlplane.services.ports import Clock, Connector, Target
from controlplane.services.verification import Verifier
from controlplane.storage.database import DatabaseFailed
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_log = logging.getLogger(__name__)

ACCEPT = "inconclusive"
"""In `acknowledged`: a human accepts what verification cannot decide."""
RESTART = "restart_server"
"""In `acknowledged`: a human lets us kill the server that we launched."""
_STUCK_LOAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What one pass works on, read in one transaction."""

    environment: Environment
    deployment: Deployment
    request: ChangeRequest
    plan: Plan
    base: RevisionContent
    servers: tuple[ServerSpec, ...]
    touched: bool
    """Whether an effect was begun for this change, or for one that it pre-empts."""
    found: Found | None
    """What lay there before the first change, which is what undoing it leads to."""

    @property
    def restores(self) -> bool:
        """Whether it goes back to what was found: an undo does, and a rollback to nothing that pre-empts."""
        return self.found is not None and (
            self.deployment.direction is Direction.BACK or self.request.kind is ChangeKind.ROLLBACK
        )

    @property
    def goal(self) -> RevisionContent:
        return self.base if self.deployment.direction is Direction.BACK else self.plan.desired


class DeploymentDriver:
    """Used by the worker, under a lease. What it decides is guarded by the lease's token."""

    def __init__(
        self,
        storage: Storage,
        engine: Engine,
        verifier: Verifier,
        connect: Connector,
        clock: Clock,
        *,
        latency: LatencyGates,
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._first_look = FirstLook(storage, engine)
        self._verifier = verifier
        self._latency = latency
        self._connect = connect
        self._clock = clock

    def drive(self, lease: Lease) -> None:
        """Until the change is applied, undone, paused or stuck. LeaseLost is not an error: another worker goes on."""
        while (situation := self._situation(lease)) is not None:
            try:
                if not situation.touched and self._left(lease, situation):
                    return
                proofs = self._bring(lease, situation)
            except (LeaseLost, *DatabaseFailed):
                raise
            except ControlPlaneError as error:
                if not self._failed(lease, situation, error):
                    return
                continue
            except OSError as error:  # a full disk, a repository that went away: nothing else can be told apart here
                if not self._failed(lease, situation, VerificationFailed(f"the repository failed: {error}")):
                    return
                continue
            except Exception as error:  # a mistake of ours or of a library: the change must not hang on it for ever
                _log.exception("a pass failed unexpectedly", extra={"change": situation.request.id})
                if not self._failed(lease, situation, VerificationFailed(f"{type(error).__name__}: {error}")):
                    return
                continue
            self._ended(lease, situation, proofs)
            return

    def _situation(self, lease: Lease) -> Situation | None:
        """None when there is nothing to drive."""
        with self._storage.read() as unit:
            deployment = unit.environments.deployment(lease.environment, lease.model)
            if deployment is None or deployment.active_change is None:
                return None
            request = unit.changes.get(deployment.active_change)
            if request.state is ChangeState.PAUSED:
                return None
            chain = _chain(unit, request) if deployment.revision == 0 else (request,)
            return Situation(
                environment=unit.environments.get(lease.environment),
                deployment=deployment,
                request=request,
                plan=unit.changes.plan(request),
                base=base_content(unit, deployment),
                servers=unit.environments.servers(lease.environment),
                touched=_touched(unit, deployment, chain),
                found=next((Found.from_json(change.found) for change in chain if change.found is not None), None),
            )

    def _left(self, lease: Lease, at: Situation) -> bool:
        """Before the first effect: end a change that must not touch what lies there, or that has nothing to undo."""
        if at.deployment.direction is Direction.BACK or at.request.kind is ChangeKind.ROLLBACK:
            message = at.request.message or "nothing had been touched yet"
            self._settle(partial(self._leave, lease=lease, at=at, look=Look(message)))
            return True
        if at.deployment.revision == 0 and at.plan.desired.config is None:
            look = Look("nothing was ever accepted here: what lies there is not ours to remove")
            self._settle(partial(self._leave, lease=lease, at=at, look=look))
            return True
        work = Work(lease, at.request.id, Direction.FORWARD, float(at.environment.policy.load_timeout_seconds))
        for spec in at.servers:
            target = self._connect(spec)
            if at.deployment.revision == 0:
                look = self._first_look.at_nothing(work, target, at.plan.desired)
            else:
                look = self._first_look.at_base(work, target, at.base)
            if look.refusal:
                self._settle(partial(self._leave, lease=lease, at=at, look=look))
                return True
            if look.found is not None:
                self._settle(partial(self._keep, lease=lease, at=at, found=look.found))
        return False

    def _bring(self, lease: Lease, at: Situation) -> tuple[Proof, ...]:
        """Every server of the environment, one after the other; the proofs of all."""
        stuck = at.request.state is ChangeState.STUCK
        seconds = float(at.environment.policy.load_timeout_seconds)
        work = Work(
            lease,
            at.request.id,
            at.deployment.direction,
            min(seconds, _STUCK_LOAD_SECONDS) if stuck else seconds,
        )
        if at.restores:
            return self._restore(work, at)
        model = lease.model
        desired = self._engine.desired(lease.environment, model, at.goal)
        other = at.plan.desired if at.goal is at.base else at.base
        with self._storage.read() as unit:
            known = unit.catalog.numbered(model, {*at.goal.numbers, *other.numbers})
        versions, before = (tuple(known[number] for number in content.numbers) for content in (at.goal, other))
        return self._prove(work, at, desired, versions, before)

    def _restore(self, work: Work, at: Situation) -> tuple[Proof, ...]:
        """Put back what was found. A version that lay there unserved is written first: no accepted revision has it."""
        assert at.found is not None
        model = work.lease.model
        with self._storage.read() as unit:
            known = {number: unit.catalog.version(model, number) for number in at.found.versions}
            before = _versions(unit, model, at.plan.desired)
        desired = at.found.desired({number: version.manifest for number, version in known.items()})
        everything = replace(desired, serving={**desired.serving, **desired.retained})
        for spec in at.servers:
            target = self._connect(spec)
            for number in sorted(desired.retained.keys() - target.repository.observe(model).versions.keys()):
                step = Step(Effect.WRITE_VERSION, f"version {number} lay there before the change", number)
                self._engine.effect(work, target, step, everything)
        versions = tuple(known[number] for number in at.found.ready)
        return self._prove(work, at, desired, versions, before)

    def _prove(
        self, work: Work, at: Situation, desired: Desired, versions: Sequence[Version], before: Sequence[Version]
    ) -> tuple[Proof, ...]:
        proofs: list[Proof] = []
        for spec in at.servers:
            target = self._connect(spec)
            if RESTART in at.request.acknowledged and target.keeper is not None:
                self._engine.restart(work, target, desired)
                self._settle(partial(self._drop, lease=work.lease, at=at, word=RESTART))
            shown = self._show(work, target, desired, versions, before)
            if any(proof.status is ProofStatus.FAILED for proof in shown):
                # The files are right and the answers are not: Triton may hold other bytes, or a dead backend.
                self._engine.effect(work, target, Step(Effect.TOUCH, "answers contradict the files"), desired)
                shown = self._show(work, target, desired, versions, before)
            proofs += shown
            if not any(proof.status is ProofStatus.FAILED for proof in proofs):
                proofs += self._latency.prove(
                    work, target, at.request, at.plan, versions, accepted=ACCEPT in at.request.acknowledged
                )
        failed = [proof for proof in proofs if proof.status is ProofStatus.FAILED]
        if failed:
            raise VerificationFailed(f"{failed[0].name}: {failed[0].seen}")
        return tuple(proofs)

    def _show(
        self, work: Work, target: Target, desired: Desired, versions: Sequence[Version], before: Sequence[Version]
    ) -> tuple[Proof, ...]:
        observed = self._engine.bring(work, target, desired)
        return self._verifier.verify(
            target, work.lease.model, desired=desired, observed=observed, versions=versions, before=before
        )

    # ends of a pass

    def _failed(self, lease: Lease, at: Situation, error: ControlPlaneError) -> bool:
        """Record a failed pass; True when there is a next one."""
        _log.warning("a pass failed", extra={"change": at.request.id, "code": error.code, "reason": error.message})
        back = at.deployment.direction is Direction.BACK
        if isinstance(error, LoadUnknown) or back:
            self._stick(lease, at, error)
            return False
        self._settle(lambda unit: self._turn_back(unit, lease, at, error))
        return True

    def _stick(self, lease: Lease, at: Situation, error: ControlPlaneError) -> None:
        def settle(unit: UnitOfWork) -> None:
            unit.environments.guard(lease.environment, lease.model, lease.token, watched_at=self._clock.now())
            if at.request.state is ChangeState.STUCK:
                return
            unit.changes.move(at.request.id, ChangeState.STUCK, message=error.message)
            unit.audit.append(_fact(at, Action.CHANGE_STUCK, {"code": error.code, "message": error.message}))

        self._settle(settle)

    def _turn_back(self, unit: UnitOfWork, lease: Lease, at: Situation, error: ControlPlaneError) -> None:
        """Once per change, before the first undo effect, and never forward again."""
        unit.environments.guard(lease.environment, lease.model, lease.token, direction=Direction.BACK.value)
        unit.changes.move(at.request.id, ChangeState.UNDOING, message=error.message)
        unit.audit.append(_fact(at, Action.CHANGE_TURNED_BACK, {"code": error.code, "message": error.message}))

    def _ended(self, lease: Lease, at: Situation, proofs: tuple[Proof, ...]) -> None:
        shown: list[Json] = [proof.to_json() for proof in proofs]
        if at.deployment.direction is Direction.BACK or at.restores:
            self._settle(lambda unit: self._undone(unit, lease, at, shown))
            return
        unclear = [proof for proof in proofs if proof.status is ProofStatus.INCONCLUSIVE]
        if unclear and ACCEPT not in at.request.acknowledged:
            message = f"{unclear[0].name}: {unclear[0].seen}"
            self._settle(lambda unit: self._pause(unit, lease, at, message, shown))
            return
        self._settle(lambda unit: self._record(unit, lease, at, shown))

    def _pause(self, unit: UnitOfWork, lease: Lease, at: Situation, message: str, shown: list[Json]) -> None:
        unit.environments.guard(lease.environment, lease.model, lease.token)
        self._forward(unit, at)
        unit.changes.move(at.request.id, ChangeState.PAUSED, message=message, proofs=shown)
        unit.audit.append(_fact(at, Action.CHANGE_PAUSED, {"message": message}))

    def _record(self, unit: UnitOfWork, lease: Lease, at: Situation, shown: list[Json]) -> None:
        """The new revision, the closed request and the audit entry, guarded by the lease's token."""
        number = at.deployment.revision + 1
        unit.environments.guard(
            lease.environment, lease.model, lease.token, revision=number, active_change=None, drift=[]
        )
        now = self._clock.now()
        revision = Revision(
            environment=lease.environment,
            model=lease.model,
            number=number,
            content=at.plan.desired,
            change=at.request.id,
            accepted_at=now,
            proofs=tuple(proof for proof in shown if isinstance(proof, dict)),
        )
        unit.environments.add_revision(revision)
        self._forward(unit, at)
        unit.changes.move(at.request.id, ChangeState.APPLIED, message="", proofs=shown, finished_at=now)
        details = {
            "revision": number,
            "plan": at.plan.digest,
            "base": at.plan.base_digest,
            "content": at.plan.desired.digest,
            "proofs": shown,
        }
        unit.audit.append(_fact(at, Action.CHANGE_APPLIED, details))

    def _undone(self, unit: UnitOfWork, lease: Lease, at: Situation, shown: list[Json]) -> None:
        unit.environments.guard(
            lease.environment, lease.model, lease.token, active_change=None, direction=Direction.FORWARD.value
        )
        if at.request.state is ChangeState.STUCK:
            unit.changes.move(at.request.id, ChangeState.UNDOING)
        unit.changes.move(at.request.id, ChangeState.UNDONE, proofs=shown, finished_at=self._clock.now())
        details: dict[str, Json] = {"revision": at.deployment.revision, "content": at.base.digest, "proofs": shown}
        unit.audit.append(_fact(at, Action.CHANGE_UNDONE, details))

    def _drop(self, unit: UnitOfWork, lease: Lease, at: Situation, word: str) -> None:
        unit.environments.guard(lease.environment, lease.model, lease.token)
        words = unit.changes.get(at.request.id).acknowledged
        unit.changes.edit(at.request.id, acknowledged=[other for other in words if other != word])

    def _keep(self, unit: UnitOfWork, lease: Lease, at: Situation, found: Found) -> None:
        unit.environments.guard(lease.environment, lease.model, lease.token)
        unit.changes.edit(at.request.id, found=found.to_json())

    def _leave(self, unit: UnitOfWork, lease: Lease, at: Situation, look: Look) -> None:
        """Undone without any effect."""
        now = self._clock.now()
        seen = {"drift": list(look.drift), "watched_at": now} if look.drift else {}
        unit.environments.guard(
            lease.environment,
            lease.model,
            lease.token,
            active_change=None,
            direction=Direction.FORWARD.value,
            **seen,
        )
        if look.drift:
            audit_drift(unit, at.deployment, look.drift)
        unit.changes.move(at.request.id, ChangeState.UNDONE, message=look.refusal, finished_at=now)
        details: dict[str, Json] = {"revision": at.deployment.revision, "message": look.refusal}
        unit.audit.append(_fact(at, Action.CHANGE_UNDONE, details))

    def _forward(self, unit: UnitOfWork, at: Situation) -> None:
        """A stuck change that went on by itself passes through applying, as the table of transitions asks."""
        if at.request.state is ChangeState.STUCK:
            unit.changes.move(at.request.id, ChangeState.APPLYING)

    def _settle(self, write: Callable[[UnitOfWork], None]) -> None:
        with self._storage.write() as unit:
            write(unit)


def base_content(unit: UnitOfWork, deployment: Deployment) -> RevisionContent:
    """Content of the deployment's current revision."""
    if deployment.revision == 0:
        return NOTHING
    return unit.environments.revision(deployment.environment, deployment.model, deployment.revision).content


def _chain(unit: UnitOfWork, request: ChangeRequest) -> tuple[ChangeRequest, ...]:
    """The change, what it pre-empted, what that pre-empted: a rollback goes on from there. The newest first."""
    preempted = {
        entry.details["by"]: int(entry.subjects["change"])
        for entry in unit.audit.entries(subject=("model", request.model), action=Action.CHANGE_PREEMPTED.value)
    }
    chain = [request]
    while (number := preempted.get(str(chain[-1].id))) is not None:
        chain.append(unit.changes.get(number))
    return tuple(chain)


def _touched(unit: UnitOfWork, deployment: Deployment, chain: Sequence[ChangeRequest]) -> bool:
    """Rollback and reconciliation bring back what was accepted, whatever lies there; before revision 1 nothing was."""
    if deployment.revision > 0 and chain[0].kind is not ChangeKind.CHANGE:
        return True
    return any(unit.changes.journal(change.id) for change in chain)


def _versions(unit: UnitOfWork, model: str, content: RevisionContent) -> tuple[Version, ...]:
    return tuple(unit.catalog.version(model, number) for number in content.numbers)


def _fact(at: Situation, action: Action, details: dict[str, Any]) -> AuditFact:
    subjects = {
        "environment": at.request.environment,
        "model": at.request.model,
        "change": str(at.request.id),
    }
    return AuditFact(SYSTEM, action, subjects, details)
