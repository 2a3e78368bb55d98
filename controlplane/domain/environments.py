# Environments, servers, deployments and revisions.
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from controlplane.domain.artifacts import NO_FILES, Manifest
from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.policies import Policy


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version number and the digest of the artifact behind it."""

    number: int
    artifact: str


@dataclass(frozen=True)  # no slots: the digest is kept
class RevisionContent:
    """What a revision says: the versions that serve, by ascending number, the config without `version_policy`, and the
    files `beside` it that belong to the model as a whole: labels, `configs/`.

    Nothing (revision 0, an undeployed model) has no versions, no config and no files.
    """

    versions: tuple[VersionRef, ...]
    config: JsonObject | None
    beside: Manifest = NO_FILES

    @cached_property
    def digest(self) -> str:
        return digest(self.to_json())

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(ref.number for ref in self.versions)

    def to_json(self) -> JsonObject:
        tree: JsonObject = {
            "versions": [{"number": ref.number, "artifact": ref.artifact} for ref in self.versions],
            "config": self.config,
        }
        return {**tree, "beside": self.beside.to_json()} if self.beside.files else tree

    @classmethod
    def from_json(cls, tree: JsonObject) -> RevisionContent:
        versions, config, beside = tree["versions"], tree["config"], tree.get("beside")
        assert isinstance(versions, list)
        assert config is None or isinstance(config, dict)
        assert beside is None or isinstance(beside, dict)
        return cls(
            tuple(VersionRef(int(v["number"]), str(v["artifact"])) for v in versions),
            config,
            NO_FILES if beside is None else Manifest.from_json(beside),
        )


NOTHING = RevisionContent((), None)


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    description: str
    policy: Policy
    policy_number: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How to reach one tritonserver and its repository.

    `repository` is a directory that the worker can write, and so is the one that holds it. `admin_key` names the settings
    secret or file that holds the restricted-protocol key, never the key itself. `home` is set for a server that we
    launched: the directory with its state file. `metrics_url` is for whoever measures: no decision is taken by it.
    """

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
    created_at: datetime

    @property
    def digest(self) -> str:
        """Another one whenever something of it is changed."""
        return digest({name: str(getattr(self, name)) for name in self.__dataclass_fields__})


class Direction(StrEnum):
    FORWARD = "forward"
    BACK = "back"


UNOBSERVED = "cannot be observed"
"""How a line of a deployment's drift begins when the server could not be looked at: no drift is known then."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What one environment does with one model. `drift` is what the last watch found, empty when nothing.

    `lease_token` grows with every claim: whoever acts with a smaller one acts for nobody.
    """

    environment: str
    model: str
    revision: int
    active_change: int | None
    direction: Direction
    lease_token: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    drift: tuple[str, ...]
    watched_at: datetime | None


@dataclass(frozen=True, slots=True)
class Revision:
    """Numbered, immutable, accepted content. `proofs` is what verification showed when it was accepted."""

    environment: str
    model: str
    number: int
    content: RevisionContent
    change: int | None
    accepted_at: datetime
    proofs: tuple[JsonObject, ...]


class ProofStatus(StrEnum):
    SHOWN = "shown"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ACCEPTED = "accepted"  # inconclusive, and the policy says that this is no hindrance
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Proof:
    """One of the checks after a load: what it is, what came out, and in words what was seen; `measured` are the numbers
    behind the words, where there are any."""

    name: str
    status: ProofStatus
    seen: str
    measured: JsonObject | None = None

    def to_json(self) -> JsonObject:
        tree: JsonObject = {"name": self.name, "status": self.status.value, "seen": self.seen}
        return tree if self.measured is None else {**tree, "measured": self.measured}
