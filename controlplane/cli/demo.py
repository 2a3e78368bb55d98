# `tritonctl demo`: the whole story on a live Triton server, in an installation of its own.
from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from controlplane.errors import DemoFailed

if TYPE_CHECKING:
    from controlplane.demo.narrator import Narrator
    from controlplane.demo.stage import Stage


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, and say how to go on.")
def demo(keep: bool) -> None:
    """See the whole story on a live Triton server, with real handwritten digits.

    It plays in a temporary home of its own, and ends with status 1 when anything is not as told. Triton's runtime
    environment is the one of your home (TRITONCTL_HOME), made there when it is missing.
    """
    from controlplane.demo.narrator import Narrator
    from controlplane.demo.stage import Stage
    from controlplane.settings import load_settings
    from controlplane.triton.runtime.find import installed

    settings = load_settings()
    if settings.tritonserver is None and installed(settings.runtime_dir) is None:
        from controlplane.cli.runtime import install_runtime

        install_runtime(settings)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    narrator = Narrator()
    stage = Stage(narrator, settings.runtime_dir, settings.tritonserver, keep=keep)
    try:
        _play(stage, narrator)
    except BaseException as error:
        if not (keep and isinstance(error, DemoFailed)):
            _close(stage)
        else:
            _tell_kept(stage)
        raise
    if keep:
        _tell_kept(stage)
    else:
        _close(stage)


def _play(stage: Stage, narrator: Narrator) -> None:
    from controlplane.demo.story import Story

    start = time.monotonic()
    click.echo(f"Starting `tritonctl up` in {stage.home}: the API, a worker and a Triton server, for this demo only …")
    stage.open()
    click.echo(f"  up after {time.monotonic() - start:.1f} s")
    Story(stage, narrator).tell()
    click.echo()
    seconds = time.monotonic() - start
    click.secho(
        f"All was as told: {narrator.commands} commands and {narrator.checks} checks in {seconds:.0f} s.", bold=True
    )


def _close(stage: Stage) -> None:
    """Not to be interrupted: what is half stopped would be left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # whoever read it, a terminal or a pipe, may be gone
        click.echo("stopping, and removing what was made …")
    stage.close()


def _tell_kept(stage: Stage) -> None:
    click.echo(f"""
It goes on running. To look around, in this terminal or another:

  export TRITONCTL_HOME={stage.home}
  cd {stage.desk}
  tritonctl change list

To stop it, and then to remove it:

  kill {stage.pid}
  rm -r {stage.home}""")
