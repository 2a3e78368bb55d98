# Contexts of the command line: which API, as whom.
from __future__ import annotations

from dataclasses import replace
from typing import IO

import click

from clients.control import contexts
from clients.control.contexts import Context
from controlplane.cli.output import emit, facts, table
from controlplane.cli.session import Noun, Session, pass_session, say


@click.group(cls=Noun)
def context() -> None:
    """Choose which API to talk to, and as whom."""


@context.command("list")
@pass_session
def list_contexts(session: Session) -> None:
    """List the contexts; * marks the one in use."""
    file = contexts.read(contexts.context_path())
    rows = [
        {"name": name, "api": found.api, "current": name == file.current}
        for name, found in sorted(file.contexts.items())
    ]

    def page() -> None:
        if rows:
            table(("", "NAME", "API"), [("*" if row["current"] else "", row["name"], row["api"]) for row in rows])
        else:
            say("no contexts yet: tritonctl up, or tritonctl context set NAME --api URL --token-file FILE")

    emit(session, rows, page)


@context.command()
@click.argument("name", required=False)
@pass_session
def show(session: Session, name: str | None) -> None:
    """Show a context (default: the one in use), without its token."""
    found_name, found = contexts.find(contexts.context_path(), name) if name else session.context_found()
    view = {
        "name": found_name,
        "api": found.api,
        "token": "set" if found.token else "none",
        "audit_key": found.audit_key,
        "checkpoint": "seen" if found.checkpoint else "none seen",
    }
    emit(session, view, lambda: facts(view.items()))


@context.command("use")
@click.argument("name")
def use_context(name: str) -> None:
    """Use context NAME from now on."""
    contexts.use(contexts.context_path(), name)
    say(f"using context {name}")


@context.command("set")
@click.argument("name")
@click.option("--api", metavar="URL", help="Address of the API.")
@click.option("--token-file", type=click.File(), help="File with the token; - reads it from standard input.")
@click.option("--audit-key", metavar="VKEY", help="Pin the audit log's verification key.")
@click.option("--use", is_flag=True, help="Use it from now on.")
def set_context(name: str, api: str | None, token_file: IO[str] | None, audit_key: str | None, use: bool) -> None:
    """Write context NAME; what is left out stays as it was.

    Another API or another key forgets what was seen of the audit log.
    """
    path = contexts.context_path()
    old = contexts.read(path).contexts.get(name)
    if old is None and api is None:
        raise click.UsageError("a new context needs --api", click.get_current_context())
    new = old or Context(api="")
    if api is not None and api.rstrip("/") != new.api:
        new = replace(new, api=api.rstrip("/"), audit_key="", checkpoint="")
    if token_file is not None:
        new = replace(new, token=token_file.read().strip())
    if audit_key is not None and audit_key != new.audit_key:
        new = replace(new, audit_key=audit_key, checkpoint="")
    contexts.put(path, name, new, use=use)
    say(f"wrote context {name} to {path}")


@context.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget context NAME."""
    contexts.remove(contexts.context_path(), name)
    say(f"removed context {name}")
