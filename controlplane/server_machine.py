# The fingerprint of a server's machine, taken by whoever is on it: what evidence is held against.
from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from clients.inference import InferenceClient, InferenceError, Tls
from clients.load.server import server_name
from controlplane.bench import fingerprint
from controlplane.domain.environments import ServerSpec
from controlplane.domain.fingerprints import Fingerprint, Serving
from controlplane.errors import ControlPlaneError
from controlplane.settings import Settings
from controlplane.triton.runtime.find import TritonRuntime, find

_SECONDS = 5.0


class ServerMachines:
    """In the words of a bench (`bench/scratch.py`), so that a bench and a server on one machine are of one class. Of a server that we
    launched the runtime is known; of another one on this host its version; of one elsewhere no more than that."""

    def __init__(self, settings: Settings, tls: Callable[[ServerSpec], Tls | None]) -> None:
        self._settings = settings
        self._tls = tls

    def __call__(self, spec: ServerSpec) -> Fingerprint | None:
        """None where the server does not answer."""
        try:
            with InferenceClient(spec.address, tls=self._tls(spec)) as client:
                version = server_name(client, deadline_seconds=_SECONDS).rpartition(" ")[2]
        except InferenceError:
            return None
        if spec.home is None:
            return fingerprint.take(Serving(version), local=_is_loopback(spec.address))
        runtime = self._runtime
        if runtime is None:
            return None
        backends = None
        if runtime.environment is not None:
            own = runtime.environment
            backends = (("numpy", own.numpy), ("onnxruntime", own.onnxruntime), ("python", own.python))
        return fingerprint.take(Serving(version, self._build, backends), local=True)

    @cached_property
    def _runtime(self) -> TritonRuntime | None:
        try:
            return find(self._settings.runtime_dir, self._settings.tritonserver)
        except ControlPlaneError:
            return None

    @cached_property
    def _build(self) -> str:
        assert self._runtime is not None
        return f"sha256:{_hash(self._runtime.binary)}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
