# Options that several commands take.
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from controlplane.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

environment = click.option(
    "-e", "--env", required=True, envvar="TRITONCTL_ENV", metavar="ENV", help="The environment [env: TRITONCTL_ENV]."
)
environments = click.option(
    "-e",
    "--env",
    envvar="TRITONCTL_ENV",
    metavar="ENV",
    help="Only of this environment [env: TRITONCTL_ENV]; default: of all.",
)
server_of = click.option(
    "-e",
    "--env",
    envvar="TRITONCTL_ENV",
    metavar="ENV",
    help="For the server of that environment [env: TRITONCTL_ENV]; default: one on the API's host.",
)
cursor = click.option("--cursor", help="Continue a list where its page before ended.")
limit = click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Lines of one page.")


def given(session: Session, env: str | None) -> tuple[str, ...]:
    """The environment of `environments`, or all of them."""
    return (env,) if env else tuple(found.name for found in session.client.environments.list().items)


def waiting(command: F) -> F:
    """`--wait/--no-wait` and `--timeout`."""
    command = click.option(
        "--timeout",
        type=click.FloatRange(min=1),
        default=1800.0,
        show_default=True,
        help="Seconds to wait; the change goes on without us.",
    )(command)
    return click.option("--wait/--no-wait", default=True, help="Wait until it is applied or undone (default).")(command)


acknowledge = click.option(
    "--acknowledge",
    type=click.Choice(("rolled_back",)),
    multiple=True,
    help="rolled_back: apply again what was rolled back before.",
)
