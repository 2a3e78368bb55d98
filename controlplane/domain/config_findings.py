# What lint finds, and what it looks at.
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Signature
from controlplane.domain.config_tree import batched, message, messages, number, served_by
from controlplane.domain.servers import HostFacts


class Severity(StrEnum):
    REFUSED = "refused"  # Triton would not load it, or we would not let it
    REGRET = "regret"  # it loads, and does not do what was meant


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable; `message` says what and which value, `hint` what to do instead."""

    severity: Severity
    code: str
    path: str
    message: str
    hint: str


def refused(code: str, path: str, message: str, hint: str) -> Finding:
    return Finding(Severity.REFUSED, code, path, message, hint)


def regret(code: str, path: str, message: str, hint: str) -> Finding:
    return Finding(Severity.REGRET, code, path, message, hint)


@dataclass(frozen=True, slots=True)
class Subject:
    """A config in the codec's normal form and what it is for.

    `signatures` are those of the versions that it would serve, by number; opaque versions have none. `host` is None where
    the hardware is not known. `embedded` says that our own server runs it, which has fewer features than NVIDIA's.
    `beside` are the paths of the files that lie beside the config.
    """

    config: JsonObject
    model: str
    signatures: Mapping[int, Signature]
    host: HostFacts | None
    embedded: bool
    beside: Collection[str] = ()

    @property
    def backend(self) -> str:
        return served_by(self.config)

    @property
    def is_ensemble(self) -> bool:
        return self.config.get("platform") == "ensemble"

    @property
    def batched(self) -> bool:
        return batched(self.config)

    @property
    def rows(self) -> int:
        return number(self.config.get("max_batch_size"))

    @property
    def groups(self) -> list[JsonObject]:
        return messages(self.config.get("instance_group"))

    def part(self, name: str) -> JsonObject:
        """A message of the config; empty when it is not there."""
        return message(self.config.get(name))
