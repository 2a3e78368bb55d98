# Triton servers of an environment.
from __future__ import annotations

from dataclasses import asdict

import click

from clients.control.errors import ApiError
from clients.control.types import NewServer
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, when
from controlplane.cli.session import Noun, Session, pass_session


@click.group(cls=Noun)
def server() -> None:
    """Triton servers of an environment."""


@server.command()
@click.argument("name")
@options.environment
@click.option("--address", required=True, metavar="HOST:PORT", help="Its gRPC address.")
@click.option("--repository", required=True, metavar="DIR", help="Its model repository, as the worker sees it.")
@click.option("--metrics-url", metavar="URL", help="Its metrics endpoint.")
@click.option("--admin-key", metavar="NAME", help="Name of the secret that holds its restricted-protocol key.")
@click.option("--log-file", metavar="FILE", help="Its log, as the worker sees it: failures are explained from it.")
@click.option("--tls-ca", metavar="FILE", help="Certificates to trust.")
@click.option("--tls-certificate", metavar="FILE", help="Our certificate, for mutual TLS.")
@click.option("--tls-key", metavar="FILE", help="Our key, for mutual TLS.")
@pass_session
def add(session: Session, /, env: str, **given: str) -> None:
    """Add server NAME to an environment."""
    added = session.client.environments.add_server(env, NewServer(**given))
    emit(session, added, lambda: facts(asdict(added).items()))


@server.command("list")
@options.environment
@pass_session
def list_servers(session: Session, env: str) -> None:
    """List the servers of an environment, with what the worker's last look found."""
    emit_page(
        session,
        session.client.environments.servers(env),
        ("NAME", "ADDRESS", "STATE", "WATCHED", "REPOSITORY"),
        lambda found: (found.name, found.address, found.state, when(found.watched_at), found.repository),
        f"no servers yet: tritonctl server add NAME --env {env} --address HOST:PORT --repository DIR",
    )


@server.command()
@click.argument("name")
@options.environment
@pass_session
def show(session: Session, name: str, env: str) -> None:
    """Show server NAME."""
    for found in session.client.environments.servers(env).items:
        if found.name == name:
            emit(session, found, lambda found=found: facts(asdict(found).items()))  # type: ignore[misc]
            return
    raise ApiError(
        f"there is no server {name!r} in {env!r}",
        code="not_found",
        exit_code=4,
        hint=f"tritonctl server list --env {env}",
    )
