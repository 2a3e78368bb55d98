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
@options.environments
@pass_session
def list_deployments(session: Session, env: str | None) -> None:
    """List the deployments."""
    emit_page(
        session,
        Page(_of(session, env)),
        ("ENVIRONMENT", "MODEL", "REVISION", "VERSIONS", "CONTENT", "CHANGE", "DRIFT", "WATCHED"),
        lambda d: (
            d.environment,
            d.model,
            d.revision,
            [ref.number for ref in d.versions],
            short(d.digest),
            d.active_change,
            len(d.drift) or no_drift(d),
            when(d.watched_at),
        ),
        f"nothing deployed yet: tritonctl change propose MODEL --env {env or 'ENV'} --version 1 --config generated --reason …",
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
@options.environments
@pass_session
def drift(session: Session, model: str | None, env: str | None) -> None:
    """Show where desired and observed differ, of MODEL or of all."""
    if model and env:
        all_of_them: tuple[Deployment, ...] = (session.client.environments.deployment(env, model),)
    else:
        all_of_them = tuple(d for d in _of(session, env) if model in (None, d.model))
    found = Page(tuple(d for d in all_of_them if d.drift))
    unseen = [f"{d.model} in {d.environment}" for d in all_of_them if d.revision and not (d.drift or d.watched_at)]
    where = f" in {env}" if env else ""
    if not any(d.revision for d in all_of_them):
        empty = f"{model or 'nothing'} is {'not ' if model else ''}deployed{where}: there was nothing to look at"
    elif unseen:
        empty = f"no drift is known{where}"
    else:
        empty = f"no drift{where}"
    emit_page(
        session,
        found,
        ("ENVIRONMENT", "MODEL", "REVISION", "WATCHED", "DRIFT"),
        lambda d: (d.environment, d.model, d.revision, when(d.watched_at), "; ".join(d.drift)),
        empty,
    )
    if session.output == "table":
        for d in found.items:
            say(f"next: {_mend(d)}")
        if unseen:
            say(f"the worker has not looked yet at {', '.join(unseen)}: does it run? `tritonctl worker`")


def no_drift(found: Deployment) -> str:
    """What an empty drift means: nobody may have looked yet."""
    return "none" if found.watched_at else "not looked at yet" if found.revision else "-"


def _of(session: Session, env: str | None) -> tuple[Deployment, ...]:
    rooms = session.client.environments
    return tuple(one for name in options.given(session, env) for one in rooms.deployments(name).items)


def _mend(found: Deployment) -> str:
    """The command for what is known of drift; where the server could not be looked at, that comes first."""
    from controlplane.domain.environments import UNOBSERVED

    if any(words.startswith(UNOBSERVED) for words in found.drift):
        return f"tritonctl server list --env {found.environment}"
    return f"tritonctl change propose {found.model} --env {found.environment} --reconcile --reason …"


def _rows(found: Deployment) -> list[tuple[str, object]]:
    drift_words = "\n".join(found.drift) or no_drift(found)
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
