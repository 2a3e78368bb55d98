# Leases on deployments and sweeps: claimed, kept alive while a worker acts, released.
from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from controlplane.domain.sweeps import ACTIVE
from controlplane.errors import LeaseLost
from controlplane.services.ports import Clock
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_log = logging.getLogger(__name__)


class _Kept(ABC):
    """Held from the claim to the end of the `with` block. A thread renews it every third of its time, so that a process
    that dies or is stopped loses it, and one that waits for Triton does not."""

    def __init__(self, storage: Storage, clock: Clock, *, token: int, seconds: float, what: str) -> None:
        self._storage = storage
        self._clock = clock
        self.token = token
        self._seconds = seconds
        self._what = what
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {what}", daemon=True)

    @abstractmethod
    def _renew(self, unit: UnitOfWork, expires_at: datetime) -> None:
        """Raises LeaseLost when it is somebody else's."""

    @abstractmethod
    def _release(self, unit: UnitOfWork) -> None:
        """Raises LeaseLost when it is somebody else's."""

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
                self._release(unit)
        except LeaseLost:
            _log.info("lease was taken over", extra={"lease": self._what})

    def _keep(self) -> None:
        while not self._done.wait(self._seconds / 3):
            try:
                with self._storage.write() as unit:
                    self._renew(unit, self._clock.now() + timedelta(seconds=self._seconds))
            except LeaseLost:
                return  # the next guarded write of whoever acts under this lease says so
            except Exception:  # a database that went away may come back before the lease is over
                _log.exception("lease could not be renewed; trying again")


class Lease(_Kept):
    """On one deployment."""

    def __init__(
        self, storage: Storage, clock: Clock, environment: str, model: str, *, token: int, seconds: float
    ) -> None:
        super().__init__(storage, clock, token=token, seconds=seconds, what=f"{environment}/{model}")
        self.environment = environment
        self.model = model

    @classmethod
    def claim(
        cls, storage: Storage, clock: Clock, environment: str, model: str, *, owner: str, seconds: float
    ) -> Lease | None:
        """None when somebody else has it."""
        with storage.write() as unit:
            token = unit.environments.claim(environment, model, owner, clock.now(), seconds)
        return None if token is None else cls(storage, clock, environment, model, token=token, seconds=seconds)

    def _renew(self, unit: UnitOfWork, expires_at: datetime) -> None:
        unit.environments.renew(self.environment, self.model, self.token, expires_at)

    def _release(self, unit: UnitOfWork) -> None:
        unit.environments.release(self.environment, self.model, self.token)


class SweepLease(_Kept):
    """On one sweep."""

    def __init__(self, storage: Storage, clock: Clock, sweep: int, *, token: int, seconds: float) -> None:
        super().__init__(storage, clock, token=token, seconds=seconds, what=f"sweep {sweep}")
        self.sweep = sweep

    @classmethod
    def claim(cls, storage: Storage, clock: Clock, *, owner: str, seconds: float) -> SweepLease | None:
        """On the next sweep that waits for a worker; None when none does."""
        with storage.read() as unit:
            if not unit.sweeps.waits(clock.now()):
                return None
        with storage.write() as unit:
            claimed = unit.sweeps.claim(owner, clock.now(), seconds)
        return None if claimed is None else cls(storage, clock, claimed[0], token=claimed[1], seconds=seconds)

    def _renew(self, unit: UnitOfWork, expires_at: datetime) -> None:
        unit.sweeps.guard(self.sweep, self.token, lease_expires_at=expires_at)

    def _release(self, unit: UnitOfWork) -> None:
        """Whoever ended the sweep has given the lease back already."""
        if unit.sweeps.get(self.sweep).state in ACTIVE:
            unit.sweeps.guard(self.sweep, self.token, lease_owner=None, lease_expires_at=None)
