# Triton servers of an environment.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from clients.control.types import NewServer, Page, ServerChanges
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, when
from controlplane.cli.session import Noun, Session, pass_session, say

F = TypeVar("F", bound=Callable[..., Any])

_REACHED = (
    click.option("--metrics-url", metavar="URL", help="Its metrics endpoint."),
    click.option("--admin-key", metavar="NAME", help="Name of the secret that holds its restricted-protocol key."),
    click.option("--log-file", metavar="FILE", help="Its log, as the worker sees it: failures are explained from it."),
    click.option("--tls-ca", metavar="FILE", help="Certificates to trust."),
    click.option("--tls-certificate", metavar="FILE", help="Our certificate, for mutual TLS."),
    click.option("--tls-key", metavar="FILE", help="Our key, for mutual TLS."),
)


def _reached(command: F) -> F:
    for option in reversed(_REACHED):
        command = option(command)
    return command


@click.group(cls=Noun)
def server() -> None:
    """Triton servers of an environment."""


@server.command()
@click.argument("name")
@options.environment
@click.option("--address", required=True, metavar="HOST:PORT", help="Its gRPC address.")
@click.option("--repository", required=True, metavar="DIR", help="Its model repository, as the worker sees it.")
@_reached
@pass_session
def add(session: Session, /, env: str, **given: str) -> None:
    """Add server NAME to an environment."""
    added = session.client.environments.add_server(env, NewServer(**given))
    emit(session, added, lambda: facts(asdict(added).items()))


@server.command("set")
@click.argument("name")
@options.environment
@click.option("--address", metavar="HOST:PORT", help="Its gRPC address.")
@click.option("--repository", metavar="DIR", help="Its model repository; not while anything is deployed there.")
@_reached
@pass_session
def set_server(session: Session, /, name: str, env: str, **given: str | None) -> None:
    """Change how server NAME is reached: what is given, and '' for none."""
    changed = session.client.environments.change_server(env, name, ServerChanges(**given))
    emit(session, changed, lambda: facts(asdict(changed).items()))


@server.command()
@click.argument("name")
@options.environment
@pass_session
def remove(session: Session, name: str, env: str) -> None:
    """Forget server NAME. It goes on serving, and its repository stays as it is."""
    session.client.environments.remove_server(env, name)
    say(f"removed server {name} of {env}")


@server.command("list")
@options.environments
@pass_session
def list_servers(session: Session, env: str | None) -> None:
    """List the servers, with what the worker's last look found."""
    rooms = session.client.environments
    found = Page(tuple(one for name in options.given(session, env) for one in rooms.servers(name).items))
    emit_page(
        session,
        found,
        ("NAME", "ENVIRONMENT", "ADDRESS", "STATE", "WATCHED", "REPOSITORY"),
        lambda one: (one.name, one.environment, one.address, one.state, when(one.watched_at), one.repository),
        f"no servers yet: tritonctl server add NAME --env {env or 'ENV'} --address HOST:PORT --repository DIR",
    )


@server.command()
@click.argument("name")
@options.environment
@pass_session
def show(session: Session, name: str, env: str) -> None:
    """Show server NAME."""
    found = session.client.environments.server(env, name)
    emit(session, found, lambda: facts(asdict(found).items()))
