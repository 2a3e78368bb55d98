# The only file that knows which concrete parts are used.
from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil

from clients.inference import Tls
from controlplane.bench.cluster import check_installed
from controlplane.bench.dask import DaskBench
from controlplane.bench.rounds import bench_at, embedded_bench
from controlplane.domain.audit_report import VerificationReport
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Golden, Version
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.environments import ServerSpec
from controlplane.domain.golden import GoldenCase, load_cases
from controlplane.domain.notes import Verifier as NoteVerifier
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweeps import Sweep
from controlplane.errors import InvalidInput, SettingsInvalid
from controlplane.server_machine import ServerMachines
from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.audit_verify import verify
from controlplane.services.blobs import BlobService
from controlplane.services.capsules import CapsuleService
from controlplane.services.catalog import CatalogService
from controlplane.services.changes import ChangeService
from controlplane.services.configs import ConfigService
from controlplane.services.courier import Courier
from controlplane.services.deployments import DeploymentDriver
from controlplane.services.engine import Boundary, Engine, no_boundary
from controlplane.services.environments import EnvironmentService
from controlplane.services.idempotency import IdempotencyService
from controlplane.services.installation import InstallationService
from controlplane.services.latency import LatencyGates
from controlplane.services.planning import Planner
from controlplane.services.ports import ArtifactStore, Bench, Target
from controlplane.services.rooms import Services
from controlplane.services.server_machines import MachineWatch
from controlplane.services.sweep_drafts import EMBEDDED, SweepDrafts, check_bench
from controlplane.services.sweep_evidence import SweepEvidence
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.sweeps import SweepService
from controlplane.services.turns import Turns
from controlplane.services.verification import Verifier
from controlplane.services.watch import Watcher
from controlplane.services.webhooks import WebhookService
from controlplane.settings import Settings
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.checkpoint_files import CheckpointFiles, ensure_signing_key, retired_verifiers
from controlplane.storage.database import create_database
from controlplane.storage.migrate import check_ready
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.control import TritonServer
from controlplane.triton.generate import generate
from controlplane.triton.inspect_process import InspectionLimits
from controlplane.triton.onnx_graph import OnnxInspector
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.probe import prove_instances
from controlplane.triton.repository import LocalRepository
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.keeper import ServerKeeper
from controlplane.triton.runtime.launch import PROBES
from controlplane.webhook_post import HttpPoster
from controlplane.worker import Worker

if TYPE_CHECKING:
    from controlplane.bench.slot import BenchSlot

_BENCH_KEY = "bench"
"""The secret that opens the restricted protocols of the benches that the settings name."""
ADMIN_KEY_NAME = "admin-key"
"""The header under which restricted protocols are opened, as our launch line and our deploy files set it."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def open_storage(settings: Settings) -> Storage:
    return Storage(create_database(settings.database_url), SystemClock().now)


def open_artifacts(settings: Settings) -> ObjectArtifactStore:
    directory = Path(settings.artifacts.url) if settings.artifacts.url else settings.home / "artifacts"
    return ObjectArtifactStore.local(directory, max_blob_bytes=settings.artifacts.max_bytes)


def host_facts() -> HostFacts:
    """Of this machine, which is the embedded server's as well."""
    gpus = sum(entry.name.removeprefix("nvidia").isdigit() for entry in Path("/dev").iterdir())
    return HostFacts(psutil.cpu_count() or 1, gpus, psutil.virtual_memory().total)


def build_audit(settings: Settings, storage: Storage, access: AccessService) -> AuditService:
    signer = ensure_signing_key(settings.key_file, settings.audit.origin)
    verifiers = [signer.verifier, *retired_verifiers(settings.key_file)]
    return AuditService(storage, access, CheckpointFiles(settings.checkpoint_dir), verifiers, signer)


def build_planner(storage: Storage) -> Planner:
    host = host_facts()
    return Planner(storage, PbtxtCodec(), functools.partial(_generated, host=host), host)


def _generated(version: Version, *, embedded: bool, host: HostFacts) -> JsonObject:
    signature = version.inspection.signature
    if signature is None:
        raise InvalidInput(
            f"version {version.number} of {version.model!r} is opaque: nothing is known to generate from",
            hint="give its config: --config FILE",
        )
    return generate(GenerateRequest(version.model, signature, host, embedded=embedded)).config


def build_changes(storage: Storage, access: AccessService) -> ChangeService:
    return ChangeService(storage, access, build_planner(storage), SystemClock())


def build_drafts(settings: Settings, storage: Storage) -> SweepDrafts:
    host = host_facts()
    return SweepDrafts(
        storage,
        PbtxtCodec(),
        functools.partial(_generated, host=host),
        host,
        memory_bytes=settings.sweeps.memory_bytes or host.memory_bytes // 2,
        benches=settings.sweeps.benches,
    )


def build_services(settings: Settings, storage: Storage) -> Services:
    """What the API is given."""
    clock = SystemClock()
    access = AccessService(storage, clock)
    artifacts = open_artifacts(settings)
    staging = settings.home / "staging"
    changes = build_changes(storage, access)
    return Services(
        access=access,
        audit=build_audit(settings, storage, access),
        blobs=BlobService(artifacts, access, settings.home / "uploads", max_bytes=settings.artifacts.max_bytes),
        capsules=CapsuleService(
            storage, access, artifacts, clock, PbtxtCodec(), staging=staging, benches=settings.sweeps.benches
        ),
        catalog=CatalogService(storage, access, artifacts, _inspector(settings), clock, staging=staging),
        changes=changes,
        configs=ConfigService(
            storage,
            access,
            PbtxtCodec(),
            generate=generate,
            golden=functools.partial(_read_golden, artifacts),
            host=host_facts(),
        ),
        environments=EnvironmentService(storage, access, clock),
        evidence=SweepEvidence(storage, access, changes),
        idempotency=IdempotencyService(storage, clock),
        installation=InstallationService(storage),
        sweeps=SweepService(storage, access, build_drafts(settings, storage), clock),
        webhooks=WebhookService(storage, access, clock, _poster(settings), link_local=settings.webhooks.link_local),
    )


def verify_audit(
    settings: Settings, *, database: str | None, keys: Sequence[str], checkpoints: Path | None
) -> VerificationReport:
    """Without the API. Raises SettingsInvalid when there is no key to verify by."""
    verifiers = [NoteVerifier.parse(key) for key in keys]
    if not verifiers:
        if not settings.key_file.exists():
            raise SettingsInvalid(
                f"there is no signing key at {settings.key_file}", hint="name the log's key: --key VKEY"
            )
        signer = ensure_signing_key(settings.key_file, settings.audit.origin)
        verifiers = [signer.verifier, *retired_verifiers(settings.key_file)]
    opened = create_database(database or settings.database_url)
    try:
        check_ready(opened)
        return verify(opened, verifiers, checkpoints or settings.checkpoint_dir, one_owner=not keys)
    finally:
        opened.close()


class Connections:
    """One connection to each server; a changed spec gives a new one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._targets: dict[ServerSpec, Target] = {}

    def __call__(self, spec: ServerSpec) -> Target:
        if spec not in self._targets:
            self._targets[spec] = self._open(spec)
        return self._targets[spec]

    def _open(self, spec: ServerSpec) -> Target:
        server = TritonServer(
            spec.address,
            key=None if spec.admin_key is None else (ADMIN_KEY_NAME, self._secret(spec.admin_key)),
            tls=_tls(spec),
            log=None if spec.log_file is None else Path(spec.log_file),
            probes=None if spec.home is None else Path(spec.home) / PROBES,
        )
        repository = Path(spec.repository)
        keeper = None if spec.home is None else ServerKeeper(Path(spec.home), repository, server.alive)
        return Target(spec, server, LocalRepository(repository), keeper)

    def _secret(self, name: str) -> str:
        """A secret of the settings, or the content of a file that holds such a key.

        Whoever adds a server chooses the name and the address that the key is sent to: no other file of this machine,
        and not the audit log's signing key, may be named.
        """
        if name in self._settings.secrets:
            return self._settings.secrets[name]
        keys, path = (self._settings.home / "keys").resolve(), Path(name).resolve()
        try:
            if path.parent == keys and path.match("server-*.key"):
                return path.read_text(encoding="utf-8").strip()
        except OSError:
            pass
        raise SettingsInvalid(
            f"there is no secret {name!r}",
            hint=f"set TRITONCTL_SECRETS__{name}, or put the key into {keys / 'server-NAME.key'} and name that path",
        )


class Benches:
    """Opens benches: one of our own in the home, a Triton that stands ready for this, or those behind a Dask scheduler."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, sweep: Sweep) -> AbstractContextManager[Bench]:
        address = check_bench(sweep.bench, self._settings.sweeps.benches)
        if address == EMBEDDED:
            runtime = find(self._settings.runtime_dir, self._settings.tritonserver)
            return embedded_bench(self._settings.bench_home, runtime, keep_awake=self._settings.sweeps.keep_awake)
        if "://" in address:
            return DaskBench(address)
        known = address in self._settings.sweeps.benches  # a key goes nowhere else
        key = self._settings.secrets.get(_BENCH_KEY) if known else None
        return bench_at(address, key=key, home=self._settings.bench_home / quote(address, safe=""), alone=not known)


def bench_slot(settings: Settings) -> BenchSlot:
    """What a Dask worker measures on: an embedded Triton of its own. Raises RuntimeUnavailable without Dask or Triton."""
    check_installed()
    from controlplane.bench.slot import BenchSlot

    runtime = find(settings.runtime_dir, settings.tritonserver)
    home, awake = settings.bench_home, settings.sweeps.keep_awake
    opener = functools.partial(embedded_bench, home, runtime, keep_awake=awake)
    return BenchSlot(opener, open_artifacts(settings), home / "spool")


def build_worker(settings: Settings, storage: Storage, *, name: str, boundary: Boundary = no_boundary) -> Worker:
    clock = SystemClock()
    access = AccessService(storage, clock)
    artifacts = open_artifacts(settings)
    connect = Connections(settings)
    engine = Engine(storage, artifacts, PbtxtCodec(), clock, boundary=boundary)
    read_golden = functools.partial(_read_golden, artifacts)
    verifier = Verifier(read_golden, prove_instances, seconds=settings.worker.probe_seconds)
    turns = Turns()
    latency = LatencyGates(storage, read_golden, clock, boundary=boundary, turns=turns)
    sweeps = SweepRunner(
        storage,
        clock,
        Benches(settings),
        artifacts,
        PbtxtCodec(),
        name=name,
        lease_seconds=settings.worker.lease_seconds,
        turns=turns,
    )
    machines = MachineWatch(storage, ServerMachines(settings, _tls), clock)
    return Worker(
        storage,
        clock,
        settings.worker,
        driver=DeploymentDriver(storage, engine, verifier, connect, clock, latency=latency),
        watcher=Watcher(storage, engine, verifier, connect, clock),
        name=name,
        chores=(
            build_changes(storage, access).expire,
            build_audit(settings, storage, access).sign,
            functools.partial(_clean_staging, storage, connect),
        ),
        companions=(Courier(storage, clock, _poster(settings)).run, latency.run, sweeps.run, machines.run),
    )


def _clean_staging(storage: Storage, connect: Connections) -> None:
    """What a writer that was killed left beside the repositories."""
    with storage.read() as unit:
        specs = [
            spec for environment in unit.environments.all() for spec in unit.environments.servers(environment.name)
        ]
    for spec in specs:
        connect(spec).repository.clean_staging()


def _poster(settings: Settings) -> HttpPoster:
    return HttpPoster(link_local=settings.webhooks.link_local)


def _inspector(settings: Settings) -> OnnxInspector:
    limits = settings.inspection
    return OnnxInspector(InspectionLimits(seconds=int(limits.seconds), memory_bytes=limits.memory_bytes))


def _read_golden(artifacts: ArtifactStore, golden: Golden) -> list[GoldenCase]:
    return load_cases(b"".join(artifacts.read(golden.blob)))


def _tls(spec: ServerSpec) -> Tls | None:
    if spec.tls_ca is None and spec.tls_certificate is None:
        return None
    return Tls(
        *(
            None if path is None else Path(path).read_bytes()
            for path in (spec.tls_ca, spec.tls_certificate, spec.tls_key)
        )
    )
