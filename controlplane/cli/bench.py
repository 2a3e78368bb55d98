# Hosts that sweeps are measured on.
from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from controlplane.cli import logs
from controlplane.cli.session import Noun, say

if TYPE_CHECKING:
    from controlplane.bench.slot import BenchSlot


@click.group(cls=Noun)
def bench() -> None:
    """Hosts that sweeps are measured on."""


@bench.command(cls=click.Command)
@click.option("--scheduler", required=True, help="The Dask scheduler: tcp://HOST:PORT, or tls://HOST:PORT.")
@click.option("--name", help="What the worker is called there; default: its address.")
def worker(scheduler: str, name: str | None) -> None:
    """Measure on this host what sweeps send through a Dask scheduler.

    One sweep at a time, on a Triton of its own, until the scheduler goes away. Whoever reaches the scheduler can run
    anything on this host, as is usual with Dask: keep it in a network of its own, or use TLS with certificates
    on both sides (DASK_DISTRIBUTED__COMM__*).
    """
    import asyncio

    from controlplane.settings import load_settings
    from controlplane.wiring import bench_slot

    logs.configure()
    settings = load_settings()
    asyncio.run(_serve(scheduler, bench_slot(settings), name, str(settings.bench_home / "dask")))
    say("the scheduler is gone, or this was to end")


async def _serve(scheduler: str, slot: BenchSlot, name: str | None, directory: str) -> None:
    import asyncio

    from controlplane.bench.slot import bench_worker

    async with bench_worker(scheduler, slot, name=name, directory=directory) as working:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: loop.create_task(working.close()))
        await working.finished()
