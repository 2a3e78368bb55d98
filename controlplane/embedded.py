# The embedded installation of `tritonctl up`: everything in one home directory, made when it is missing.
from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from clients.control import contexts
from clients.control.contexts import Context
from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.errors import AlreadyExists, Conflict, NotFound, Unauthenticated
from controlplane.services.rooms import Services
from controlplane.settings import Settings
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.launch import LaunchOptions
from controlplane.triton.runtime.state import Ports

ENVIRONMENT = "local"
SERVER = "local"
PEOPLE = {"author": Role.OPERATOR, "approver": Role.APPROVER, "admin": Role.ADMIN}
"""The command line's contexts, and who they are."""


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Raises Conflict while another process holds the home."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Conflict(
                f"tritonctl up runs in {home} already, as process {lock.read().strip() or 'unknown'}",
                hint="use that one, or choose another home: TRITONCTL_HOME=DIR tritonctl up",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def prepare_database(storage: Storage) -> None:
    """The newest schema, whatever was there."""
    path = storage.database.path
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    upgrade(storage.database)


def launch_options(settings: Settings, runtime: TritonRuntime) -> LaunchOptions:
    """Of the embedded server. Its admin key is made when it is missing."""
    home = settings.server_home(SERVER)
    repository = home / "models"
    repository.mkdir(parents=True, exist_ok=True)
    return LaunchOptions(home, repository, runtime, admin_key=_admin_key(settings))


@dataclass(frozen=True, slots=True)
class Installation:
    """Makes what is missing of people, tokens, contexts, environment and server; what is there stays as it is."""

    settings: Settings
    storage: Storage
    services: Services

    def ensure(self, api: str, ports: Ports) -> None:
        fresh = not contexts.read(self.settings.context_file).contexts
        admin = self._admin(api)
        for name, role in PEOPLE.items():
            self._ensure_person(admin, name, role)
            self._ensure_context(admin, name, api)
        if fresh:
            contexts.use(self.settings.context_file, "author")
        self._ensure_environment(admin)
        self._ensure_server(admin, ports)

    def _admin(self, api: str) -> Principal:
        """Whoever has the home may act as its admin, as the database's owner could anyway."""
        with self.storage.read() as unit:
            admins = unit.access.admins()
        if admins:
            return admins[0]
        admin, issued = self.services.access.bootstrap("admin", None)
        contexts.put(self.settings.context_file, "admin", Context(api, issued.secret))
        return admin

    def _ensure_person(self, admin: Principal, name: str, role: Role) -> None:
        try:
            self.services.access.principal(admin, name)
        except NotFound:
            self.services.access.create(admin, name, PrincipalKind.PERSON, [role])

    def _ensure_context(self, admin: Principal, name: str, api: str) -> None:
        """With a token that works, and the log's key pinned."""
        path = self.settings.context_file
        found = contexts.read(path).contexts.get(name)
        key = self.services.audit.key
        if found is None or found.audit_key not in ("", key):
            found = Context(api)
        if not self._is_of(found.token, name):
            found = replace(found, token=self.services.access.issue(admin, name, "tritonctl up", None).secret)
        contexts.put(path, name, replace(found, api=api, audit_key=key))

    def _is_of(self, token: str, name: str) -> bool:
        try:
            return self.services.access.authenticate(token).name == name
        except Unauthenticated:
            return False

    def _ensure_environment(self, admin: Principal) -> None:
        try:
            self.services.environments.get(admin, ENVIRONMENT)
        except NotFound:
            self.services.environments.create(admin, ENVIRONMENT, "on this machine", {"approvals": 1})

    def _ensure_server(self, admin: Principal, ports: Ports) -> None:
        home = self.settings.server_home(SERVER)
        try:
            self.services.environments.add_server(
                admin,
                ENVIRONMENT,
                SERVER,
                ports.grpc_address,
                str(home / "models"),
                metrics_url=ports.metrics_url,
                admin_key=str(_key_file(self.settings)),
                log_file=str(home / "log" / "triton.log"),
                home=str(home),
            )
        except AlreadyExists:
            self.services.environments.place_server(admin, ENVIRONMENT, SERVER, ports.grpc_address, ports.metrics_url)


def _key_file(settings: Settings) -> Path:
    return settings.home / "keys" / f"server-{SERVER}.key"


def _admin_key(settings: Settings) -> str:
    path = _key_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        temporary = path.with_suffix(".new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123  # the mode
            file.write(secrets.token_urlsafe(24))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return path.read_text().strip()
