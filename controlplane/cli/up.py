# `tritonctl up`: API, worker and a real Triton server on this machine, in one home directory.
from __future__ import annotations

import logging
import signal
import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from controlplane.cli import logs
from controlplane.cli.session import say

if TYPE_CHECKING:
    from controlplane.settings import Settings
    from controlplane.supervision import Child
    from controlplane.triton.runtime.find import TritonRuntime
    from controlplane.triton.runtime.supervise import Supervisor

_TRITON_SECONDS = 120.0
_API_SECONDS = 60.0
_STOP_SECONDS = 15.0
_TICK_SECONDS = 0.1


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Of the API; default: 8900, or a free one where it is taken."
)
def up(port: int | None) -> None:
    """Run everything here: API, worker and a Triton server, until Ctrl-C.

    All of it lies in one home directory (TRITONCTL_HOME, by default ~/.tritonctl). Started again, it goes on where it
    was.
    """
    from controlplane.embedded import only_one
    from controlplane.settings import load_settings

    logs.configure()
    logging.getLogger().setLevel(logging.WARNING)
    settings = load_settings()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asks us to survive the terminal
            signal.signal(number, lambda *_: stop.set())
    with only_one(settings.home):
        run(settings, port or _port(settings), stop)


def run(settings: Settings, port: int, stop: threading.Event) -> None:
    """Everything, until `stop` is set. Called in the main thread: the children die with it."""
    from controlplane.embedded import Installation, launch_options, prepare_database
    from controlplane.supervision import Child
    from controlplane.triton.runtime.supervise import Supervisor
    from controlplane.wiring import build_services, open_storage

    runtime = _runtime(settings)
    storage = open_storage(settings)
    prepare_database(storage)
    with ExitStack() as stack:
        stack.callback(lambda: say("stopped"))
        triton = Supervisor(launch_options(settings, runtime))
        stack.callback(triton.stop)
        say("starting Triton …")
        triton.start(_TRITON_SECONDS)
        address = f"http://127.0.0.1:{port}"
        services = build_services(settings, storage)
        Installation(settings, storage, services).ensure(address, triton.server.ports)
        services.audit.sign()
        with storage.read() as unit:
            fresh = not unit.changes.list(limit=1)
        storage.database.close()
        children = []
        for child in (
            Child("api", ("api", "--host", "127.0.0.1", "--port", str(port)), home=settings.home),
            Child("worker", ("worker",), home=settings.home),
        ):
            stack.callback(child.stop, _STOP_SECONDS)
            child.start()
            children.append(child)
        children[0].wait_for(lambda: stop.is_set() or _answers(port), _API_SECONDS)
        if not stop.is_set():
            _tell(settings, address, triton, fresh=fresh)
        _keep(triton, children, stop)
        say("stopping …")


def _keep(triton: Supervisor, children: list[Child], stop: threading.Event) -> None:
    while not stop.wait(_TICK_SECONDS):
        if triton.tick():
            say("Triton ended and was started again")
        for child in children:
            child.tick()


def _runtime(settings: Settings) -> TritonRuntime:
    """The configured binary or the runtime environment, which is made when it is missing."""
    from controlplane.triton.runtime.find import find, installed

    if settings.tritonserver is None and installed(settings.runtime_dir) is None:
        from controlplane.cli.runtime import install_runtime

        install_runtime(settings)
    return find(settings.runtime_dir, settings.tritonserver)


def _port(settings: Settings) -> int:
    """That of the settings, or a free one."""
    for wanted in (settings.api.port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("the kernel gives a free port for 0")


def _answers(port: int) -> bool:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _tell(settings: Settings, address: str, triton: Supervisor, *, fresh: bool) -> None:
    """Where is what; and, while nothing was ever proposed, the first steps."""
    ports = triton.server.ports
    say(f"""
Everything runs.

  home      {settings.home}
  api       {address}
  triton    grpc {ports.grpc_address}, http {ports.http_address}
  log       {settings.home}/log, {triton.server.log}
  contexts  author (in use), approver, admin""")
    if fresh:
        say("""
Next, in another terminal:

  tritonctl model register digits MODEL.onnx
  tritonctl change propose digits --env local --version 1 --config generated --reason "first deployment"
  tritonctl change approve 1 --context approver
  tritonctl change apply 1""")
    say("""
Ctrl-C stops everything; started again, it goes on where it was.""")
