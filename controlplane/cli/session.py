# What every command shares: the chosen context and output, the connection to the API, and the options that set them.
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from clients.control import contexts
from clients.control.contexts import Context

if TYPE_CHECKING:
    from clients.control.client import ControlClient

FORMATS = ("table", "json", "yaml")


@dataclass(slots=True)
class Session:
    """One run of the command line. The client is made when it is first asked for, and closed at the end."""

    output: str = "table"
    context: str | None = None
    _client: ControlClient | None = field(default=None, repr=False)

    @property
    def client(self) -> ControlClient:
        """Of `--api` and token in the environment, or else of the context. Raises ApiError when there is neither."""
        if self._client is None:
            from clients.control.client import connect  # httpx takes half a second

            self._client = connect(self._context_name())
            click.get_current_context().call_on_close(self._client.close)
        return self._client

    def context_found(self) -> tuple[str, Context]:
        return contexts.find(contexts.context_path(), self._context_name())

    def _context_name(self) -> str | None:
        return self.context or os.environ.get("TRITONCTL_CONTEXT") or None


pass_session = click.make_pass_decorator(Session, ensure=True)


def _set(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Session), name, value)

    return callback


def shared_options() -> list[click.Parameter]:
    """Taken before the noun as well as after the verb."""
    return [
        click.Option(
            ["-o", "--output"],
            type=click.Choice(FORMATS),
            expose_value=False,
            callback=_set("output"),
            help="How the answer is written.",
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            expose_value=False,
            callback=_set("context"),
            help="Which API, and as whom; default: the context in use.",
        ),
    ]


class Verb(click.Command):
    """A command that talks to the API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options()


class Local(click.Command):
    """A command that needs no API: it works on this machine, by the settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options()[:1]


class Noun(click.Group):
    """Commands on one kind of thing, listed in the order in which they are written."""

    command_class = Verb

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(self.commands)


def say(text: str = "") -> None:
    """To a person, beside the answer: on stderr, so that the answer can be piped."""
    click.echo(text, err=True)


def at_terminal() -> bool:
    """Whether somebody is there who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(text: str) -> None:
    """Asks on a terminal; elsewhere the command line was the decision."""
    if at_terminal():
        click.confirm(text, abort=True, err=True)


def pairs(values: Sequence[str], what: str) -> dict[str, str]:
    """`key=value` arguments."""
    found = {}
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", param_hint=what)
        found[key] = rest
    return found
