# The answer of a command: a table for people, JSON or YAML for programs.
from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from itertools import zip_longest
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
    "finished": "green",
    "better": "green",
    "open": "cyan",
    "queued": "cyan",
    "running": "cyan",
    "applying": "cyan",
    "reload": "yellow",
    "paused": "yellow",
    "inconclusive": "yellow",
    "undoing": "yellow",
    "skipped": "yellow",
    "cancelled": "yellow",
    "worse": "red",
    "stuck": "red",
    "failed": "red",
    "error": "red",
    "breaks_clients": "red",
}
# What people wrote is never taken for a state.
_WORDS = frozenset({"REASON", "HYPOTHESIS", "EXPECTED", "DESCRIPTION", "MODEL", "ENV", "AUTHOR", "NAME", "ACTOR"})
_NARROWEST = 12


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
    """Aligned columns, nothing cut off: on a terminal, the widest are wrapped until the lines fit, and no word up to
    half a line is cut in two; where they cannot fit, each row is a record of its own."""
    lines = [[text(cell) for cell in row] for row in rows]
    columns = list(zip(headings, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        whole = [min(max(map(_longest_word, column)), room // 2) for column in columns]
        widths = _fitting(widths, whole, room)
        if _across(widths) > room:
            for i, line in enumerate(lines):
                if i:
                    click.echo()
                facts([(name.lower(), cell) for name, cell in zip(headings, line, strict=True)])
            return
    click.secho(_line(headings, widths), bold=True)
    for line in lines:
        cells = [_wrapped(cell, width, cut=True) for cell, width in zip(line, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            shown = [
                (part if name in _WORDS else coloured(part)) + " " * (width - len(part))
                for name, part, width in zip(headings, parts, widths, strict=True)
            ]
            click.echo("  ".join(shown).rstrip())


def _fitting(widths: Sequence[int], whole: Sequence[int], room: int) -> list[int]:
    """`widths` with the widest narrowed until they fit in `room`, each at least as wide as keeps its words `whole`, as names
    are to be copied; so they may still be too wide."""
    fit = list(widths)
    while _across(fit) > room:
        narrower = [i for i, least in enumerate(whole) if fit[i] > max(least, _NARROWEST)]
        if not narrower:
            break
        fit[max(narrower, key=fit.__getitem__)] -= 1
    return fit


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _longest_word(cell: str) -> int:
    return max(map(len, cell.split()), default=0)


def _wrapped(line: str, width: int, *, cut: bool) -> list[str]:
    """`line` in parts of at most `width`; a word longer than that is `cut`, or is a longer part of its own."""
    if len(click.unstyle(line)) <= width:
        return [line]
    import textwrap  # for narrow terminals only

    return textwrap.wrap(line, width, break_long_words=cut, break_on_hyphens=False) or [""]


def facts(rows: Iterable[tuple[str, object]]) -> None:
    """`name   value` lines; a value of several lines goes on below its first."""
    shown = [(name, text(value)) for name, value in rows if value not in (None, "", (), {}, [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = value.split("\n")
        shown_first = first if name.upper() in _WORDS else coloured(first)
        prose("\n".join((shown_first, *rest)), f"{click.style(name.ljust(width), dim=True)}  ")


def prose(words: str, before: str = "  ") -> None:
    """`words` after `before`; on a terminal they go on below where they began, and no word is cut in two: commands and
    digests are to be copied."""
    indent = len(click.unstyle(before))
    lines, room = words.split("\n"), shutil.get_terminal_size().columns - indent
    if sys.stdout.isatty() and room >= _NARROWEST:
        lines = [part for line in lines for part in _wrapped(line, room, cut=False)]
    click.echo(f"{before}{lines[0]}")
    for line in lines[1:]:
        click.echo(f"{' ' * indent}{line}")


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
