# A whole installation around a live server: database, artifacts, people, services and worker, as wiring joins them.
from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient

from clients.inference import InferenceClient
from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.audit import AuditEntry
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection, Version
from controlplane.domain.changes import ChangeState
from controlplane.services.access import AccessService
from controlplane.services.catalog import CatalogService, Registration
from controlplane.services.change_views import ChangeView
from controlplane.services.changes import ChangeService
from controlplane.services.engine import Boundary, no_boundary
from controlplane.services.environments import EnvironmentService
from controlplane.services.planning import Proposal
from controlplane.settings import Settings, load_settings
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.onnx_graph import BlobSink, OnnxInspector
from controlplane.wiring import SystemClock, build_audit, build_changes, build_worker, open_artifacts, verify_audit
from controlplane.worker import Worker
from tests.live.onnx_graphs import parse
from tests.live.servers import LiveTriton

ENV = "live"


class RememberingInspector(OnnxInspector):
    """The same small graphs are registered hundreds of times, each in a process that imports onnxruntime for half a second:
    here each is really inspected once. (tests/store/test_registration.py registers without it.)"""

    _seen: ClassVar[dict[str, tuple[Inspection, bytes]]] = {}

    def inspect(
        self, directory: Path, *, samples: Path | None, store: BlobSink, opaque_config: JsonObject | None = None
    ) -> Inspection:
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        if samples is not None or opaque_config is not None or [file.name for file in files] != ["model.onnx"]:
            return super().inspect(directory, samples=samples, store=store, opaque_config=opaque_config)
        key = sha256(files[0].read_bytes()).hexdigest()
        if key not in self._seen:
            found = super().inspect(directory, samples=None, store=store)
            assert isinstance(store, ObjectArtifactStore)
            blob = b"" if found.golden is None else b"".join(store.read(found.golden.blob))
            self._seen[key] = found, blob
        inspection, blob = self._seen[key]
        if inspection.golden is not None:
            store.add_stream(iter([blob]), inspection.golden.blob)
        return inspection


@dataclass
class Installation:
    settings: Settings
    storage: Storage
    triton: LiveTriton
    people: dict[str, Principal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.access = AccessService(self.storage, self.clock)
        self.artifacts = open_artifacts(self.settings)
        self.catalog = CatalogService(self.storage, self.access, self.artifacts, RememberingInspector(), self.clock)
        self.environments = EnvironmentService(self.storage, self.access, self.clock)
        self.changes: ChangeService = build_changes(self.storage, self.access)

    def __getitem__(self, name: str) -> Principal:
        return self.people[name]

    def worker(self, name: str = "worker", *, boundary: Boundary = no_boundary) -> Worker:
        return build_worker(self.settings, self.storage, name=name, boundary=boundary)

    def register(self, model: str, factor: float, *, number: int | None = None, slow: str = "") -> Version:
        """A version that answers `x * factor`, batchable, FP32 [-1, 4]."""
        graph = parse(f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}")
        data = graph.SerializeToString()
        digest, size = self.artifacts.add_stream([data])
        manifest = Manifest((FileEntry("model.onnx", size, digest),))
        return self.catalog.register_version(self["author"], Registration(model, manifest, number))

    def config(self, model: str, **extra: object) -> JsonObject:
        return {
            "name": model,
            "backend": "onnxruntime",
            "max_batch_size": 8,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}],
            "instance_group": [{"name": f"{model}_cpu", "kind": "KIND_CPU", "count": 1}],
            "parameters": {"intra_op_thread_count": {"string_value": "1"}},
            **extra,  # type: ignore[dict-item]
        }

    def propose(self, model: str, *, env: str = ENV, reason: str = "test", **wish: object) -> ChangeView:
        return self.changes.propose(self["author"], Proposal(env, model, reason, **wish))  # type: ignore[arg-type]

    def start(self, view: ChangeView) -> ChangeView:
        """Approve and apply; the worker has not done anything yet."""
        if view.needed > len(view.counted):
            self.changes.approve(self["approver"], view.request.id, view.plan.digest, "seen")
        return self.changes.apply(self["author"], view.request.id)

    def finish(self, view: ChangeView, worker: Worker | None = None, passes: int = 20) -> ChangeView:
        """Let a worker drive until the change rests."""
        worker = worker or self.worker()
        for _ in range(passes):
            worker.once()
            seen = self.show(view)
            if seen.request.state not in (ChangeState.APPLYING, ChangeState.UNDOING):
                return seen
        return self.show(view)

    def deploy(self, model: str, *, env: str = ENV, **wish: object) -> ChangeView:
        return self.finish(self.start(self.propose(model, env=env, reason="test", **wish)))

    def show(self, view: ChangeView) -> ChangeView:
        return self.changes.show(self["author"], view.request.id)

    def rollback(self, model: str, to: int | None = None) -> ChangeView:
        return self.finish(self.changes.rollback(self["author"], ENV, model, to=to, reason="it was better before"))

    def reconcile(self, model: str) -> ChangeView:
        wish = Proposal(ENV, model, "drift was seen", reconcile=True)
        return self.finish(self.start(self.changes.propose(self["admin"], wish)))

    def drift(self, model: str, worker: Worker | None = None) -> tuple[str, ...]:
        """What one watch finds."""
        time.sleep(self.settings.worker.watch_seconds)
        (worker or self.worker()).once()
        return self.environments.deployment(self["author"], ENV, model).deployment.drift

    def answer(self, model: str, *, version: int | None = None, triton: LiveTriton | None = None) -> float:
        """What the live server makes of 1.0."""
        x: npt.NDArray[np.float32] = np.ones((1, 4), np.float32)
        with InferenceClient((triton or self.triton).grpc) as client:
            answer = client.infer(model, {"x": x}, version=version, deadline_seconds=60)
        return float(answer.outputs["y"][0, 0])

    def served(self, model: str) -> list[int]:
        """The versions that Triton says are READY."""
        with InferenceServerClient(self.triton.grpc) as client:
            index = client.get_model_repository_index(headers=self.triton.headers, as_json=True).get("models", [])
        return [int(entry["version"]) for entry in index if entry["name"] == model and entry.get("state") == "READY"]

    def loading(self, model: str) -> bool:
        """Whether Triton says that a version is being loaded."""
        with InferenceServerClient(self.triton.grpc) as client:
            index = client.get_model_repository_index(headers=self.triton.headers, as_json=True).get("models", [])
        return any(entry["name"] == model and entry.get("state") == "LOADING" for entry in index)

    def load(self, model: str) -> None:
        """As somebody else would, behind our back."""
        with InferenceServerClient(self.triton.grpc) as client:
            client.load_model(model, headers=self.triton.headers)

    def files(self, model: str) -> list[str]:
        root = self.triton.repository / model
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def add_environment(self, name: str, triton: LiveTriton, *, policy: JsonObject | None = None) -> None:
        """An environment with one server of the same name."""
        key_file = self.settings.home / "keys" / f"server-{name}.key"
        key_file.parent.mkdir(exist_ok=True, mode=0o700)
        key_file.write_text(triton.admin_key or "")
        admin = self["admin"]
        self.environments.create(admin, name, "", {"approvals": 1, "load_timeout_seconds": 30, **(policy or {})})
        self.environments.add_server(
            admin,
            name,
            name,
            triton.grpc,
            str(triton.repository),
            metrics_url=triton.metrics,
            admin_key=str(key_file),
            log_file=str(triton.home / "log" / "triton.log"),
            home=str(triton.home),
        )

    def audit(self, subject: tuple[str, str]) -> tuple[AuditEntry, ...]:
        """The newest first."""
        with self.storage.read() as unit:
            return tuple(unit.audit.entries(subject=subject))

    def check_audit(self) -> None:
        """Sign what is there, and verify the whole log from the database, key and checkpoint files alone."""
        build_audit(self.settings, self.storage, self.access).sign()
        url = self.storage.database.engine.url.render_as_string(hide_password=False)
        report = verify_audit(self.settings, database=url, keys=(), checkpoints=None)
        assert (report.findings, report.warnings, report.tail) == ((), (), 0)


def effects(view: ChangeView, direction: str = "forward") -> list[str]:
    return [entry.effect for entry in view.journal if entry.direction.value == direction]


def proofs(view: ChangeView) -> dict[object, object]:
    return {proof["name"]: proof["status"] for proof in view.request.proofs}


def install(home: Path, database: Database, triton: LiveTriton, *, policy: JsonObject | None = None) -> Installation:
    """`database` is migrated. The environment's name is `live`; people are author, approver and admin."""
    settings = load_settings(
        home=home, worker={"lease_seconds": 2.0, "watch_seconds": 0.5, "poll_seconds": 0.05, "checkpoint_seconds": 3600}
    )
    at = Installation(settings, Storage(database), triton)
    admin, _ = at.access.bootstrap("admin", None)
    at.people["admin"] = admin
    at.people["author"] = at.access.create(admin, "author", PrincipalKind.PERSON, [Role.OPERATOR])
    at.people["approver"] = at.access.create(admin, "approver", PrincipalKind.PERSON, [Role.APPROVER])
    at.add_environment(ENV, triton, policy=policy)
    return at
