# Shell completion.
from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from controlplane.cli.session import Verb


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    bash: eval "$(tritonctl completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None
    from controlplane.cli.app import app

    click.echo(found(app, {}, "tritonctl", "_TRITONCTL_COMPLETE").source())
