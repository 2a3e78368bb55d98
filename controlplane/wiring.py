# The only file that knows which concrete parts are used.
from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path

import psutil

from clients.inference import Tls
from controlplane.domain.catalog import Golden
from controlplane.domain.environments import ServerSpec
from controlplane.domain.golden import GoldenCase, load_cases
from controlplane.domain.servers import HostFacts
from controlplane.errors import SettingsInvalid
from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.changes import ChangeService
from controlplane.services.deployments import DeploymentDriver
from controlplane.services.engine import Boundary, Engine, no_boundary
from controlplane.services.planning import Planner
from controlplane.services.ports import ArtifactStore, Target
from controlplane.services.verification import Verifier
from controlplane.services.watch import Watcher
from controlplane.settings import Settings
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.checkpoint_files import CheckpointFiles, ensure_signing_key
from controlplane.storage.database import create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.control import TritonServer
from controlplane.triton.generate import generate_for
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.probe import prove_instances
from controlplane.triton.repository import LocalRepository
from controlplane.triton.runtime.keeper import ServerKeeper
from controlplane.worker import Worker

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
    return AuditService(storage, access, CheckpointFiles(settings.checkpoint_dir), [signer.verifier], signer)


def build_planner(storage: Storage) -> Planner:
    host = host_facts()
    return Planner(storage, PbtxtCodec(), functools.partial(generate_for, host=host), host)


def build_changes(storage: Storage, access: AccessService) -> ChangeService:
    return ChangeService(storage, access, build_planner(storage), SystemClock())


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
            metrics_url=spec.metrics_url,
            key=None if spec.admin_key is None else (ADMIN_KEY_NAME, self._secret(spec.admin_key)),
            tls=_tls(spec),
            log=None if spec.log_file is None else Path(spec.log_file),
        )
        repository = Path(spec.repository)
        keeper = None if spec.home is None else ServerKeeper(Path(spec.home), repository, server.alive)
        return Target(spec, server, LocalRepository(repository, repository.parent / "staging"), keeper)

    def _secret(self, name: str) -> str:
        """A secret of the settings, or the content of the file of that name."""
        if name in self._settings.secrets:
            return self._settings.secrets[name]
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError:
            raise SettingsInvalid(
                f"there is no secret {name!r}", hint=f"set TRITONCTL_SECRETS__{name}, or give the path of a file"
            ) from None


def build_worker(settings: Settings, storage: Storage, *, name: str, boundary: Boundary = no_boundary) -> Worker:
    clock = SystemClock()
    access = AccessService(storage, clock)
    artifacts = open_artifacts(settings)
    connect = Connections(settings)
    engine = Engine(storage, artifacts, PbtxtCodec(), clock, boundary=boundary)
    verifier = Verifier(functools.partial(_read_golden, artifacts), prove_instances)
    return Worker(
        storage,
        clock,
        settings.worker,
        driver=DeploymentDriver(storage, engine, verifier, connect, clock),
        watcher=Watcher(storage, engine, verifier, connect, clock),
        changes=build_changes(storage, access),
        name=name,
        checkpoint=build_audit(settings, storage, access).sign,
    )


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
