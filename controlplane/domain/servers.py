# What is known of a Triton server and its host.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.domain.artifacts import NO_FILES, Manifest


@dataclass(frozen=True, slots=True)
class VersionState:
    """One entry of Triton's repository index. `state` is READY, LOADING, UNLOADING, UNAVAILABLE, or empty: listed only."""

    number: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The hardware that a config is generated for."""

    cpu_cores: int
    gpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What lies in a model's directory of the repository.

    `config_text` is None when there is no config.pbtxt; `versions` holds each version directory's manifest, hashed from
    its bytes; `strays` names what can never belong (names that Triton may not see, unreadable entries, dangling links);
    `newest_ns` is the greatest modification or change time in the directory, as Triton takes it, in nanoseconds, 0 when
    nothing is there. `beside` are the other files: labels, `configs/`, and whatever else somebody put there.
    """

    config_text: str | None
    versions: Mapping[int, Manifest]
    strays: tuple[str, ...]
    newest_ns: int
    beside: Manifest = NO_FILES


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend process of a server on this machine; `born` tells it from a later one with the same number."""

    pid: int
    born: str
