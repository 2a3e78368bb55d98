# The answer of a command: a table for people, JSON or YAML for programs.
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import TypeVar

import click

from clients.control.types import Page
from controlplane.cli.session import Session

T = TypeVar("T")
_COLOURS = {
    "applied": "green",
    "shown": "green",
    "passed": "green",
    "none": "green",
    "in_place": "green",
    "open": "cyan",
    "applying": "cyan",
    "reload": "yellow",
    "paused": "yellow",
    "inconclusive": "yellow",
    "undoing": "yellow",
    "skipped": "yellow",
    "stuck": "red",
    "failed": "red",
    "error": "red",
    "breaks_clients": "red",
}


def emit(session: Session, value: object, page: Callable[[], None]) -> None:
    """`value` as JSON or YAML where that was asked for; else `page` writes it for people."""
    if session.output == "table":
        page()
        return
    tree = plain(value)
    if session.output == "json":
        click.echo(json.dumps(tree, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)


def emit_page(
    session: Session, found: Page[T], headings: Sequence[str], row: Callable[[T], Sequence[object]], empty: str
) -> None:
    """A list: one line each, `empty` (what to do next) when there is nothing."""

    def page() -> None:
        if not found.items:
            click.echo(empty, err=True)
            return
        table(headings, [row(item) for item in found.items])
        if found.next:
            click.echo(f"more: --cursor {found.next}", err=True)

    emit(session, found, page)


def plain(value: object) -> object:
    """Dataclasses as dictionaries, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, nothing cut off."""
    lines = [[text(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headings), *lines]) for i in range(len(headings))]
    click.secho(_line(headings, widths), bold=True)
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(coloured(cell) for cell in padded).rstrip())


def facts(rows: Iterable[tuple[str, object]]) -> None:
    """`name   value` lines; a value of several lines goes on below its first."""
    shown = [(name, text(value)) for name, value in rows if value not in (None, "", (), {}, [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = value.split("\n")
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {coloured(first)}")
        for line in rest:
            click.echo(f"{' ' * width}  {line}")


def heading(words: str) -> None:
    click.echo()
    click.secho(words, bold=True)


def coloured(cell: str) -> str:
    colour = _COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell


def text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(text(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={text(item)}" for key, item in value.items()) or "-"
    return str(value)


def when(instant: str | None) -> str:
    """An API time to the second."""
    return f"{instant[:19]}Z".replace("T", " ") if instant else "-"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others by eye; commands want the whole."""
    return digest.removeprefix("sha256:")[:12]


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
