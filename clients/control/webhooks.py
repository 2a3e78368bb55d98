# Webhooks: who is told what happens.
from __future__ import annotations

from clients.control.decode import decode
from clients.control.transport import Connection
from clients.control.types import IssuedWebhook, NewWebhook, Page, Ping, Webhook


class WebhooksRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, new: NewWebhook) -> IssuedWebhook:
        """The secret is in this answer and in no later one."""
        return decode(IssuedWebhook, self._connection.post("/v1/webhooks", new))

    def webhooks(self) -> Page[Webhook]:
        return self._connection.page(Webhook, "/v1/webhooks")

    def webhook(self, number: int) -> Webhook:
        return decode(Webhook, self._connection.get(f"/v1/webhooks/{number}"))

    def remove(self, number: int) -> None:
        self._connection.delete(f"/v1/webhooks/{number}")

    def disable(self, number: int) -> Webhook:
        return decode(Webhook, self._connection.put(f"/v1/webhooks/{number}/disabled"))

    def enable(self, number: int) -> Webhook:
        return decode(Webhook, self._connection.delete(f"/v1/webhooks/{number}/disabled"))

    def ping(self, number: int) -> Ping:
        return decode(Ping, self._connection.post(f"/v1/webhooks/{number}/ping"))
