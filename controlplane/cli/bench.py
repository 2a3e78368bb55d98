# Hosts that sweeps are measured on.
from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clients.load.command import load as one_host
from clients.load.command import perform
from clients.load.options import Options
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


def _load(scheduler: str, hosts: int | None, form: str, raw: Path | None, **given: Any) -> None:  # what click parsed
    from controlplane.bench.dask_load import SeveralHosts

    options = replace(Options(**given), calibration=False)  # this host's ceiling is not theirs
    with SeveralHosts(scheduler, hosts) as several:
        perform(options, form, raw, several)


bench.add_command(
    click.Command(
        "load",
        params=[
            click.Option(
                ["--scheduler"], required=True, help="The Dask scheduler: tcp://HOST:PORT, or tls://HOST:PORT."
            ),
            click.Option(
                ["--hosts"], type=click.IntRange(1), help="How many bench workers send; default: all there are."
            ),
            *one_host.params,
        ],
        callback=_load,
        help="""Send one load to a server from several bench hosts at once.

        MODEL and the options are those of `python -m clients.load`; processes and connections are each host's. Every call is
        in the result, as if one host had sent all. The load lasts its --seconds. The address in --url is reached
        from all hosts, whose clocks are synchronized.""",
    )
)
