# Webhooks: telling other systems what happens.
from __future__ import annotations

import click

from clients.control.errors import ApiError
from clients.control.types import NewWebhook, Webhook
from controlplane.cli.output import emit, emit_page, facts, when
from controlplane.cli.session import Noun, Session, pass_session, say
from controlplane.domain.webhooks import Event


@click.group(cls=Noun)
def webhook() -> None:
    """Tell other systems what happens, by signed POSTs."""


@webhook.command()
@click.argument("url")
@click.option(
    "--event",
    "events",
    type=click.Choice([event.value for event in Event]),
    multiple=True,
    help="May be given several times; default: all.",
)
@click.option("-e", "--env", metavar="ENV", help="Only what happens there.")
@pass_session
def add(session: Session, url: str, events: tuple[str, ...], env: str | None) -> None:
    """Tell URL what happens from now on. The secret that signs is shown this once, on stdout."""
    issued = session.client.webhooks.add(NewWebhook(url, events, env))

    def page() -> None:
        say(f"webhook {issued.webhook.id}; its secret is not shown again:")
        click.echo(issued.secret)
        say(f"look whether a letter arrives: tritonctl webhook test {issued.webhook.id}")

    emit(session, issued, page)


@webhook.command("list")
@pass_session
def list_webhooks(session: Session) -> None:
    """List all webhooks."""
    emit_page(
        session,
        session.client.webhooks.webhooks(),
        ("ID", "URL", "EVENTS", "ENVIRONMENT", "STATE"),
        lambda found: (found.id, found.url, found.events or "all", found.environment or "all", _state(found)),
        "no webhooks yet: tritonctl webhook add URL",
    )


@webhook.command()
@click.argument("number", type=int)
@pass_session
def show(session: Session, number: int) -> None:
    """Show webhook NUMBER, and how its delivery goes."""
    found = session.client.webhooks.webhook(number)
    emit(session, found, lambda: _page(found))


@webhook.command()
@click.argument("number", type=int)
@pass_session
def disable(session: Session, number: int) -> None:
    """Tell webhook NUMBER nothing for now."""
    found = session.client.webhooks.disable(number)
    emit(session, found, lambda: _page(found))


@webhook.command()
@click.argument("number", type=int)
@pass_session
def enable(session: Session, number: int) -> None:
    """Tell webhook NUMBER again, from now on."""
    found = session.client.webhooks.enable(number)
    emit(session, found, lambda: _page(found))


@webhook.command()
@click.argument("number", type=int)
@pass_session
def remove(session: Session, number: int) -> None:
    """Remove webhook NUMBER, with its secret."""
    session.client.webhooks.remove(number)
    say(f"webhook {number} is removed")


@webhook.command()
@click.argument("number", type=int)
@pass_session
def test(session: Session, number: int) -> None:
    """Send a `ping` to webhook NUMBER, and say what it answered."""
    answer = session.client.webhooks.ping(number)
    if not answer.delivered:
        raise ApiError(
            f"the ping was not taken: {answer.error or f'the receiver answered {answer.status}'}",
            code="webhook.not_delivered",
            exit_code=7,
            hint=f"tritonctl webhook show {number}",
        )
    emit(session, answer, lambda: say(f"the receiver answered {answer.status}"))


def _state(found: Webhook) -> str:
    if found.disabled_at is not None:
        return "disabled"
    if found.failures:
        return f"failed {found.failures} times"
    return "delivered" if found.attempted_at else "new"


def _page(found: Webhook) -> None:
    facts(
        [
            ("webhook", found.id),
            ("url", found.url),
            ("events", found.events or "all"),
            ("environment", found.environment or "all"),
            ("added", f"{when(found.created_at)} by {found.created_by}"),
            ("state", _state(found)),
            ("told up to", f"audit entry {found.cursor}"),
            ("last attempt", when(found.attempted_at) if found.attempted_at else None),
            ("answered", found.status),
            ("error", found.error),
            ("next attempt", when(found.next_attempt_at) if found.next_attempt_at else None),
        ]
    )
