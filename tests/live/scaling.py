# A model whose version shows in its answers: it multiplies by a constant. With what stores, writes and asks for it.
from __future__ import annotations

import io
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import parser

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.errors import LoadUnknown
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.control import TritonServer
from controlplane.triton.repository import LocalRepository
from controlplane.triton.runtime.launch import PROBES
from tests.live.servers import ADMIN_KEY, LiveTriton

ROW = {"X": np.array([[1, 2]], dtype=np.float32)}


def graph(factor: int) -> bytes:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        scale (float[N, 2] X) => (float[N, 2] Y) <float k = {{{factor}}}> {{ Y = Mul(X, k) }}"""
    return bytes(parser.parse_model(text).SerializeToString())


def config(*, versions: tuple[int, ...] = (), instances: int = 1, extra: str = "") -> str:
    policy = f"version_policy {{ specific {{ versions: {list(versions)} }} }}" if versions else ""
    return f"""backend: "onnxruntime" max_batch_size: 8
        input {{ name: "X" data_type: TYPE_FP32 dims: 2 }}
        output {{ name: "Y" data_type: TYPE_FP32 dims: 2 }}
        instance_group {{ count: {instances} kind: KIND_CPU }}
        dynamic_batching {{ }}
        {policy} {extra}"""


@dataclass(frozen=True, slots=True)
class Site:
    """A live server with its repository and an artifact store, under our control."""

    live: LiveTriton
    server: TritonServer
    repository: LocalRepository
    store: ObjectArtifactStore

    def artifact(self, factor: int) -> Manifest:
        data = graph(factor)
        sha256, size = self.store.add_stream(io.BytesIO(data))
        return Manifest((FileEntry("model.onnx", size, sha256),))

    def write(self, model: str, versions: dict[int, int], text: str) -> None:
        """`versions` maps numbers to factors."""
        for number, factor in versions.items():
            self.repository.write_version(model, number, self.artifact(factor), self.store)
        self.repository.write_config(model, text)

    def load(self, model: str, seconds: float = 30) -> None:
        """Triton 2.51 dies of its own lock_exception in one load of thousands on a busy host; it is then started again, as `up` would."""
        try:
            self.server.load(model, deadline_seconds=seconds)
        except LoadUnknown:
            time.sleep(1)  # what died closed its connection first
            if self.live.process.poll() != -signal.SIGABRT:
                raise
            self.live.process.start()
            self.live.process.wait_ready(120)
            self.server.load(model, deadline_seconds=seconds)

    def factor(self, model: str, version: int | None = None) -> float:
        """What the model multiplies by, judged by its answer."""
        answer = self.server.infer(model, ROW, version=version, outputs=["Y"], deadline_seconds=60)
        return float(answer["Y"][0, 0])

    def ready(self, model: str) -> list[int]:
        return [state.number for state in self.server.versions(model) if state.state == "READY"]


def open_site(live: LiveTriton, base: Path) -> Site:
    server = TritonServer(live.grpc, key=("admin-key", ADMIN_KEY), log=live.process.log, probes=live.home / PROBES)
    repository = LocalRepository(live.repository)
    return Site(live, server, repository, ObjectArtifactStore.local(base / "artifacts"))
