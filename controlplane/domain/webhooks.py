# Webhooks: which facts of the audit log are told to other systems, how a letter looks, how it is signed.
"""A letter is a POST of JSON with these headers:

Tritonctl-Event      the event's name
Tritonctl-Delivery   the same for every attempt at one letter, and for no other letter: what a receiver remembers
Tritonctl-Signature  `t=UNIX,v1=HEX`: HMAC-SHA256 over `UNIX.BODY` under the webhook's secret (its text, as it was shown)

Letters come in the order of the log, each at least once. Nothing is said that every viewer could not read in the log.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from socket import inet_aton
from urllib.parse import quote, urlsplit

from controlplane.domain.audit import Action, AuditEntry
from controlplane.domain.canonical import JsonObject, canonical_bytes
from controlplane.domain.times import format_instant
from controlplane.errors import InvalidInput

PING = "ping"
_LONGEST_URL = 2000
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::23",  # Amazon's pods
        "fd00:ec2::254",  # Amazon
        "fd20:ce::254",  # Google
    )
)
"""Those that are not link-local, as 169.254.169.254 is."""
_NAT64 = IPv6Network("64:ff9b::/96")
_FIRST_RETRY = timedelta(seconds=2)
_SLOWEST_RETRY = timedelta(minutes=10)


class Event(StrEnum):
    WAITS_FOR_APPROVAL = "change.waits_for_approval"
    APPLIED = "change.applied"
    UNDONE = "change.undone"
    STUCK = "change.stuck"
    PAUSED = "change.paused"
    DRIFTED = "deployment.drifted"
    HEALED = "deployment.healed"
    GLASS_BROKEN = "glass.broken"


EVENTS: Mapping[str, Event] = {
    Action.CHANGE_PROPOSED: Event.WAITS_FOR_APPROVAL,  # only where approvals are needed
    Action.CHANGE_REPLANNED: Event.WAITS_FOR_APPROVAL,  # the same
    Action.CHANGE_APPLIED: Event.APPLIED,
    Action.CHANGE_UNDONE: Event.UNDONE,
    Action.CHANGE_STUCK: Event.STUCK,
    Action.CHANGE_PAUSED: Event.PAUSED,
    Action.DEPLOYMENT_DRIFTED: Event.DRIFTED,
    Action.DEPLOYMENT_HEALED: Event.HEALED,
    Action.GLASS_BROKEN: Event.GLASS_BROKEN,
}
"""What an audit entry's action is told as; other actions are not told."""

# Digests and reasons; whatever else an entry says is looked up by who may.
_TOLD = frozenset({"plan", "base", "content", "revision", "reason", "justification", "code", "message", "why", "drift"})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told what, and how far it went. `events` empty is all of them, later ones too; `environment` None is every
    one. Everything before audit entry `cursor` was told or was not for it. `failures` counts attempts since the last
    success; `status` (HTTP) and `error` are the last attempt's, whichever there was."""

    id: int
    url: str
    events: frozenset[Event]
    environment: str | None
    created_by: str
    created_at: datetime
    disabled_at: datetime | None
    cursor: int
    failures: int = 0
    attempted_at: datetime | None = None
    status: int | None = None
    error: str | None = None
    next_attempt_at: datetime | None = None

    def event(self, entry: AuditEntry) -> Event | None:
        """What this webhook is told of the entry."""
        event = EVENTS.get(entry.action)
        if event is None or (self.events and event not in self.events):
            return None
        if self.environment is not None and entry.subjects.get("environment") != self.environment:
            return None
        return event


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one attempt: the receiver's HTTP status, or why there is none."""

    status: int | None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Letter:
    event: str
    delivery: str
    body: bytes

    def headers(self, secret: str, now: datetime) -> dict[str, str]:
        moment = int(now.timestamp())
        return {
            "Content-Type": "application/json",
            "Tritonctl-Event": self.event,
            "Tritonctl-Delivery": self.delivery,
            "Tritonctl-Signature": f"t={moment},v1={signature(secret, moment, self.body)}",
        }


def letter(webhook: int, event: Event, entry: AuditEntry) -> Letter:
    """The same bytes at every attempt. Links are paths of the HTTP API."""
    tree: JsonObject = {
        "event": event.value,
        "seq": entry.seq,
        "at": format_instant(entry.at),
        "actor": {"name": entry.actor.name, "kind": entry.actor.kind.value},
        "subjects": dict(entry.subjects),
        "details": {name: value for name, value in entry.details.items() if name in _TOLD},
        "links": _links(entry.subjects),
    }
    return Letter(event.value, f"{webhook}-{entry.seq}", canonical_bytes(tree))


def ping(webhook: int, actor: str, now: datetime, nonce: str) -> Letter:
    tree: JsonObject = {"event": PING, "at": format_instant(now), "actor": {"name": actor}, "webhook": webhook}
    return Letter(PING, f"{webhook}-ping-{nonce}", canonical_bytes(tree))


def signature(secret: str, moment: int, body: bytes) -> str:
    """`moment` is in seconds since 1970; a receiver refuses one that is minutes old."""
    return hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()


def retry_after(failures: int) -> timedelta:
    """The pause after that many failures in a row: 2 s, 4 s, … up to 10 minutes, and then for ever."""
    return min(_SLOWEST_RETRY, _FIRST_RETRY * (1 << min(failures - 1, 20)))


def check_url(url: str, *, link_local: bool = False) -> str:
    """`url`, or InvalidInput, which does not repeat it: its path or query may be the receiver's secret."""
    hint = "give an address such as https://HOST/PATH"
    if len(url) > _LONGEST_URL or not url.isascii() or any(not "!" <= letter <= "~" for letter in url):
        raise InvalidInput(f"the URL has more than {_LONGEST_URL} characters, or some that no URL has", hint=hint)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"the URL cannot be read: {error}", hint=hint) from None
    if parts.scheme not in {"http", "https"}:
        raise InvalidInput(f"letters are sent by http or https, not by {parts.scheme[:20]!r}", hint=hint)
    if not host:
        raise InvalidInput("the URL names no host", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("the URL has a name or a password in it", hint="the signature proves who sent a letter")
    if not link_local and off_limits(host):
        raise InvalidInput(
            "the URL leads to a link-local address or a cloud's metadata service",
            hint="where a receiver is there: TRITONCTL_WEBHOOKS__LINK_LOCAL=true, for api and worker",
        )
    return url


def off_limits(host: str) -> bool:
    """Whether `host` is an address, however it is written, of the link's own network or of a cloud's metadata service,
    which hands a machine's secrets to whoever asks from it. A name is not: it is to be looked up first."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ip_address(inet_aton(host))  # 0xa9fea9fe and 2852039166 are addresses too
        except (OSError, UnicodeEncodeError):
            return False
    within = _inner(address) if isinstance(address, IPv6Address) else None
    return any(one.is_link_local or one in _METADATA for one in (address, within) if one is not None)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, compatible, 6to4, or behind NAT64."""
    if address in _NAT64 or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def receiver(url: str) -> str:
    """As much of a URL as may be logged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _links(subjects: Mapping[str, str]) -> JsonObject:
    links: JsonObject = {}
    if "change" in subjects:
        links["change"] = f"/v1/changes/{quote(subjects['change'], safe='')}"
    if "environment" in subjects and "model" in subjects:
        environment, model = (quote(subjects[kind], safe="") for kind in ("environment", "model"))
        links["deployment"] = f"/v1/environments/{environment}/deployments/{model}"
    return links
