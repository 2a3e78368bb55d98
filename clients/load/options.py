# What a run is asked for: the options of the command, which are those of the library too.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times in seconds. What stands in words (`concurrency`, `limits`, `shapes` and so on) is written as on the command line, whose
    help explains each; wrong ones are refused before anything is sent."""

    models: tuple[str, ...]
    url: str = "127.0.0.1:8001"
    headers: tuple[str, ...] = ()
    metrics_url: str | None = None

    concurrency: str | None = None
    rate: str | None = None
    bursts: str | None = None
    ramp: str | None = None
    curve: str | None = None
    trace: Path | None = None
    find_rate: str | None = None
    arrivals: Literal["poisson", "even"] = "poisson"
    most: int = 1000
    limits: tuple[str, ...] = ()
    within: float = 0.05

    seconds: float | None = None
    max_seconds: float | None = None
    requests: int | None = None
    warm_up: float = 0.5
    precision: float = 0.05
    percentile: float | None = None
    timeout: float = 60.0
    lateness: float = 0.001
    errors: float = 0.0

    batch: int = 1
    shapes: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    distinct: int | None = None
    data: tuple[str, ...] = ()
    seed: int = 0
    sequence_length: str | None = None
    sequences: int = 0
    expected: tuple[str, ...] = ()
    rtol: float | None = None
    atol: float | None = None

    processes: int = 1
    connections: int = 1
    transport: Literal["http2", "grpcio", "stream"] | None = None
    shared_memory: Literal["none", "inputs", "both"] = "none"
    compression: Literal["none", "gzip", "deflate"] = "none"
    tls: bool = False
    tls_root: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    calibration: bool = True
