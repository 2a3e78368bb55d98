# The real API on a loopback port, over real services on a database of the test's own.
from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from onnx import parser

from clients.control import contexts
from clients.control.client import ControlClient
from clients.control.contexts import Context
from clients.control.types import NewEnvironment, NewServer
from controlplane.api.app import create_app
from controlplane.cli.app import main
from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.services.rooms import Services
from controlplane.settings import Settings, load_settings
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import build_services

DOUBLE = "double (float[N,4] x) => (float[N,4] y) <float f = {2.0}> { y = Mul(x, f) }"
MAX_ARTIFACT_BYTES = 9 * 2**20  # over the limit of other bodies, and small


@pytest.fixture(scope="session")
def serving() -> Iterator[tuple[FastAPI, str]]:
    """One server for all tests: each puts its own services in."""
    app = create_app(None, max_artifact_bytes=MAX_ARTIFACT_BYTES)  # type: ignore[arg-type]  # each test gives its own
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield app, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@dataclass
class Api:
    """`as_(name)` is a client of the SDK, `http(name)` plain HTTP, with the token of that principal."""

    url: str
    settings: Settings
    storage: Storage
    services: Services
    admin: Principal
    tokens: dict[str, str] = field(default_factory=dict)
    open: list[ControlClient] = field(default_factory=list)

    def add(self, name: str, *roles: Role, kind: PrincipalKind = PrincipalKind.PERSON) -> Principal:
        made = self.services.access.create(self.admin, name, kind, roles)
        self.tokens[name] = self.services.access.issue(self.admin, name, "", None).secret
        return made

    def as_(self, name: str) -> ControlClient:
        self.open.append(ControlClient(self.url, self.tokens[name]))
        return self.open[-1]

    def http(self, name: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, verify=False, timeout=30)


@pytest.fixture(params=["sqlite"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The stores are tested on both databases; what the API adds does not depend on them."""
    return str(request.param)


@pytest.fixture
def api(serving: tuple[FastAPI, str], database: Database, tmp_path: Path) -> Iterator[Api]:
    """With an admin `admin`, an operator `author`, an approver `approver` and a viewer `viewer`."""
    app, url = serving
    settings = load_settings(home=tmp_path, artifacts={"max_bytes": MAX_ARTIFACT_BYTES})
    storage = Storage(database)
    services = build_services(settings, storage)
    app.state.services = services
    admin, issued = services.access.bootstrap("admin", None)
    found = Api(url, settings, storage, services, admin, {"admin": issued.secret})
    found.add("author", Role.OPERATOR)
    found.add("approver", Role.APPROVER)
    found.add("viewer", Role.VIEWER)
    yield found
    for client in found.open:
        client.close()


class Cli:
    """Runs command lines; the context `NAME` is that principal."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Standard output, or standard error of one that is to fail."""
        code = main(list(arguments))
        captured = self._capsys.readouterr()
        assert code == status, captured.err
        return captured.err if status else captured.out

    def quiet(self, *arguments: str) -> None:
        """Without taking what is written."""
        assert main(list(arguments)) == 0

    def json(self, *arguments: str) -> object:
        return json.loads(self(*arguments, "-o", "json"))


@pytest.fixture
def cli(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("TRITONCTL_TOKEN", "TRITONCTL_CONTEXT", "TRITONCTL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITONCTL_HOME", str(tmp_path / "client"))
    for name, token in api.tokens.items():
        contexts.put(contexts.context_path(), name, Context(api.url, token), use=name == "author")
    admin = api.as_("admin")
    admin.environments.create(NewEnvironment("prod", "what customers see"))
    admin.environments.add_server("prod", NewServer("one", "127.0.0.1:1", str(tmp_path / "models")))
    return Cli(capsys)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "double.onnx"
    path.write_bytes(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {DOUBLE}').SerializeToString())
    return str(path)
