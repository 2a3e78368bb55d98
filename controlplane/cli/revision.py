# Accepted contents of a deployment: the rollback points.
from __future__ import annotations

import json

import click

from clients.control.types import ChangeSummary, Revision
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, heading, short, when
from controlplane.cli.pages import differences, proofs
from controlplane.cli.session import Noun, Session, pass_session

_MOST = 200  # changes of one answer


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
    wanted = {revision.change for revision in found.items if revision.change is not None}
    changes = _changes(session, env, model, wanted) if session.output == "table" else {}

    def row(r: Revision) -> tuple[object, ...]:
        change = changes.get(r.change or 0)
        because = (change.kind, change.reason) if change else (None, None)
        return (r.number, [ref.number for ref in r.versions], short(r.digest), when(r.accepted_at), r.change, *because)

    emit_page(
        session,
        found,
        ("NUMBER", "VERSIONS", "CONTENT", "ACCEPTED", "CHANGE", "KIND", "REASON"),
        row,
        f"{model} has no revision in {env} yet",
    )


def _changes(session: Session, env: str, model: str, wanted: set[int]) -> dict[int, ChangeSummary]:
    """The changes that made the revisions, by number; there are others between them, which were never accepted."""
    found: dict[int, ChangeSummary] = {}
    cursor = None
    while not wanted <= found.keys():
        page = session.client.changes.list(environment=env, model=model, cursor=cursor, limit=_MOST)
        found |= {summary.id: summary for summary in page.items}
        cursor = page.next
        if cursor is None:
            break
    return found


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


def _page(found: Revision) -> None:
    facts(
        [
            ("model", found.model),
            ("environment", found.environment),
            ("revision", found.number),
            ("content", found.digest),
            ("versions", "\n".join(f"{ref.number}  {ref.artifact}" for ref in found.versions) or "none"),
            ("beside", "\n".join(f"{file.path}  {file.sha256}" for file in found.beside) or None),
            ("change", found.change),
            ("accepted", when(found.accepted_at)),
        ]
    )
    if found.proofs:
        heading("shown when it was accepted")
        proofs(found.proofs)
    if found.config is not None:
        heading("config")
        click.echo(json.dumps(found.config, indent=2))
