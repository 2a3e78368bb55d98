# Tells the demo: chapters, plain words, commands as a person would type them, and what was checked.
from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import click

from controlplane.errors import DemoFailed

_WIDTH = 100
_NESTED = " " * 6
_MANY = 4


class Narrator:
    """Writes to stdout; colours only on a terminal. Counts what it told."""

    def __init__(self) -> None:
        self.commands = 0
        self.checks = 0
        self._chapters = 0

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        self._chapters += 1
        start = time.monotonic()
        click.echo()
        click.secho(f"{self._chapters}. {title}", bold=True, fg="cyan")
        yield
        click.secho(f"   chapter {self._chapters} took {time.monotonic() - start:.1f} s", dim=True)

    def say(self, text: str) -> None:
        """A paragraph; its line breaks are ours to set."""
        click.echo()
        click.echo(textwrap.fill(" ".join(text.split()), _WIDTH))

    def show(self, text: str) -> None:
        """Something to look at, as it is."""
        click.echo()
        click.echo(textwrap.indent(text, "    "))

    def command(self, line: str) -> None:
        self.commands += 1
        click.echo()
        click.secho(f"$ {line}", bold=True)

    def output(self, text: str, since: str = "", until: str | None = None) -> None:
        """What a command printed, from the first line that begins with `since` up to the next that does with `until`."""
        for line in excerpt(text, since, until):
            click.echo(line)

    def check(self, truth: bool, what: str) -> None:
        """Say that `what` holds. Raises DemoFailed when it does not."""
        if not truth:
            raise DemoFailed(f"not as told: {what}", hint="run it again with --keep, and look around")
        self.checks += 1
        click.echo(f"  {click.style('✓', fg='green')} {what}")


def excerpt(text: str, since: str = "", until: str | None = None) -> list[str]:
    """The lines from the first that begins with `since` up to, not including, the next that begins with `until`; many
    lines nested deep in JSON become one that counts them."""
    lines = text.rstrip().splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith(since)), len(lines))
    last = next((n for n in range(first, len(lines)) if until and lines[n].startswith(until)), len(lines))
    kept = ["…"] if first else []
    for nested, group in groupby(lines[first:last], key=lambda line: line.startswith(_NESTED)):
        block = list(group)
        kept += [f"{_NESTED}… {len(block)} lines"] if nested and len(block) >= _MANY else block
    return [*kept, "…"] if last < len(lines) else kept
