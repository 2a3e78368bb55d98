# Starts, watches and stops one tritonserver on loopback, and leaves nothing of it behind.
from __future__ import annotations

import fcntl
import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime import processes
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.paths import TETHER, check_shell_safe
from controlplane.triton.runtime.ports import choose_ports, is_free
from controlplane.triton.runtime.stage import stage_backends, stage_working_directory
from controlplane.triton.runtime.state import HOST, Ports, ServerState, read_state, write_state

ADMIN_KEY = "admin-key"
"""The key's name; a client sends it in the gRPC header `triton-grpc-protocol-admin-key`, over HTTP in `admin-key`."""

RESTRICTED = "model-repository,shared-memory,trace,logging"
LOG_LIMIT_BYTES = 16 * 1024 * 1024
_PORT_TRIES = 5


PROBES = "probes"
"""Below the server's home: what each instance counts of the probes that it answered."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """`home` holds what is the server's own: state.json, log/, backends/ and an empty working directory.

    With `ports` None those of the last start in this home are taken, or free ones where they are taken. `admin_key` is asked of whoever loads, unloads
    or changes log and trace settings; on this machine `ps` shows it, as Triton takes it only on its command line.
    """

    home: Path
    repository: Path
    runtime: TritonRuntime
    admin_key: str | None = None
    ports: Ports | None = None
    auto_complete_config: bool = False
    exit_timeout_seconds: int = 30
    extra_arguments: tuple[str, ...] = ()


class TritonProcess:
    """One server in one home. Not for use by several threads at once.

    The server dies with the *thread* that called `start` (Linux ties it to that), so start it from the main thread or
    from one that lives as long.
    """

    def __init__(self, options: LaunchOptions) -> None:
        for path, what in ((options.home, "the server's home"), (options.repository, "the model repository")):
            check_shell_safe(path, what)
        check_shell_safe(options.runtime.binary, "tritonserver")
        self._options = options
        self._ports = options.ports
        self._settled = options.ports is not None  # once clients may know the ports, they never change
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._state: ServerState | None = None

    @property
    def state(self) -> ServerState:
        """Of the last start. Raises RuntimeUnavailable before the first."""
        if self._state is None:
            raise RuntimeUnavailable(f"the server in {self._options.home} was not started", hint="start it first")
        return self._state

    @property
    def ports(self) -> Ports:
        return self.state.ports

    @property
    def log(self) -> Path:
        return self._options.home / "log" / "triton.log"

    def start(self) -> None:
        """Spawn the server and return at once. What an earlier owner of this home left running is killed first.

        Raises RuntimeUnavailable when another process owns this home now, or there is no repository.
        """
        home = self._options.home
        if not self._options.repository.is_dir():
            raise RuntimeUnavailable(
                f"there is no model repository {self._options.repository}", hint="make the directory, empty if need be"
            )
        home.mkdir(parents=True, exist_ok=True)
        self._own(home)
        before = read_state(home)
        if before is not None:
            before.kill()
        if self._options.runtime.environment is not None:
            stage_backends(self._options.runtime.environment, home / "backends")
        stage_working_directory(home / "cwd")
        self._ports = self._ports or _ports_of(before) or choose_ports()
        self._state = ServerState(
            generation=before.generation + 1 if before else 1,
            shm_prefix=f"tritonctl_{secrets.token_hex(8)}_",
            ports=self._ports,
            log=str(self.log),
            pid=None,
            born=None,
        )
        write_state(home, self._state)
        self._process = self._spawn(self._state)
        self._state = replace(self._state, pid=self._process.pid, born=processes.birth(self._process.pid))
        write_state(home, self._state)

    def wait_ready(self, deadline_seconds: float) -> None:
        """Until gRPC, HTTP and metrics answer; models whose loading failed do not count.

        Chosen ports that another process took meanwhile are replaced by others. Raises RuntimeUnavailable, with the
        end of the log, when the server exits or the time is over; in the latter case it is left running.
        """
        end = time.monotonic() + deadline_seconds
        tries = 1
        while not self.ready():
            if self.poll() is not None:
                self.clean()
                if not self._lost_port_race() or tries >= _PORT_TRIES:
                    raise self._failure(f"tritonserver exited with status {self.poll()} before it was ready")
                tries += 1
                self._ports = None
                self.start()
            if time.monotonic() > end:
                raise self._failure(f"tritonserver was not ready within {deadline_seconds:g} s")
            time.sleep(0.02)
        self._settled = True

    def ready(self) -> bool:
        """This very server answers, and not another one that has its ports."""
        if self.poll() is not None or not self._listens():
            return False
        connection = http.client.HTTPConnection(HOST, self.ports.http, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def poll(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, deadline_seconds: float = 40.0) -> int | None:
        """SIGTERM, and SIGKILL past the deadline; then nothing of the server is left and the home is free. Returns the
        exit status, None when it was never started."""
        status = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                status = self._process.wait(deadline_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
        self.clean()
        self._disown()
        return status

    def kill(self) -> None:
        """SIGKILL, and nothing left; the home stays ours, so `start` may follow."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.clean()

    def clean(self) -> None:
        """Remove what the dead server left: its backend processes and its shared memory."""
        if self._state is not None and self.poll() is not None:
            processes.sweep(self._state.shm_prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, state: ServerState) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.rename(self.log.with_suffix(".log.1"))
        tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*tether, *self._command(state)],
                cwd=self._options.home / "cwd",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for whoever supervises, not for the server
            )

    def _command(self, state: ServerState) -> list[str]:
        options, ports = self._options, state.ports
        backends = options.home / "backends" if options.runtime.environment else _own_backends(options.runtime.binary)
        command = [
            str(options.runtime.binary),
            f"--model-repository={options.repository}",
            *([f"--backend-directory={backends}"] if backends is not None else []),
            "--model-control-mode=explicit",
            "--load-model=*",
            "--strict-readiness=false",
            "--exit-on-error=false",
            f"--exit-timeout-secs={options.exit_timeout_seconds}",
            f"--http-address={HOST}",
            f"--grpc-address={HOST}",
            f"--metrics-address={HOST}",
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            "--allow-metrics=true",
            f"--backend-config=python,shm-region-prefix-name={state.shm_prefix}",
        ]
        if not options.auto_complete_config:
            command.append("--disable-auto-complete-config")
        if options.admin_key is not None:
            command.append(f"--grpc-restricted-protocol={RESTRICTED}:{ADMIN_KEY}={options.admin_key}")
            command.append(f"--http-restricted-api={RESTRICTED}:{ADMIN_KEY}={options.admin_key}")
        return [*command, *options.extra_arguments]

    def _environment(self) -> dict[str, str]:
        """Of a given binary: ours. Else as little as will do: the Python of the runtime environment first on PATH, its
        library found first, and no GPU, as its onnxruntime has only the CPU: Triton then refuses KIND_GPU by name and
        gives instances without a kind to the CPU."""
        environment = self._options.runtime.environment
        if environment is None:
            return {**os.environ, "TRITONCTL_PROBES": str(self._options.home / PROBES)}
        return {
            "PATH": f"{environment.directory}/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": f"{environment.directory}/loader",
            "HOME": str(self._options.home / "cwd"),
            "LANG": "C.UTF-8",
            "CUDA_VISIBLE_DEVICES": "",
            "TRITONCTL_PROBES": str(self._options.home / PROBES),
        }

    def _listens(self) -> bool:
        assert self.state.pid is not None
        try:
            sockets = psutil.Process(self.state.pid).net_connections("tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ends just now
            return False
        listening = {connection.laddr.port for connection in sockets if connection.status == psutil.CONN_LISTEN}
        return listening >= {self.ports.grpc, self.ports.http, self.ports.metrics}

    def _own(self, home: Path) -> None:
        if self._lock is not None:
            return
        lock = (home / "owner.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RuntimeUnavailable(
                f"another process runs the server in {home}", hint="stop that one, or use another home"
            ) from None
        self._lock = lock

    def _disown(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lost_port_race(self) -> bool:
        return not self._settled and not _all_free(self.ports)

    def _failure(self, message: str) -> RuntimeUnavailable:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        if self._options.admin_key is not None:
            lines = [line.replace(self._options.admin_key, "…") for line in lines]
        return RuntimeUnavailable(message + ":\n" + "\n".join(lines), hint=f"read {self.log}")


def _ports_of(before: ServerState | None) -> Ports | None:
    return before.ports if before is not None and _all_free(before.ports) else None


def _all_free(ports: Ports) -> bool:
    return all(is_free(port) for port in (ports.grpc, ports.http, ports.metrics))


def _own_backends(binary: Path) -> Path | None:
    """Of a given binary: the backends installed beside it; None leaves it to the binary's own default."""
    backends = binary.parent.parent / "backends"
    return backends if backends.is_dir() else None
