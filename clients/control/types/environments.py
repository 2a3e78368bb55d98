# Environments, servers, deployments and revisions on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject, Request
from clients.control.types.catalog import File


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    description: str
    policy: JsonObject
    policy_number: int
    created_at: str


@dataclass(frozen=True, slots=True)
class NewEnvironment(Request):
    """What `policy` leaves out keeps its default."""

    name: str
    description: str = ""
    policy: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """`state` is what the worker's last look found, at `watched_at`: `reachable`, `cannot be observed (CODE)`, or
    `unknown` while nothing is deployed on it."""

    name: str
    environment: str
    address: str
    metrics_url: str | None
    repository: str
    admin_key: str | None
    log_file: str | None
    home: str | None
    tls_ca: str | None
    tls_certificate: str | None
    tls_key: str | None
    created_at: str
    state: str
    watched_at: str | None


@dataclass(frozen=True, slots=True)
class NewServer(Request):
    """`repository` and the files are paths as the worker sees them; `admin_key` names where the restricted-protocol key is
    found, never the key."""

    name: str
    address: str
    repository: str
    metrics_url: str | None = None
    admin_key: str | None = None
    log_file: str | None = None
    home: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None


@dataclass(frozen=True, slots=True)
class ServerChanges(Request):
    """None leaves a field as it is, an empty text removes it."""

    address: str | None = None
    repository: str | None = None
    metrics_url: str | None = None
    admin_key: str | None = None
    log_file: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None


@dataclass(frozen=True, slots=True)
class VersionRef:
    number: int
    artifact: str


@dataclass(frozen=True, slots=True)
class Revision:
    """What was accepted: revision 0 is nothing, with no versions and no config. `beside` are the files beside the config; `kind` and `reason` are
    those of the change that made it."""

    environment: str
    model: str
    number: int
    digest: str
    versions: tuple[VersionRef, ...]
    config: JsonObject | None
    beside: tuple[File, ...]
    change: int | None
    kind: str | None
    reason: str | None
    accepted_at: str
    proofs: tuple[JsonObject, ...]


@dataclass(frozen=True, slots=True)
class Deployment:
    """`drift` is what the last watch found, empty when desired and observed agree."""

    environment: str
    model: str
    revision: int
    versions: tuple[VersionRef, ...]
    digest: str
    active_change: int | None
    direction: str
    drift: tuple[str, ...]
    watched_at: str | None
