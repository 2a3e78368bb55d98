# Telling webhooks what the audit log says: the log is the outbox, and each webhook has a cursor in it.
from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta

from controlplane.domain.audit import AuditEntry
from controlplane.domain.blockers import needed
from controlplane.domain.webhooks import Event, Letter, Outcome, Webhook, letter, retry_after
from controlplane.errors import LeaseLost
from controlplane.services.change_views import situation
from controlplane.services.ports import Clock, Poster
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
CLAIM_SECONDS = 30.0
"""Several times what one letter takes. A worker that dies while it delivers is waited for so long."""
_CHUNK = 100


class Courier:
    """Any number of them share one database: a webhook's claim says whose turn it is. Letters to one webhook go one after
    the other, those to several at the same time, each webhook in a thread of its own: a slow receiver delays itself.

    Delivery is at least once: what a worker sent before it died, another sends again.
    """

    def __init__(self, storage: Storage, clock: Clock, post: Poster) -> None:
        self._storage = storage
        self._clock = clock
        self._post = post
        self._under_way: dict[int, threading.Thread] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set and the letters under way have arrived or failed."""
        while not stop.wait(_POLL_SECONDS):
            try:
                self.begin(stop)
            except Exception:  # the database may be away for a while
                _log.exception("webhooks could not be looked through")
        for thread in self._under_way.values():
            thread.join()

    def begin(self, stop: threading.Event) -> None:
        """Start a thread for every webhook that is due, and wait for none."""
        self._under_way = {number: thread for number, thread in self._under_way.items() if thread.is_alive()}
        with self._storage.read() as unit:
            due = unit.webhooks.due(self._clock.now())
        for number in due:
            if number not in self._under_way:
                thread = threading.Thread(
                    target=self.deliver, args=(number, stop), name=f"webhook {number}", daemon=True
                )
                self._under_way[number] = thread
                thread.start()

    def deliver(self, number: int, stop: threading.Event) -> None:
        """All that the webhook is to be told, up to the first failure. Nothing to do when it is not this one's turn."""
        try:
            with self._storage.write() as unit:
                token = unit.webhooks.claim(number, self._clock.now(), CLAIM_SECONDS)
            if token is None:
                return
            while not stop.is_set() and self._next(number, token):
                pass
            with self._storage.write() as unit:
                unit.webhooks.settle(number, token, claimed_until=None)
        except LeaseLost as error:
            _log.info("left to others", extra={"reason": error.message})
        except Exception:  # the claim runs out, and it is tried again
            _log.exception("a webhook could not be delivered to", extra={"webhook": number})

    def _next(self, number: int, token: int) -> bool:
        """Deliver one letter, or pass over entries that are not for it. False: there is no more, or it failed."""
        with self._storage.read() as unit:
            webhook = unit.webhooks.held(number, token)
            entries = unit.webhooks.entries(webhook.cursor, _CHUNK)
            found = self._first(unit, webhook, entries)
            secret = unit.webhooks.secret(number)
        if not entries:
            return False
        if found is None:
            self._settle(number, token, cursor=entries[-1].seq + 1)
            return True
        seq, told = found
        outcome = self._post(webhook.url, told.headers(secret, self._clock.now()), told.body)
        self._record(webhook, token, seq, told, outcome)
        return outcome.delivered

    def _first(self, unit: UnitOfWork, webhook: Webhook, entries: Sequence[AuditEntry]) -> tuple[int, Letter] | None:
        for entry in entries:
            event = webhook.event(entry)
            if event is not None and (event is not Event.WAITS_FOR_APPROVAL or self._waits(unit, entry)):
                return entry.seq, letter(webhook.id, event, entry)
        return None

    def _waits(self, unit: UnitOfWork, entry: AuditEntry) -> bool:
        """Whether policy asks for approvals of the change; it is told even if they were given meanwhile."""
        request = unit.changes.get(int(entry.subjects["change"]))
        plan = unit.changes.plan(request)
        return needed(request, plan, situation(unit, request, plan, self._clock.now())) > 0

    def _record(self, webhook: Webhook, token: int, seq: int, told: Letter, outcome: Outcome) -> None:
        now = self._clock.now()
        seen = {"attempted_at": now, "status": outcome.status, "error": outcome.error}
        if outcome.delivered:
            self._settle(webhook.id, token, cursor=seq + 1, failures=0, next_attempt_at=None, **seen)
            return
        failures = webhook.failures + 1
        again = now + retry_after(failures)
        self._settle(webhook.id, token, failures=failures, next_attempt_at=again, **seen)
        _log.warning(
            "a letter was not delivered",
            extra={"delivery": told.delivery, "status": outcome.status, "reason": outcome.error, "failures": failures},
        )

    def _settle(self, number: int, token: int, **values: object) -> None:
        """And keep the claim."""
        until = self._clock.now() + timedelta(seconds=CLAIM_SECONDS)
        with self._storage.write() as unit:
            unit.webhooks.settle(number, token, claimed_until=until, **values)
