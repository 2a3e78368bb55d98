# Watches deployments: heals accepted content that is not served, reports everything else as drift.
from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Version
from controlplane.domain.converge import Desired, Effect, Observed, Step, differences, file_differences, outgrown
from controlplane.domain.environments import Deployment, Direction, ProofStatus
from controlplane.domain.servers import VersionState
from controlplane.errors import ControlPlaneError, LeaseLost, LoadUnknown
from controlplane.services.deployments import base_content
from controlplane.services.drift import audit_drift, unobserved
from controlplane.services.engine import Engine, Work
from controlplane.services.lease import Lease
from controlplane.services.ports import Clock, Connector, Target
from controlplane.services.verification import Verifier
from controlplane.storage.database import DatabaseFailed
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 3600.0


class Watcher:
    """Used by the worker, under a lease, on deployments that no change is active on and that have a revision: what lies
    in a repository before the first one is to be adopted, or not ours."""

    def __init__(self, storage: Storage, engine: Engine, verifier: Verifier, connect: Connector, clock: Clock) -> None:
        self._storage = storage
        self._engine = engine
        self._verifier = verifier
        self._connect = connect
        self._clock = clock
        self._kept: dict[tuple[str, str, int], float] = {}  # directories that could not leave, until when they stay

    def watch(self, lease: Lease) -> None:
        """One look at every server of the deployment; heals or reports, and says when it looked."""
        with self._storage.read() as unit:
            deployment = unit.environments.deployment(lease.environment, lease.model)
            if deployment is None or deployment.active_change is not None:
                return
            content = base_content(unit, deployment)
            policy = unit.environments.get(lease.environment).policy
            servers = unit.environments.servers(lease.environment)
            versions = tuple(unit.catalog.version(lease.model, number) for number in content.numbers)
        work = Work(lease, None, Direction.FORWARD, float(policy.load_timeout_seconds))
        drift: list[str] = []
        try:
            desired = self._engine.desired(lease.environment, lease.model, content)
            for spec in servers:
                drift += self._look(work, self._connect(spec), desired, versions)
        except (LeaseLost, *DatabaseFailed):
            raise
        except ControlPlaneError as error:
            _log.warning("a deployment cannot be observed", extra={"code": error.code, "reason": error.message})
            drift = unobserved(deployment, error.code)
        except Exception as error:
            _log.exception("a deployment cannot be observed")
            drift = unobserved(deployment, type(error).__name__)
        self._report(lease, deployment, drift)

    def _look(self, work: Work, target: Target, desired: Desired, versions: tuple[Version, ...]) -> list[str]:
        model = work.lease.model
        observed = self._engine.observe(target, model, desired)
        if desired.config is None or file_differences(observed, desired) or observed.mismatches:
            return list(differences(observed, desired))
        if not frozenset(desired.serving) <= observed.ready:
            if any(v.state == "LOADING" for v in observed.versions):
                return _unserved(observed.versions, desired)
            return self._heal(work, target, desired, observed, "accepted content was not served")
        if differences(observed, desired):
            return list(differences(observed, desired))
        with self._storage.read() as unit:
            broken_off = unit.changes.unfinished_healing(target.spec.name, model)
        if broken_off:
            # Its worker died before it could say so in the log, and may have left a hung backend process behind.
            return self._heal(work, target, desired, observed, "an earlier healing broke off")
        drift = self._ask(work, target, desired, observed, versions)
        if not drift:
            self._tidy(work, target, desired, observed)
        return drift

    def _ask(
        self, work: Work, target: Target, desired: Desired, observed: Observed, versions: tuple[Version, ...]
    ) -> list[str]:
        """Everything says READY: do the instances answer, and with the recorded answers?"""
        live = self._verifier.live(target, work.lease.model, observed)
        for version in versions:
            proof = self._verifier.instances(live, version)
            if proof.status is ProofStatus.FAILED:  # a single lost probe is no reason to reload
                proof = self._verifier.instances(live, version)
            if proof.status is ProofStatus.FAILED:
                return self._heal(work, target, desired, observed, proof.seen)
            answers = self._verifier.answers(live, version)
            if answers.status is ProofStatus.FAILED:
                return [f"{answers.name}: {answers.seen}"]
        return []

    def _heal(self, work: Work, target: Target, desired: Desired, observed: Observed, why: str) -> list[str]:
        """Load the accepted bytes again; a full reload where the server believes that it serves them, or answers that it
        loaded them and does not serve them."""
        model = work.lease.model
        before = () if target.keeper is None else target.keeper.backends(model)
        details: dict[str, Json] = {"server": target.spec.name, "why": why}
        subjects = {"environment": work.lease.environment, "model": model}
        unserved: list[str] = []

        def shown() -> AuditFact | None:
            try:
                unserved[:] = _unserved(target.server.versions(model), desired)
            except ControlPlaneError as error:  # the next watch heals again, and says so
                raise LoadUnknown(f"nobody could see what the load did: {error.message}") from error
            return None if unserved else AuditFact(SYSTEM, Action.DEPLOYMENT_HEALED, subjects, details)

        try:
            for touch in (True,) if observed.ready else (False, True):
                if touch:
                    self._engine.effect(work, target, Step(Effect.TOUCH, why), desired)
                self._engine.effect(work, target, Step(Effect.LOAD, why), desired, stale=before, fact=shown)
                if not unserved:
                    break
        except (LeaseLost, *DatabaseFailed):
            raise
        except ControlPlaneError as error:
            return [f"not served, and healing failed: {error.message}"]
        return unserved

    def _tidy(self, work: Work, target: Target, desired: Desired, observed: Observed) -> None:
        """Remove one directory that has been outgrown: at most one a look, as a change may be waiting for the lease. That
        it cannot leave harms nobody, so it is tried again much later, or by the next worker."""
        for step in outgrown(observed, desired):
            assert step.version is not None
            place = (target.spec.name, work.lease.model, step.version)
            if time.monotonic() < self._kept.get(place, 0.0):
                continue
            try:
                if missing := self._engine.missing_blobs(desired.retained[step.version]):
                    reason = f"the artifact store lacks {', '.join(missing)}: this may be the last copy"
                else:
                    self._engine.effect(work, target, step, desired)
                    return
            except (LeaseLost, *DatabaseFailed):
                raise
            except (ControlPlaneError, OSError) as error:
                reason = str(error)
            self._kept[place] = time.monotonic() + _AGAIN_SECONDS
            extra = {"server": target.spec.name, "model": work.lease.model, "version": step.version, "reason": reason}
            _log.warning("a version directory that only old revisions have stays", extra=extra)

    def _report(self, lease: Lease, deployment: Deployment, drift: list[str]) -> None:
        with self._storage.write() as unit:
            unit.environments.guard(
                lease.environment, lease.model, lease.token, drift=drift, watched_at=self._clock.now()
            )
            audit_drift(unit, deployment, drift)


def _unserved(versions: Iterable[VersionState], desired: Desired) -> list[str]:
    """In words, which of the versions that should serve do not."""
    states = {version.number: version.state for version in versions}
    found = []
    for number in sorted(desired.serving):
        match states.get(number):
            case "READY":
                pass
            case "LOADING":
                found.append(f"not served: version {number} is still loading")
            case _:
                found.append(f"not served: version {number}")
    return found
