# The lease loop: claim, converge or watch, release; and the chores that come with time.
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from controlplane.domain.changes import ChangeState
from controlplane.domain.environments import Deployment
from controlplane.errors import ControlPlaneError, LeaseLost
from controlplane.services.deployments import DeploymentDriver
from controlplane.services.lease import Lease
from controlplane.services.ports import Clock
from controlplane.services.watch import Watcher
from controlplane.settings import WorkerSettings
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)


class Worker:
    """Any number of them share one database: a deployment's lease says whose turn it is.

    `chores` are done every `settings.checkpoint_seconds`, the first time at once; one that fails does not keep the
    others from being done.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        settings: WorkerSettings,
        *,
        driver: DeploymentDriver,
        watcher: Watcher,
        name: str,
        chores: Sequence[Callable[[], object]],
    ) -> None:
        self._storage = storage
        self._driver = driver
        self._watcher = watcher
        self._clock = clock
        self._settings = settings
        self._name = name
        self._chores = tuple(chores)
        self._next_chores = clock.now()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. An error in one deployment never keeps the others waiting."""
        while not stop.is_set():
            try:
                busy = self.once()
            except Exception:  # whatever it is, the next deployment must still be served
                _log.exception("the worker's pass failed")
                busy = False
            if not busy:
                stop.wait(self._settings.poll_seconds)

    def once(self) -> bool:
        """One pass over what is due; True when something was."""
        self._do_chores()
        with self._storage.read() as unit:
            deployments = unit.environments.deployments()
            states = {request.id: request.state for request in unit.changes.active()}
        busy = False
        for deployment in deployments:
            state = states.get(deployment.active_change) if deployment.active_change is not None else None
            if deployment.active_change is not None:
                if state in (ChangeState.APPLYING, ChangeState.UNDOING) or (
                    state is ChangeState.STUCK and self._watch_due(deployment)
                ):
                    busy |= self._with_lease(deployment, self._driver.drive)
            elif deployment.revision > 0 and self._watch_due(deployment):
                busy |= self._with_lease(deployment, self._watcher.watch)
        return busy

    def _with_lease(self, deployment: Deployment, act: Callable[[Lease], None]) -> bool:
        lease = Lease.claim(
            self._storage,
            self._clock,
            deployment.environment,
            deployment.model,
            owner=self._name,
            seconds=self._settings.lease_seconds,
        )
        if lease is None:
            return False
        with lease:
            try:
                act(lease)
            except LeaseLost as error:
                _log.info("left to another worker", extra={"reason": error.message})
            except ControlPlaneError as error:
                _log.warning(
                    "a deployment could not be served",
                    extra={"environment": lease.environment, "model": lease.model, "reason": error.message},
                )
        return True

    def _watch_due(self, deployment: Deployment) -> bool:
        if deployment.watched_at is None:
            return True
        return self._clock.now() >= deployment.watched_at + timedelta(seconds=self._settings.watch_seconds)

    def _do_chores(self) -> None:
        now = self._clock.now()
        if now < self._next_chores:
            return
        self._next_chores = now + timedelta(seconds=self._settings.checkpoint_seconds)
        for chore in self._chores:
            try:
                chore()
            except ControlPlaneError as error:
                _log.exception("a chore failed", extra={"code": error.code, "reason": error.message})
