# Accepted contents of a deployment: the rollback points.
from __future__ import annotations

import json

import click

from clients.control.types import Revision
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, heading, short, when
from controlplane.cli.pages import differences, proofs
from controlplane.cli.session import Noun, Session, pass_session


@click.group(cls=Noun)
def revision() -> None:
    """Accepted contents, the rollback points."""


@revision.command("list")
@click.argument("model")
@options.environment
@pass_session
def list_revisions(session: Session, model: str, env: str) -> None:
    """List the revisions of MODEL, the newest first."""
    found = session.client.environments.revisions(env, model)
    emit_page(
        session,
        found,
        ("NUMBER", "VERSIONS", "CONTENT", "ACCEPTED", "CHANGE", "KIND", "REASON"),
        _row,
        f"{model} has no revision in {env} yet",
    )


@revision.command()
@click.argument("model")
@click.argument("number", type=int)
@options.environment
@pass_session
def show(session: Session, model: str, number: int, env: str) -> None:
    """Show revision NUMBER of MODEL."""
    found = session.client.environments.revision(env, model, number)
    emit(session, found, lambda: _page(found))


@revision.command()
@click.argument("model")
@click.argument("before", type=int)
@click.argument("after", type=int)
@options.environment
@pass_session
def diff(session: Session, model: str, before: int, after: int, env: str) -> None:
    """Show how revision AFTER of MODEL differs from BEFORE."""
    found = session.client.environments.revision_diff(env, model, before, after)
    emit(session, found, lambda: differences(found.differences))


def _row(r: Revision) -> tuple[object, ...]:
    versions = [ref.number for ref in r.versions]
    return (r.number, versions, short(r.digest), when(r.accepted_at), r.change, r.kind, r.reason)


def _page(found: Revision) -> None:
    facts(
        [
            ("model", found.model),
            ("environment", found.environment),
            ("revision", found.number),
            ("content", found.digest),
            ("versions", "\n".join(f"{ref.number}  {ref.artifact}" for ref in found.versions) or "none"),
            ("beside", "\n".join(f"{file.path}  {file.sha256}" for file in found.beside) or None),
            (
                "change",
                f"{found.change}; who decided, and on what: tritonctl change show {found.change}"
                if found.change
                else None,
            ),
            ("kind", found.kind),
            ("reason", found.reason),
            ("accepted", when(found.accepted_at)),
        ]
    )
    if found.proofs:
        heading("shown when it was accepted")
        proofs(found.proofs)
    if found.config is not None:
        heading("config")
        click.echo(json.dumps(found.config, indent=2))
