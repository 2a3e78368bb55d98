# The first admin of an installation, made next to its database.
from __future__ import annotations

from datetime import timedelta

import click

from clients.control import contexts
from clients.control.contexts import Context
from controlplane.cli.session import Noun, say


@click.group(cls=Noun)
def access() -> None:
    """The first admin of an installation."""


@access.command(cls=click.Command)
@click.argument("name", default="admin")
@click.option("--days", type=click.IntRange(min=1), default=90, show_default=True, help="How long the token lives.")
@click.option("--api", metavar="URL", help="Also write a context NAME for this API, and use it.")
def bootstrap(name: str, days: int, api: str | None) -> None:
    """Create the first admin, with direct access to the database. The token is shown this once, on stdout."""
    from controlplane.services.access import AccessService
    from controlplane.settings import load_settings
    from controlplane.storage.migrate import check_ready
    from controlplane.wiring import SystemClock, open_storage

    storage = open_storage(load_settings())
    check_ready(storage.database)
    made, issued = AccessService(storage, SystemClock()).bootstrap(name, timedelta(days=days))
    say(f"created admin {made.name}; the token lives {days} days and is not shown again:")
    click.echo(issued.secret)
    if api is not None:
        contexts.put(contexts.context_path(), name, Context(api.rstrip("/"), issued.secret), use=True)
        say(f"wrote context {name}, in use")
