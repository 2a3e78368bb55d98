# A model that can be swept, and people.
from __future__ import annotations

from dataclasses import dataclass, field, replace

from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import (
    Batching,
    Golden,
    GoldenMode,
    Inspection,
    Model,
    Objective,
    Signature,
    TensorSpec,
    Version,
)
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_spec import SweepSpec, spec_from_json
from controlplane.domain.sweeps import Sweep
from controlplane.services.access import AccessService
from controlplane.services.sweep_drafts import SweepDrafts
from controlplane.services.sweeps import SweepService
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.pbtxt import PbtxtCodec
from tests.simulated_bench import FINGERPRINT, Killed, SimulatedBench, SimulatedTime, capacity
from tests.store.clock import NOON, SteppingClock

__all__ = [
    "FINGERPRINT", "HOST", "MODEL", "P99", "SMALL", "Killed", "SimulatedBench", "SimulatedTime", "SweepHouse", "capacity",
    "generated", "signature", "version",
]  # fmt: skip

MODEL = "digits"
HOST = HostFacts(4, 0, 16 << 30)
P99 = Objective(MODEL, "fast", "latency_ms", "p99", "at_most", "10", "product", None)
SMALL: JsonObject = {"instances": [1, 2, 4], "max_batch_size": [1, 8]}


def signature(batching: Batching = Batching.BATCHABLE) -> Signature:
    rows: tuple[int | str | None, ...] = ("n", 3) if batching is Batching.BATCHABLE else (1, 3)
    spec = TensorSpec("x", "TYPE_FP32", rows)
    return Signature((spec,), (replace(spec, name="y"),), batching, 17, 8, "test")


def version(number: int, *, golden: bool = True, config: JsonObject | None = None) -> Version:
    recorded = Golden(f"sha256:{'a' * 64}", 4, GoldenMode.EXACT, "seeded") if golden else None
    manifest = Manifest((FileEntry("model.onnx", 1000 * number, f"sha256:{number:064x}"),))
    found = Inspection(None if config else signature(), recorded, "onnxruntime")
    return Version(MODEL, number, manifest, found, "", "olga", NOON, config=config)


def generated(version: Version, *, embedded: bool) -> JsonObject:
    """As the generator of configs would, with one instance."""
    del embedded
    return {
        "name": version.model,
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["3"]}],
        "dynamic_batching": {},
        "instance_group": [{"name": "all", "kind": "KIND_CPU", "count": 1}],
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    }


@dataclass
class SweepHouse:
    """People, one model with two versions, and its use cases."""

    storage: Storage
    clock: SteppingClock
    people: dict[str, Principal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.access = AccessService(self.storage, self.clock)
        self.codec = PbtxtCodec()
        self.drafts = SweepDrafts(self.storage, self.codec, generated, HOST, memory_bytes=8 << 30)
        self.sweeps = SweepService(self.storage, self.access, self.drafts, self.clock)
        ada, _ = self.access.bootstrap("ada", None)
        self.people["ada"] = ada
        for name, role in (("olga", Role.OPERATOR), ("anna", Role.APPROVER), ("vera", Role.VIEWER)):
            self.people[name] = self.access.create(ada, name, PrincipalKind.PERSON, [role])
        with self.storage.write() as unit:
            unit.catalog.ensure_model(Model(MODEL, "olga", "", (), self.clock.now()))
            unit.catalog.add_version(version(1))
            unit.catalog.add_version(version(2))
            unit.catalog.set_objective(P99)

    def __getitem__(self, name: str) -> Principal:
        return self.people[name]

    def start(self, by: str = "olga", /, **spec: Json) -> Sweep:
        return self.sweeps.start(self[by], self.spec(**spec))

    def spec(self, **spec: Json) -> SweepSpec:
        return spec_from_json({"model": MODEL, "space": SMALL, "defaults": False, **spec})

    def get(self, sweep: Sweep) -> Sweep:
        return self.sweeps.get(self["vera"], sweep.id)

    def actions(self, sweep: Sweep) -> list[tuple[str, str]]:
        with self.storage.read() as unit:
            found = unit.audit.entries(subject=("sweep", str(sweep.id)))
        return [(entry.actor.name, entry.action) for entry in reversed(found)]
