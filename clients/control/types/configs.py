# Generating, checking and comparing configs on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject, Request


@dataclass(frozen=True, slots=True)
class Intent(Request):
    """What a config is generated for. None, empty and zero leave the choice to the generator.

    `aim` is `latency` or `throughput`, `kind` `cpu` or `gpu`, `accelerator` `tensorrt` or `openvino`. Times are in
    microseconds. `resources` are what one execution takes of the server's, for the rate limiter. `sets` and `unsets` are
    applied to the result. `environment` is the one whose server it is for; None is a server on the API's host.
    """

    aim: str = "latency"
    max_batch_size: int | None = None
    instances: int | None = None
    kind: str | None = None
    gpus: tuple[int, ...] = ()
    max_queue_delay_us: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int | None = None
    queue_timeout_us: int = 0
    queue_size: int = 0
    queue_delay: bool = False
    resources: dict[str, int] | None = None
    accelerator: str | None = None
    half_precision: bool = False
    cuda_graphs: bool = False
    response_cache: bool = False
    warmup: bool = False
    threads: int | None = None
    parallel_execution: bool = False
    sets: tuple[tuple[str, str], ...] = ()
    unsets: tuple[str, ...] = ()
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Why the field at `path` is what it is."""

    path: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Finding:
    """`severity` is `refused` (Triton would not take it) or `regret` (it would, and its user would not want it); `code` is
    stable, and `hint` says what to do instead."""

    severity: str
    code: str
    path: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class GeneratedConfig:
    config: JsonObject
    text: str
    choices: tuple[Choice, ...]
    findings: tuple[Finding, ...]
    hardware: str
    """In words, what it was generated for."""


@dataclass(frozen=True, slots=True)
class ConfigText(Request):
    """A config.pbtxt, and the registered version and the environment that it is for, when there is one."""

    text: str
    model: str | None = None
    version: int | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class LintReport:
    """What lint found, and, in words, the hardware that it took the config to be for."""

    items: tuple[Finding, ...]
    hardware: str


@dataclass(frozen=True, slots=True)
class ConfigPair(Request):
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """`before` or `after` is None where there is nothing."""

    path: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    differences: tuple[Difference, ...]
    reload_class: str


@dataclass(frozen=True, slots=True)
class Config:
    config: JsonObject
    text: str
