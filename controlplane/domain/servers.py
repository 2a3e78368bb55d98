# What is known of a Triton server and its host.
from __future__ import annotations

from dataclasses import dataclass


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
