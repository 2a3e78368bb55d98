# Principals, roles and tokens.
from __future__ import annotations

import click

from clients.control.types import NewPrincipal, NewToken, Principal
from controlplane.cli.output import emit, emit_page, facts, when
from controlplane.cli.session import Noun, Session, pass_session, say

_ROLES = click.Choice(("viewer", "operator", "approver", "admin"))


@click.group(cls=Noun)
def principal() -> None:
    """Who may do what."""


@principal.command()
@click.argument("name")
@click.option("--role", "roles", type=_ROLES, multiple=True, help="May be given several times.")
@click.option("--service-account", is_flag=True, help="A program: it proposes and never approves.")
@pass_session
def create(session: Session, name: str, roles: tuple[str, ...], service_account: bool) -> None:
    """Create principal NAME."""
    kind = "service_account" if service_account else "person"
    made = session.client.access.create(NewPrincipal(name, kind, roles))
    emit(session, made, lambda: _page(made))


@principal.command("list")
@pass_session
def list_principals(session: Session) -> None:
    """List everyone, with their roles."""
    emit_page(
        session,
        session.client.access.principals(),
        ("NAME", "KIND", "ROLES", "CREATED", "DISABLED"),
        lambda p: (p.name, p.kind, p.roles, when(p.created_at), when(p.disabled_at)),
        "nobody",
    )


@principal.command()
@click.argument("name", required=False)
@pass_session
def show(session: Session, name: str | None) -> None:
    """Show principal NAME; without a name, who you are."""
    access = session.client.access
    found = access.principal(name) if name else access.whoami()
    emit(session, found, lambda: _page(found))


@principal.command()
@click.argument("name")
@click.argument("role", type=_ROLES)
@pass_session
def grant(session: Session, name: str, role: str) -> None:
    """Give NAME a role."""
    found = session.client.access.grant(name, role)
    emit(session, found, lambda: _page(found))


@principal.command()
@click.argument("name")
@click.argument("role", type=_ROLES)
@pass_session
def revoke(session: Session, name: str, role: str) -> None:
    """Take a role from NAME."""
    found = session.client.access.revoke(name, role)
    emit(session, found, lambda: _page(found))


@principal.command()
@click.argument("name")
@pass_session
def disable(session: Session, name: str) -> None:
    """Disable NAME: its tokens stop working at once."""
    found = session.client.access.disable(name)
    emit(session, found, lambda: _page(found))


@principal.command()
@click.argument("name")
@pass_session
def enable(session: Session, name: str) -> None:
    """Let NAME in again."""
    found = session.client.access.enable(name)
    emit(session, found, lambda: _page(found))


@click.group(cls=Noun)
def token() -> None:
    """Tokens: what a principal proves itself by."""


@token.command("create")
@click.argument("name")
@click.option("--label", default="", help="What it is for.")
@click.option("--days", type=click.IntRange(min=1), default=90, show_default=True, help="How long it lives.")
@click.option("--no-expiry", is_flag=True, help="It never expires.")
@pass_session
def create_token(session: Session, name: str, label: str, days: int, no_expiry: bool) -> None:
    """Create a token for principal NAME. It is shown this once, on stdout."""
    issued = session.client.access.create_token(NewToken(name, label, None if no_expiry else days))

    def page() -> None:
        say(f"token {issued.token.id} of {name}, until {when(issued.token.expires_at)}; it is not shown again:")
        click.echo(issued.secret)

    emit(session, issued, page)


@token.command("list")
@click.argument("name", required=False)
@pass_session
def list_tokens(session: Session, name: str | None) -> None:
    """List the tokens of NAME, or of everyone."""
    emit_page(
        session,
        session.client.access.tokens(name),
        ("ID", "PRINCIPAL", "LABEL", "CREATED", "EXPIRES", "REVOKED"),
        lambda t: (t.id, t.principal, t.label, when(t.created_at), when(t.expires_at), when(t.revoked_at)),
        "no tokens: tritonctl token create NAME",
    )


@token.command("revoke")
@click.argument("number", type=int)
@pass_session
def revoke_token(session: Session, number: int) -> None:
    """Revoke token NUMBER: it stops working at once."""
    found = session.client.access.revoke_token(number)
    emit(session, found, lambda: say(f"token {number} of {found.principal} is revoked"))


def _page(found: Principal) -> None:
    facts(
        [
            ("principal", found.name),
            ("kind", found.kind),
            ("roles", found.roles or "none"),
            ("created", when(found.created_at)),
            ("disabled", when(found.disabled_at) if found.disabled_at else None),
        ]
    )
