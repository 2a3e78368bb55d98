# The lease loop: claim, converge or watch, release; and the chores that come with time.
from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

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

_GLANCE_SECONDS = 0.005
_IDLE_SECONDS = 0.25
"""Between looks at a database that says that nobody committed: what is due by time alone waits no longer."""


class Worker:
    """Any number of them share one database: a deployment's lease says whose turn it is.

    `chores` are done every `settings.checkpoint_seconds`, the first time at once; one that fails does not keep the
    others from being done. `companions` run beside the loop, in a thread each, and return when `stop` is set.
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
        companions: Sequence[Callable[[threading.Event], None]] = (),
    ) -> None:
        self._storage = storage
        self._driver = driver
        self._watcher = watcher
        self._clock = clock
        self._settings = settings
        self._name = name
        self._chores = tuple(chores)
        self._companions = tuple(companions)
        self._next_chores = clock.now()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Deployments are served side by side: one that waits for Triton, or fails, never keeps the
        others waiting."""
        threads = [threading.Thread(target=companion, args=(stop,), daemon=True) for companion in self._companions]
        for thread in threads:
            thread.start()
        self._serve(stop)
        for thread in threads:
            thread.join()

    def _serve(self, stop: threading.Event) -> None:
        running: dict[Deployment, Future[None]] = {}
        pause, idle = self._settings.poll_seconds, min(_IDLE_SECONDS, self._settings.watch_seconds)
        seen: int | None = None
        looked = -math.inf
        ended = threading.Event()  # a deployment is free again, and what waits for it need not wait for the next look
        with (
            ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="deployment") as pool,
            self._storage.database.commits() as commits,
        ):
            while not stop.wait(min(_GLANCE_SECONDS, pause)):
                if ended.is_set():
                    ended.clear()
                    seen, looked = None, -math.inf
                since = time.monotonic() - looked
                if since < pause:
                    continue
                try:
                    number = commits()
                    if number is not None and number == seen and since < idle:
                        continue
                    seen, looked = number, time.monotonic()
                    self._do_chores()
                    due = self._due()
                except Exception:  # whatever it is (a database that went away), the next pass must still come
                    looked = time.monotonic()
                    _log.exception("the worker could not look for work")
                    continue
                running = {key: future for key, future in running.items() if not future.done()}
                busy = {(key.environment, key.model) for key in running}
                for deployment, act in due:
                    if (deployment.environment, deployment.model) in busy:
                        seen = None  # look again soon, whether anybody commits or not
                        continue
                    running[deployment] = future = pool.submit(self._with_lease, deployment, act)
                    future.add_done_callback(partial(self._note, ended, looked))

    def _note(self, ended: threading.Event, begun: float, _future: Future[None]) -> None:
        """What ended at once, such as a lease that another worker has, is no reason to try again at once."""
        if time.monotonic() - begun > self._settings.poll_seconds:
            ended.set()

    def once(self) -> None:
        """One pass over what is due, one after the other."""
        self._do_chores()
        for deployment, act in self._due():
            self._with_lease(deployment, act)

    def _due(self) -> list[tuple[Deployment, Callable[[Lease], None]]]:
        watched_before = self._clock.now() - timedelta(seconds=self._settings.watch_seconds)
        with self._storage.read() as unit:
            deployments = unit.environments.waiting(watched_before)
            active = [d.active_change for d in deployments if d.active_change is not None]
            states = unit.changes.states(active) if active else {}
        due: list[tuple[Deployment, Callable[[Lease], None]]] = []
        for deployment in deployments:
            if deployment.active_change is not None:
                state = states.get(deployment.active_change)
                if state in (ChangeState.APPLYING, ChangeState.UNDOING) or (
                    state is ChangeState.STUCK and _watch_due(deployment, watched_before)
                ):
                    due.append((deployment, self._driver.drive))
            elif deployment.revision > 0:
                due.append((deployment, self._watcher.watch))
        return due

    def _with_lease(self, deployment: Deployment, act: Callable[[Lease], None]) -> None:
        """Nothing happens when another worker has the lease."""
        try:
            lease = Lease.claim(
                self._storage,
                self._clock,
                deployment.environment,
                deployment.model,
                owner=self._name,
                seconds=self._settings.lease_seconds,
            )
            if lease is None:
                return
            with lease:
                act(lease)
        except LeaseLost as error:
            _log.info("left to another worker", extra={"reason": error.message})
        except Exception:  # the thread must end well, and the log must say why it did not do its work
            _log.exception(
                "a deployment could not be served",
                extra={"environment": deployment.environment, "model": deployment.model},
            )

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


def _watch_due(deployment: Deployment, watched_before: datetime) -> bool:
    return deployment.watched_at is None or deployment.watched_at <= watched_before
