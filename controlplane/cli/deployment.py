# Deployments and their drift.
from __future__ import annotations

import click

from clients.control.types import Deployment, Page
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, short, when
from controlplane.cli.session import Noun, Session, Verb, pass_session, say


@click.group(cls=Noun)
def deployment() -> None:
    """What each environment does with each model."""


@deployment.command("list")
@options.environment
@pass_session
def list_deployments(session: Session, env: str) -> None:
    """List the deployments of an environment."""
    emit_page(
        session,
        session.client.environments.deployments(env),
        ("MODEL", "REVISION", "VERSIONS", "CONTENT", "CHANGE", "DRIFT", "WATCHED"),
        lambda d: (
            d.model,
            d.revision,
            [ref.number for ref in d.versions],
            short(d.digest),
            d.active_change,
            len(d.drift) or "none",
            when(d.watched_at),
        ),
        f"nothing deployed yet: tritonctl change propose MODEL --env {env} --version 1 --config generated --reason …",
    )


@deployment.command()
@click.argument("model")
@options.environment
@pass_session
def show(session: Session, model: str, env: str) -> None:
    """Show what an environment does with MODEL."""
    found = session.client.environments.deployment(env, model)
    emit(session, found, lambda: facts(_rows(found)))


@click.command(cls=Verb)
@click.argument("model", required=False)
@options.environment
@pass_session
def drift(session: Session, model: str | None, env: str) -> None:
    """Show where desired and observed differ, of MODEL or of all."""
    rooms = session.client.environments
    all_of_them = (rooms.deployment(env, model),) if model else rooms.deployments(env).items
    found = Page(tuple(d for d in all_of_them if d.drift))
    emit_page(
        session,
        found,
        ("MODEL", "REVISION", "WATCHED", "DRIFT"),
        lambda d: (d.model, d.revision, when(d.watched_at), "; ".join(d.drift)),
        f"no drift in {env}",
    )
    if session.output == "table":
        for d in found.items:
            say(f"next: {_mend(d)}")


def _mend(found: Deployment) -> str:
    """The command for what is known of drift; where the server could not be looked at, that comes first."""
    from controlplane.domain.environments import UNOBSERVED

    if any(words.startswith(UNOBSERVED) for words in found.drift):
        return f"tritonctl server list --env {found.environment}"
    return f"tritonctl change propose {found.model} --env {found.environment} --reconcile --reason …"


def _rows(found: Deployment) -> list[tuple[str, object]]:
    drift_words = "\n".join(found.drift) or "none"
    return [
        ("environment", found.environment),
        ("model", found.model),
        ("revision", found.revision),
        ("versions", [f"{ref.number} ({short(ref.artifact)})" for ref in found.versions]),
        ("content", found.digest),
        ("active change", f"{found.active_change} ({found.direction})" if found.active_change else None),
        ("drift", f"{drift_words}\n{_mend(found)}" if found.drift else drift_words),
        ("watched", when(found.watched_at)),
    ]
