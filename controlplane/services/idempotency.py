# Requests that carry an Idempotency-Key: claimed before their work, answered after it.
from __future__ import annotations

from controlplane.domain.access import Principal
from controlplane.errors import Conflict
from controlplane.services.ports import Clock
from controlplane.storage.idempotency import KeptAnswer
from controlplane.storage.unit_of_work import Storage

__all__ = ["IdempotencyService", "KeptAnswer"]

_UNANSWERED = KeptAnswer(0, "")


class IdempotencyService:
    """A key is claimed in a transaction of its own, so that of two requests at once only one does the work. A claim that
    was never answered (the process died in the work) stays: whether the work was done is then not known."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    def begin(self, principal: Principal, key: str, request_digest: str) -> KeptAnswer | None:
        """The answer to the same request; None when the key is now claimed for this one. Raises IdempotencyMismatch for
        another request, and Conflict while the first one has no answer."""
        now = self._clock.now()
        with self._storage.write() as unit:
            kept = unit.idempotency.find(principal.id, key, request_digest, now)
            if kept is None:
                unit.idempotency.keep(principal.id, key, request_digest, _UNANSWERED, now)
                return None
        if kept == _UNANSWERED:
            raise Conflict(
                f"the request with Idempotency-Key {key!r} has no answer yet",
                hint="wait for it; if its process died, look whether its work was done, and use a new key",
            )
        return kept

    def finish(self, principal: Principal, key: str, answer: KeptAnswer) -> None:
        with self._storage.write() as unit:
            unit.idempotency.answer(principal.id, key, answer)

    def abandon(self, principal: Principal, key: str) -> None:
        """The work was refused or failed, and may be tried again with the same key."""
        with self._storage.write() as unit:
            unit.idempotency.forget(principal.id, key)
