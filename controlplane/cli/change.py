# Change requests: propose, review, approve, apply.
from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

from clients.control.errors import ApiError
from clients.control.types import Change, NewChange
from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, when
from controlplane.cli.pages import change_page, cost
from controlplane.cli.progress import interruptible, sending, watch_line
from controlplane.cli.session import Noun, Session, at_terminal, confirm, pass_session, say
from controlplane.cli.uploading import files_of, upload_version

_STATES = ("open", "applying", "paused", "undoing", "stuck", "applied", "undone", "rejected", "withdrawn", "expired")
_ENDED_BADLY = {
    "undone": "it was undone: the deployment is as before",
    "paused": "it is paused: verification cannot tell, a human decides",
    "stuck": "it is stuck",
}
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group(cls=Noun)
def change() -> None:
    """Propose, review, approve and apply changes."""


@change.command()
@click.argument("model")
@options.environment
@click.option("--version", "versions", type=int, multiple=True, help="Version to serve; may be given several times.")
@click.option("--config", metavar="FILE|generated", help="A whole config.pbtxt, or one generated for the version.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Set one field of the config.")
@click.option("--unset", "unsets", multiple=True, metavar="PATH", help="Remove one field of the config.")
@click.option("--beside", metavar="DIR", type=_DIRECTORY, help="All files to lie beside the config: labels, configs/.")
@click.option("--undeploy", is_flag=True, help="Serve nothing of it.")
@click.option("--from-env", metavar="ENV", help="Take what that environment serves.")
@click.option("--reconcile", is_flag=True, help="Bring drifted servers back to the current revision.")
@options.acknowledge
@click.option("--reason", required=True, help="Why; it is part of what is approved.")
@click.option("--hypothesis", default="", help="What you believe it will do.")
@click.option("--expected-effect", default="", help="What you will see when you are right.")
@click.option("--apply", "apply_now", is_flag=True, help="Apply it at once, where the policy needs no approval.")
@options.waiting
@pass_session
def propose(session: Session, /, apply_now: bool, wait: bool, timeout: float, **given: Any) -> None:
    """Propose a change of MODEL in an environment. What is not said stays as it is."""
    made = session.client.changes.propose(_wish(session, **given))
    number = made.summary.id
    say(f"proposed change {number}: {cost(made.plan)}")
    if apply_now:
        apply_change(session, number, None, wait=wait, timeout=timeout)
        return
    emit_change(session, made)


@change.command("list")
@click.option("-e", "--env", metavar="ENV", help="Only of this environment.")
@click.option("--model", help="Only of this model.")
@click.option("--state", type=click.Choice(_STATES), help="Only in this state.")
@click.option(
    "--review", type=click.Choice(("open", "closed")), help="Only those that broke the glass, by their review."
)
@options.limit
@options.cursor
@pass_session
def list_changes(session: Session, /, *, env: str | None, review: str | None, **given: Any) -> None:
    """List changes, the newest first."""
    found = session.client.changes.list(environment=env, review=review, **given)
    emit_page(
        session,
        found,
        ("ID", "STATE", "KIND", "ENV", "MODEL", "AUTHOR", "PROPOSED", "REASON"),
        lambda s: (s.id, s.state, s.kind, s.environment, s.model, s.author, when(s.created_at), s.reason),
        f"no changes with a review that is {review}"
        if review
        else "no changes: tritonctl change propose MODEL --env ENV --reason …",
    )


@change.command()
@click.argument("number", type=int)
@pass_session
def show(session: Session, number: int) -> None:
    """Show change NUMBER: what, why, what it costs, who approved, what blocks it, what was done and shown."""
    found = session.client.changes.get(number)
    emit_change(session, found)


@change.command()
@click.argument("number", type=int)
@click.option("--reason", help="A new reason, along with the options below; default: the old one.")
@click.option("--version", "versions", type=int, multiple=True, help="As for propose.")
@click.option("--config", metavar="FILE|generated", help="As for propose.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="As for propose.")
@click.option("--unset", "unsets", multiple=True, metavar="PATH", help="As for propose.")
@click.option("--beside", metavar="DIR", type=_DIRECTORY, help="As for propose.")
@options.acknowledge
@pass_session
def replan(session: Session, /, number: int, reason: str | None, **given: Any) -> None:
    """Plan change NUMBER anew, on what is deployed and asked for now. Earlier approvals stop counting.

    Without options the wish stays. With options they are the whole wish, in place of the old one.
    """
    edits = None
    if reason is not None or any(given.values()):
        if not any(given[name] for name in ("versions", "config", "sets", "unsets", "beside")):
            raise click.UsageError(
                "options replace the old wish: say the whole wish again, or replan without options",
                click.get_current_context(),
            )
        old = session.client.changes.get(number).summary
        edits = _wish(
            session,
            model=old.model,
            env=old.environment,
            reason=reason or old.reason,
            hypothesis=old.hypothesis,
            expected_effect=old.expected_effect,
            **given,
        )
    planned = session.client.changes.replan(number, edits)
    emit_change(session, planned)


@change.command()
@click.argument("number", type=int)
@click.option(
    "--plan", metavar="DIGEST", help="Digest of the plan that you looked at; default: the current one, shown."
)
@click.option("--comment", default="", help="Why; it is recorded.")
@pass_session
def approve(session: Session, number: int, plan: str | None, comment: str) -> None:
    """Approve change NUMBER: exactly the plan that is shown, by its digest."""
    voted = session.client.changes.approve(number, plan or _looked_at(session, number, "approve"), comment)
    emit(session, voted, lambda: _voted(voted, "approved"))


@change.command()
@click.argument("number", type=int)
@click.option(
    "--plan", metavar="DIGEST", help="Digest of the plan that you looked at; default: the current one, shown."
)
@click.option("--comment", "--reason", "comment", required=True, help="Why; it is recorded.")
@pass_session
def reject(session: Session, number: int, plan: str | None, comment: str) -> None:
    """Reject change NUMBER: it is closed."""
    voted = session.client.changes.reject(number, plan or _looked_at(session, number, "reject"), comment)
    emit(session, voted, lambda: _voted(voted, "rejected"))


@change.command()
@click.argument("number", type=int)
@pass_session
def withdraw(session: Session, number: int) -> None:
    """Withdraw your change NUMBER."""
    found = session.client.changes.withdraw(number)
    emit(session, found, lambda: say(f"change {number} is {found.summary.state}"))


@change.command()
@click.argument("number", type=int)
@click.option(
    "--break-glass",
    metavar="WHY",
    help="Apply without approvals and gates, and say why in at least 10 characters; opens a review.",
)
@options.waiting
@pass_session
def apply(session: Session, number: int, break_glass: str | None, wait: bool, timeout: float) -> None:
    """Apply change NUMBER."""
    apply_change(session, number, break_glass, wait=wait, timeout=timeout)


@change.command()
@click.argument("number", type=int)
@click.option(
    "--decision",
    required=True,
    type=click.Choice(("retry", "accept", "undo", "restart")),
    help="retry: go on; accept: take what verification could not decide; undo: turn back; "
    "restart: turn back and restart the server that we launched.",
)
@options.waiting
@pass_session
def resume(session: Session, number: int, decision: str, wait: bool, timeout: float) -> None:
    """Decide on change NUMBER, which is paused or stuck."""
    with sending(f"tritonctl change show {number}"):
        resumed = session.client.changes.resume(number, decision)
    finish(session, resumed, wait=wait, timeout=timeout)


@change.command()
@click.argument("number", type=int)
@click.option("--comment", required=True, help="What the review found; it is recorded.")
@pass_session
def close_review(session: Session, number: int, comment: str) -> None:
    """Close the review that break-glass opened on change NUMBER."""
    found = session.client.changes.close_review(number, comment)
    emit(session, found, lambda: say(f"the review of change {number} is {found.summary.review}"))


@change.command()
@click.argument("number", type=int)
@options.waiting
@pass_session
def watch(session: Session, number: int, wait: bool, timeout: float) -> None:
    """Follow change NUMBER until nobody is working on it."""
    finish(session, session.client.changes.get(number), wait=wait, timeout=timeout)


def emit_change(session: Session, found: Change) -> None:
    emit(session, found, lambda: change_page(found))


def finish(session: Session, started: Change, *, wait: bool, timeout: float) -> None:
    """Wait for a change that was started, show it, and raise ApiError when it did not end applied."""
    if not wait:
        say(f"change {started.summary.id} is {started.summary.state}: tritonctl change watch {started.summary.id}")
        emit_change(session, started)
        return
    last, number = started, started.summary.id
    with interruptible(f"change {number} goes on without us; next: tritonctl change watch {number}"):
        for seen in watch_line(session.client.changes.watch(number, deadline_seconds=timeout)):
            last = seen
    emit_change(session, last)
    state = last.summary.state
    if state in _ENDED_BADLY:
        raise ApiError(
            f"change {last.summary.id}: {_ENDED_BADLY[state]}. {last.summary.message}".rstrip(),
            code=f"change.{state}",
            exit_code=7,
            hint=f"tritonctl change resume {last.summary.id} --decision retry|undo|accept"
            if state in ("paused", "stuck")
            else f"tritonctl change show {last.summary.id}",
        )


def apply_change(session: Session, number: int, break_glass: str | None, *, wait: bool, timeout: float) -> None:
    with sending(f"tritonctl change show {number}"):
        started = session.client.changes.apply(number, break_glass=break_glass)
    if started.summary.state == "applied":
        say(f"change {number} is applied already, since {when(started.summary.finished_at)}: nothing was done")
        emit_change(session, started)
        return
    finish(session, started, wait=wait, timeout=timeout)


def _wish(
    session: Session,
    *,
    model: str,
    env: str,
    reason: str,
    versions: tuple[int, ...],
    config: str | None,
    sets: tuple[str, ...],
    unsets: tuple[str, ...],
    beside: Path | None,
    **given: Any,
) -> NewChange:
    """Paths hold no `=` outside of quotes and brackets, so the first one after them divides path and value."""
    given["from_environment"] = given.pop("from_env", None)
    return NewChange(
        environment=env,
        model=model,
        reason=reason,
        versions=versions or None,
        config=None if config in (None, "generated") else _read(str(config)),
        generate=config == "generated",
        sets=tuple(split_set(text) for text in sets),
        unsets=unsets,
        beside=None if beside is None else upload_version(session, files_of(beside, may_be_empty=True)),
        **given,
    )


def split_set(text: str) -> tuple[str, str]:
    """`PATH=VALUE`; a key in brackets and quotes may hold a `=` itself."""
    quoted = False
    for index, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == "=" and not quoted and index:
            return text[:index], text[index + 1 :]
    raise click.BadParameter(f"{text!r} is not PATH=VALUE", param_hint="--set")


def _read(path: str) -> str:
    try:
        file: IO[str]
        with click.open_file(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--config") from None


def _looked_at(session: Session, number: int, verb: str) -> str:
    """The digest of the plan of now. Whoever can vote on it from a terminal is shown it, and asked."""
    found = session.client.changes.get(number)
    if found.summary.state == "open" and at_terminal() and _may_vote(session):
        if session.output == "table":
            change_page(found)
        say(f"\n{verb} plan {found.plan.digest}")
        confirm(f"{verb} it?")
    return found.plan.digest


def _may_vote(session: Session) -> bool:
    from controlplane.domain.access import PERMISSIONS, Permission

    return not PERMISSIONS[Permission.CHANGE_APPROVE].isdisjoint(session.client.access.whoami().roles)


def _voted(change: Change, verb: str) -> None:
    click.echo(f"{verb} change {change.summary.id}, plan {change.plan.digest}")
    if change.summary.state == "open":
        click.echo(f"{len(change.counted)} of {change.needed} approvals")
        for blocker in change.blockers:
            click.echo(f"  still blocked by {blocker.code}: {blocker.message}")
        if not change.blockers:
            click.echo(f"ready: tritonctl change apply {change.summary.id}")
