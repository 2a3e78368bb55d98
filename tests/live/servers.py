# A running embedded server and its addresses, as the live tests use it.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.launch import LaunchOptions, TritonProcess

ADMIN_KEY = "live-test-key"


@dataclass(frozen=True, slots=True)
class LiveTriton:
    """A running server over `repository`; `process` starts, stops and kills it."""

    process: TritonProcess
    home: Path
    repository: Path
    admin_key: str | None

    @property
    def grpc(self) -> str:
        return self.process.ports.grpc_address

    @property
    def http(self) -> str:
        return self.process.ports.http_address

    @property
    def metrics(self) -> str:
        return self.process.ports.metrics_url

    @property
    def headers(self) -> dict[str, str]:
        """What a gRPC client sends with restricted calls."""
        return {} if self.admin_key is None else {"triton-grpc-protocol-admin-key": self.admin_key}


MakeTriton = Callable[..., LiveTriton]


def launch(runtime: TritonRuntime, home: Path, *, name: str = "triton", **options: object) -> LiveTriton:
    base = home / name
    repository = Path(str(options.pop("repository", base / "models")))
    repository.mkdir(parents=True, exist_ok=True)
    key = options.pop("admin_key", ADMIN_KEY)
    assert key is None or isinstance(key, str)
    process = TritonProcess(LaunchOptions(base, repository, runtime, admin_key=key, **options))  # type: ignore[arg-type]
    process.start()
    process.wait_ready(120)
    return LiveTriton(process, base, repository, key)
