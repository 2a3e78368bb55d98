# Going back to an earlier revision.
from __future__ import annotations

import click

from controlplane.cli import options
from controlplane.cli.change import emit_change, finish
from controlplane.cli.pages import destination
from controlplane.cli.progress import sending
from controlplane.cli.session import Session, Verb, pass_session, say


@click.command(cls=Verb)
@click.argument("model")
@options.environment
@click.option("--to", type=click.IntRange(min=0), metavar="REVISION", help="Default: the last good one before.")
@click.option("--reason", required=True, help="Why; it is recorded.")
@options.waiting
@pass_session
def rollback(
    session: Session, /, model: str, *, env: str, to: int | None, reason: str, wait: bool, timeout: float
) -> None:
    """Take MODEL back to an earlier revision: a new change, applied at once where the policy lets it."""
    with sending(f"tritonctl deployment show {model} --env {env}"):
        change = session.client.changes.rollback(env, model, reason=reason, to=to)
    if where := destination(change):
        say(f"rollback {change.summary.id} goes {where}")
    if change.summary.state == "open":
        say(f"rollback {change.summary.id} waits for approval: tritonctl change approve {change.summary.id}")
        emit_change(session, change)
        return
    finish(session, change, wait=wait, timeout=timeout)
