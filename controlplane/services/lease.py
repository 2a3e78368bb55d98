# The lease on one deployment: claimed, kept alive while a worker acts, released.
from __future__ import annotations

import logging
import threading
from datetime import timedelta
from types import TracebackType
from typing import Self

from controlplane.errors import LeaseLost
from controlplane.services.ports import Clock
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)


class Lease:
    """Held from `claim` to the end of the `with` block. A thread renews it every third of its time, so that a process
    that dies or is stopped loses it, and one that waits for Triton does not."""

    def __init__(
        self, storage: Storage, clock: Clock, environment: str, model: str, *, token: int, seconds: float
    ) -> None:
        self._storage = storage
        self._clock = clock
        self.environment = environment
        self.model = model
        self.token = token
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {environment}/{model}", daemon=True)

    @classmethod
    def claim(
        cls, storage: Storage, clock: Clock, environment: str, model: str, *, owner: str, seconds: float
    ) -> Lease | None:
        """None when somebody else has it."""
        with storage.write() as unit:
            token = unit.environments.claim(environment, model, owner, clock.now(), seconds)
        return None if token is None else cls(storage, clock, environment, model, token=token, seconds=seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        try:
            with self._storage.write() as unit:
                unit.environments.release(self.environment, self.model, self.token)
        except LeaseLost:
            _log.info("lease was taken over", extra={"environment": self.environment, "model": self.model})

    def _keep(self) -> None:
        while not self._done.wait(self._seconds / 3):
            try:
                with self._storage.write() as unit:
                    expires_at = self._clock.now() + timedelta(seconds=self._seconds)
                    unit.environments.renew(self.environment, self.model, self.token, expires_at)
            except LeaseLost:
                return  # the next guarded write of whoever acts under this lease says so
            except Exception:  # a database that went away may come back before the lease is over
                _log.exception("lease could not be renewed; trying again")
