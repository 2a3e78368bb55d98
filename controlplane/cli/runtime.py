# The embedded Triton server: its runtime environment.
from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controlplane.cli.output import emit, facts
from controlplane.cli.progress import steps_bar
from controlplane.cli.session import Noun, Session, pass_session, say

if TYPE_CHECKING:
    from controlplane.settings import Settings


@click.group(cls=Noun)
def runtime() -> None:
    """The embedded Triton server."""


@runtime.command(cls=click.Command)
def install() -> None:
    """Make the runtime environment in the home directory, unless it is there."""
    from controlplane.settings import load_settings

    settings = load_settings()
    install_runtime(settings)
    say(f"installed below {settings.runtime_dir}")


@runtime.command()
@pass_session
def info(session: Session) -> None:
    """Show which tritonserver is used."""
    from controlplane.settings import load_settings
    from controlplane.triton.runtime import find

    settings = load_settings()
    found = find.info(settings.runtime_dir, settings.tritonserver)
    emit(session, found, lambda: facts(found.items()))


def install_runtime(settings: Settings) -> None:
    from controlplane.triton.runtime.install import install as make

    with steps_bar("installing Triton") as progress:
        make(settings.runtime_dir, progress=progress)
