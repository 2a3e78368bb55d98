# The server that candidates are measured on: one that we launch and clean up, or one by its address.
"""Scratch models have names of their own (`BenchModel.scratch_name`), and nothing else is touched."""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from clients.inference import InferenceClient, InferenceError, Tls
from clients.load.measure import Target
from clients.load.server import server_name
from clients.load.transports import Via
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.config_revision import revision_config
from controlplane.domain.fingerprints import Serving
from controlplane.domain.servers import Backend
from controlplane.domain.sweep_rounds import SCRATCH, BenchModel
from controlplane.errors import ArtifactInvalid, Conflict, LoadFailed, RuntimeUnavailable, ServerUnreachable
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.repository import LocalRepository
from controlplane.triton.runtime.find import TRITON_VERSION, TritonRuntime
from controlplane.triton.runtime.keeper import ServerKeeper
from controlplane.triton.runtime.launch import ADMIN_KEY, LaunchOptions, TritonProcess
from controlplane.triton.runtime.processes import birth, kill
from controlplane.triton.server_log import ServerLog, poll_failure
from controlplane.triton.side_load import Content, SideLoader

GoOn = Callable[[], None]

_START_SECONDS = 60.0
_COME_BACK_SECONDS = 60.0
_LEAVE_SECONDS = 15.0
_TAKEN_SECONDS = 30.0
_DIE_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_LOG_LINES, _LOG_CHARACTERS = 60, 8000
_CACHE_BYTES = 64 << 20
_MOST_SENT = 1 << 31


class Blobs(Protocol):
    """What is needed of the artifact store."""

    def read(self, sha256: str) -> Iterator[bytes]: ...

    def fetch(self, manifest: Manifest, directory: Path) -> None: ...


class Scratch(AbstractContextManager["Scratch"], Protocol):
    """A server, held from entering to leaving. Not for use by several threads: what is started dies with the thread that entered."""

    local: bool
    """Whether the server runs on this machine."""

    @property
    def client(self) -> InferenceClient: ...

    @property
    def target(self) -> Target: ...

    def serving(self) -> Serving: ...

    def load(self, model: BenchModel, store: Blobs, *, seconds: float, go_on: GoOn) -> None:
        """Raises LoadFailed, LoadUnknown, ServerUnreachable and ServerRefused as SideLoader.load does, and what is wrong with
        the model's config or files."""

    def unload(self, names: Sequence[str], *, go_on: GoOn) -> None:
        """Returns when they use no processor any more. Those that are not there are no matter."""

    def alive(self) -> bool: ...

    def lost(self, name: str) -> str:
        """How backend processes of a loaded model ended, in words; empty as long as none did, or where nobody can tell."""

    def restart(self, go_on: GoOn) -> None:
        """A server without any scratch model, whatever the present one does. Raises RuntimeUnavailable or ServerUnreachable."""

    def mark(self) -> int:
        """Of the end of the server's log."""

    def log(self, mark: int) -> str:
        """The end of what was written there since."""


class EmbeddedScratch:
    """Launched by us in `home`, which holds what is the server's own and its repository. What a predecessor left there, its server
    and shared memory too, is removed first; leaving leaves nothing loaded, and no process."""

    local = True

    def __init__(self, home: Path, runtime: TritonRuntime) -> None:
        self.home = home
        self._models = home / "models"
        self._runtime = runtime
        self._key = secrets.token_urlsafe(24)
        caches = runtime.binary.parent.parent / "caches"
        cache = (f"--cache-config=local,size={_CACHE_BYTES}", f"--cache-directory={caches}") if caches.is_dir() else ()
        options = LaunchOptions(
            home, self._models, runtime, admin_key=self._key, exit_timeout_seconds=5, extra_arguments=cache
        )
        self._process = TritonProcess(options)
        self._log = ServerLog(self._process.log)
        self._codec = PbtxtCodec()
        self._backends: dict[str, frozenset[Backend]] = {}
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(only_one(self.home))
            held.callback(self._clear)
            held.callback(self._process.stop, 0)  # killed: there is nothing that it could lose
            self._start()
            address = self._process.ports.grpc_address
            self._client = held.enter_context(InferenceClient(address, metadata=self._metadata))
            self._loader = SideLoader(self._client)
            self._repository = LocalRepository(self._models)
            self._keeper = ServerKeeper(self.home, self._repository.root, self._loader.alive)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @property
    def client(self) -> InferenceClient:
        return self._client

    @property
    def target(self) -> Target:
        host, _, port = self._process.ports.grpc_address.rpartition(":")
        return Target(host, int(port), metadata=self._metadata)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((f"triton-grpc-protocol-{ADMIN_KEY}", self._key),)

    def serving(self) -> Serving:
        environment = self._runtime.environment
        with self._runtime.binary.open("rb") as binary:
            build = hashlib.file_digest(binary, "sha256").hexdigest()
        if environment is None:
            return Serving(_version_of(self._client), f"sha256:{build}")
        backends = {"numpy": environment.numpy, "onnxruntime": environment.onnxruntime, "python": environment.python}
        return Serving(TRITON_VERSION, f"sha256:{build}", tuple(sorted(backends.items())))

    def load(self, model: BenchModel, store: Blobs, *, seconds: float, go_on: GoOn) -> None:
        name, mark = model.scratch_name, self.mark()
        config = revision_config({**model.config, "name": name}, [model.version])
        self._repository.write_version(name, model.version, model.manifest, store)
        self._repository.write_beside(name, model.beside, store)
        self._repository.write_config(name, self._codec.render(config))
        try:
            self._loader.load(name, deadline_seconds=seconds, go_on=go_on)
        except LoadFailed as error:
            cause = poll_failure(self._log.since(mark), name)
            raise LoadFailed(error.message + (f"; its log says: {cause}" if cause else "")) from None
        self._backends[name] = self._keeper.backends(name)

    def unload(self, names: Sequence[str], *, go_on: GoOn) -> None:
        for name in names:
            self._loader.unload(name, go_on=go_on)
            self._repository.remove_model(name)
        end = time.monotonic() + _LEAVE_SECONDS
        while any(self._keeper.backends(name) for name in names) and time.monotonic() < end:
            go_on()
            time.sleep(_PAUSE_SECONDS)
        for name in names:
            for backend in self._keeper.backends(
                name
            ):  # one that hangs, or whose server waits for a lost request, for ever
                kill(backend.pid, backend.born)
            self._backends.pop(name, None)

    def alive(self) -> bool:
        return self._process.poll() is None and self._loader.alive()

    def lost(self, name: str) -> str:
        end = time.monotonic() + _DIE_SECONDS
        while not self._loader.alive():
            if (status := self._process.poll()) is not None:
                return f"the server ended ({_ended(status)})"
            if time.monotonic() > end:
                return "the server does not answer"
            time.sleep(_PAUSE_SECONDS)
        known = self._backends.get(name, frozenset())
        ended = sum(birth(one.pid) != one.born for one in known)
        return f"{ended} of its {len(known)} backend processes ended" if ended else ""

    def backends(self, name: str) -> frozenset[Backend]:
        """Of a loaded model, as they are now."""
        return self._keeper.backends(name)

    def restart(self, go_on: GoOn) -> None:
        self._process.kill()
        go_on()
        self._start()

    def mark(self) -> int:
        return self._log.end()

    def log(self, mark: int) -> str:
        return _end_of(self._log.since(mark).replace(self._key, "…"))

    def _start(self) -> None:
        """The repository is emptied before, as the server loads whatever it finds there."""
        self._clear()
        self._models.mkdir(parents=True)
        self._backends.clear()
        self._process.start()
        self._process.wait_ready(_START_SECONDS)

    def _clear(self) -> None:
        for directory in (self._models, self.home / f".tritonctl-{self._models.name}"):
            shutil.rmtree(directory, ignore_errors=True)


class RemoteScratch:
    """A bench server that we did not launch: nobody else measures there. Its repository is not looked at, models are sent with the
    request to load them; scratch models that a predecessor left are unloaded first. Its log stays there. `alone`: it may serve
    nothing else, as somebody named it who may not know what it is."""

    def __init__(self, address: str, *, key: str | None = None, tls: Tls | None = None, alone: bool = False) -> None:
        self._address = address.rpartition("/")[2]
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        self.local = _is_loopback(host)
        metadata = () if key is None else ((f"triton-grpc-protocol-{ADMIN_KEY}", key),)
        self._target = Target(host, int(port), metadata=metadata, via=Via(tls=tls))
        self._client = InferenceClient(self._address, tls=tls, metadata=metadata)
        self._loader = SideLoader(self._client)
        self._alone = alone
        self._own = set[str]()

    def __enter__(self) -> Self:
        if not self._loader.alive():
            raise self._unreachable()
        if self._alone and (others := [one for one in self._loader.loaded("") if not one.startswith(SCRATCH)]):
            raise Conflict(
                f"the server at {self._address} serves {', '.join(map(repr, others))}: candidates and their load would meet who uses that",
                hint="name a Triton that serves nobody, or name this one in TRITONCTL_SWEEPS__BENCHES",
            )
        self._unload(self._loader.loaded(SCRATCH))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._loader.alive():
                # whoever came after us, since our sweep was cancelled, has models of its own there
                self._unload([name for name in self._loader.loaded(SCRATCH) if name in self._own])
        finally:
            self._client.close()

    @property
    def client(self) -> InferenceClient:
        return self._client

    @property
    def target(self) -> Target:
        return self._target

    def serving(self) -> Serving:
        return Serving(_version_of(self._client))

    def load(self, model: BenchModel, store: Blobs, *, seconds: float, go_on: GoOn) -> None:
        if model.manifest.size + model.beside.size >= _MOST_SENT:
            raise ArtifactInvalid(
                f"{model.manifest.size + model.beside.size} bytes cannot be sent to the bench server at {self._address}",
                hint="a gRPC message has less than 2 GiB: use the embedded bench for this model",
            )
        config = revision_config({**model.config, "name": model.scratch_name}, [model.version])
        files = {f"{model.version}/{entry.path}": _bytes(store, entry) for entry in model.manifest.files}
        files |= {entry.path: _bytes(store, entry) for entry in model.beside.files}
        self._own.add(model.scratch_name)
        self._loader.load(model.scratch_name, content=Content(config, files), deadline_seconds=seconds, go_on=go_on)

    def unload(self, names: Sequence[str], *, go_on: GoOn) -> None:
        for name in names:
            self._loader.unload(name, go_on=go_on)

    def alive(self) -> bool:
        return self._loader.alive()

    def lost(self, name: str) -> str:
        if not self._loader.alive():
            return "the server went away"
        return "" if self._loader.ready(name) else "the server does not serve it any more"

    def restart(self, go_on: GoOn) -> None:
        """It is not ours to restart: one that is away is waited for, as somebody may watch over it."""
        end = time.monotonic() + _COME_BACK_SECONDS
        while not self._loader.alive():
            go_on()
            if time.monotonic() > end:
                raise self._unreachable()
            time.sleep(_PAUSE_SECONDS)
        self._unload(self._loader.loaded(SCRATCH))

    def mark(self) -> int:
        return 0

    def log(self, mark: int) -> str:  # noqa: ARG002  # nobody here can read it
        return ""

    def _unload(self, names: Sequence[str]) -> None:
        for name in names:
            self._loader.unload(name, go_on=lambda: None)

    def _unreachable(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"no bench server can be reached at {self._address}",
            hint="see that it runs, or leave the bench out to use an embedded one",
            details={"address": self._address},
        )


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Of this machine on the bench of that home. Whose sweep was cancelled, or taken over, leaves soon: the next one's does not fail of it."""
    home.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + _TAKEN_SECONDS
    with (home / "bench.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RuntimeUnavailable(
                        f"another process measures on the bench in {home}",
                        hint="wait for it; a bench takes one sweep at a time",
                    ) from None
                time.sleep(_PAUSE_SECONDS)
        yield


def _version_of(client: InferenceClient) -> str | None:
    try:
        return server_name(client, deadline_seconds=_PAUSE_SECONDS * 50).rpartition(" ")[2]
    except InferenceError:
        return None


def _bytes(store: Blobs, entry: FileEntry) -> bytes:
    return b"".join(store.read(entry.sha256))


def _end_of(text: str) -> str:
    return "\n".join(text.splitlines()[-_LOG_LINES:])[-_LOG_CHARACTERS:]


def _ended(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
