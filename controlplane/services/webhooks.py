# Use cases of webhooks: who is told what happens.
from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field

from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.webhooks import Event, Outcome, Webhook, check_url, ping, receiver
from controlplane.services.access import AccessService
from controlplane.services.ports import Clock, Poster
from controlplane.storage.unit_of_work import Storage, UnitOfWork

SECRET_PREFIX = "tcw_"  # noqa: S105 - so that leaked secrets can be searched for


@dataclass(frozen=True, slots=True)
class IssuedWebhook:
    """`secret` is what letters are signed with: it is shown to whoever added the webhook, and never again."""

    webhook: Webhook
    secret: str = field(repr=False)


class WebhookService:
    """A worker posts from its own network to whatever address is given here, so this is for admins; and not to where a
    machine's secrets are, unless `link_local`."""

    def __init__(
        self, storage: Storage, access: AccessService, clock: Clock, post: Poster, *, link_local: bool = False
    ) -> None:
        self._storage = storage
        self._access = access
        self._clock = clock
        self._post = post
        self._link_local = link_local

    def add(
        self, principal: Principal, url: str, events: Collection[Event] = (), environment: str | None = None
    ) -> IssuedWebhook:
        """Told from the next audit entry on. Raises InvalidInput for the URL, and NotFound for the environment."""
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        check_url(url, link_local=self._link_local)
        secret = SECRET_PREFIX + secrets.token_urlsafe(32)
        with self._storage.write() as unit:
            if environment is not None:
                unit.environments.get(environment)
            wish = Webhook(
                id=0,
                url=url,
                events=frozenset(events),
                environment=environment,
                created_by=principal.name,
                created_at=self._clock.now(),
                disabled_at=None,
                cursor=unit.audit.size(),
            )
            added = unit.webhooks.add(wish, secret)
            told: list[Json] = [event.value for event in sorted(added.events)]
            self._audit(unit, principal, Action.WEBHOOK_ADDED, added, {"events": told})
        return IssuedWebhook(added, secret)

    def webhooks(self, principal: Principal) -> tuple[Webhook, ...]:
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.read() as unit:
            return unit.webhooks.all()

    def get(self, principal: Principal, number: int) -> Webhook:
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.read() as unit:
            return unit.webhooks.get(number)

    def remove(self, principal: Principal, number: int) -> None:
        """With its secret, and with what it was not told yet."""
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.write() as unit:
            removed = unit.webhooks.get(number)
            unit.webhooks.remove(number)
            self._audit(unit, principal, Action.WEBHOOK_REMOVED, removed)

    def disable(self, principal: Principal, number: int) -> Webhook:
        """It is told nothing more, not even what it waits for. Harmless when it is disabled."""
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.write() as unit:
            before = unit.webhooks.get(number)
            if before.disabled_at is not None:
                return before
            disabled = unit.webhooks.disable(number, self._clock.now())
            self._audit(unit, principal, Action.WEBHOOK_DISABLED, disabled)
        return disabled

    def enable(self, principal: Principal, number: int) -> Webhook:
        """Told from the next audit entry on, not what happened meanwhile. Harmless when it is enabled."""
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.write() as unit:
            before = unit.webhooks.get(number)
            if before.disabled_at is None:
                return before
            enabled = unit.webhooks.enable(number, unit.audit.size())
            self._audit(unit, principal, Action.WEBHOOK_ENABLED, enabled)
        return enabled

    def ping(self, principal: Principal, number: int) -> Outcome:
        """One letter at once, to a disabled webhook too; its delivery state stays what it is."""
        self._access.require(principal, Permission.WEBHOOK_MANAGE)
        with self._storage.read() as unit:
            webhook, secret = unit.webhooks.get(number), unit.webhooks.secret(number)
        now = self._clock.now()
        letter = ping(number, principal.name, now, secrets.token_hex(8))
        return self._post(webhook.url, letter.headers(secret, now), letter.body)

    def _audit(
        self,
        unit: UnitOfWork,
        principal: Principal,
        action: Action,
        webhook: Webhook,
        details: dict[str, Json] | None = None,
    ) -> None:
        subjects = {"webhook": str(webhook.id)}
        if webhook.environment is not None:
            subjects["environment"] = webhook.environment
        told = {"receiver": receiver(webhook.url), **(details or {})}
        unit.audit.append(AuditFact(principal.actor, action, subjects, told))
