# Webhooks.
from __future__ import annotations

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.webhooks import Event


def list_webhooks(caller: Caller, rooms: Rooms) -> types.Page[types.Webhook]:
    return types.Page(tuple(wire.of(types.Webhook, item) for item in rooms.webhooks.webhooks(caller)))


def add_webhook(body: types.NewWebhook, caller: Caller, rooms: Rooms) -> types.IssuedWebhook:
    """Told from the next audit entry on, by POSTs of JSON: in order, each at least once, again until the receiver answers
    2xx. `Tritonctl-Event` names the event, `Tritonctl-Delivery` the letter, the same at every attempt, and
    `Tritonctl-Signature: t=UNIX,v1=HEX` is the HMAC-SHA256 of `UNIX.BODY` under the secret, which is shown this once."""
    events = {wire.member(Event, name, "event") for name in body.events}
    issued = rooms.webhooks.add(caller, body.url, events, body.environment)
    return types.IssuedWebhook(wire.of(types.Webhook, issued.webhook), issued.secret)


def show_webhook(number: int, caller: Caller, rooms: Rooms) -> types.Webhook:
    return wire.of(types.Webhook, rooms.webhooks.get(caller, number))


def remove_webhook(number: int, caller: Caller, rooms: Rooms) -> None:
    """With its secret, and with what it was not told yet."""
    rooms.webhooks.remove(caller, number)


def disable_webhook(number: int, caller: Caller, rooms: Rooms) -> types.Webhook:
    return wire.of(types.Webhook, rooms.webhooks.disable(caller, number))


def enable_webhook(number: int, caller: Caller, rooms: Rooms) -> types.Webhook:
    """Told from the next audit entry on, not what happened meanwhile."""
    return wire.of(types.Webhook, rooms.webhooks.enable(caller, number))


def ping_webhook(number: int, caller: Caller, rooms: Rooms) -> types.Ping:
    """One letter at once, to a disabled webhook too. The answer says what came of it."""
    return wire.of(types.Ping, rooms.webhooks.ping(caller, number))
