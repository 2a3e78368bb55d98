# The long-running processes of an installation.
from __future__ import annotations

import gc
import os
import signal
import socket
import threading

import click

from controlplane.cli import logs


@click.command()
@click.option("--host", help="Default: that of the settings, 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: that of the settings, 8900.")
def api(host: str | None, port: int | None) -> None:
    """Serve the HTTP API, on a database that was upgraded."""
    import uvicorn

    from controlplane.api.app import create_app
    from controlplane.settings import load_settings
    from controlplane.wiring import build_services, open_storage

    logs.configure()
    settings = load_settings()
    services = build_services(settings, open_storage(settings))
    services.installation.check()
    app = create_app(services, max_artifact_bytes=settings.artifacts.max_bytes)
    gc.freeze()  # what was imported stays for good: a collection that looks through it is a pause of 0.1 s
    uvicorn.run(
        app,
        host=host or settings.api.host,
        port=settings.api.port if port is None else port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


@click.command()
@click.option("--name", help="What it is called in leases; default: host and process.")
def worker(name: str | None) -> None:
    """Converge deployments, watch them, sign checkpoints. Any number may run on one database."""
    from controlplane.settings import load_settings
    from controlplane.storage.migrate import check_ready
    from controlplane.wiring import build_worker, open_storage

    logs.configure()
    settings = load_settings()
    storage = open_storage(settings)
    check_ready(storage.database)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    working = build_worker(settings, storage, name=name or f"{socket.gethostname()}-{os.getpid()}")
    gc.freeze()  # as above
    working.run(stop)
