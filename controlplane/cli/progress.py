# Progress on a terminal, and none in a pipe; always on stderr.
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from clients.control.types import Change


@contextmanager
def bytes_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives what to call with the bytes that were done since the call before."""
    with click.progressbar(
        length=max(total, 1), label=label, file=sys.stderr, hidden=not sys.stderr.isatty(), show_eta=True
    ) as bar:
        yield bar.update


def watch_line(changes: Iterable[Change]) -> Iterator[Change]:
    """Passes the changes on; on a terminal one line says what is happening, and goes when it is over."""
    live = sys.stderr.isatty()
    try:
        for change in changes:
            if live:
                doing = change.journal[-1] if change.journal else None
                words = f"{doing.effect} on {doing.server}: {doing.because}" if doing else "waiting for a worker"
                click.echo(
                    f"\r\x1b[K{change.summary.state}: {change.summary.message or words}"[:100], nl=False, err=True
                )
            yield change
    finally:
        if live:
            click.echo("\r\x1b[K", nl=False, err=True)


@contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Whoever presses Ctrl-C meanwhile is told `words`: what became of it, and the next command."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(words, err=True)
        raise


def sending(show: str) -> AbstractContextManager[None]:
    """Around a request that starts something; `show` is the command that says whether it arrived."""
    return interruptible(f"not known whether it was sent; next: {show}")


@contextmanager
def steps_bar(label: str) -> Iterator[Callable[[str, float], None]]:
    """Gives what to call with words and the share that is done, 0 to 1. In a pipe the words are written, once each."""
    live = sys.stderr.isatty()
    said = ""
    with click.progressbar(
        length=1000, label=label, file=sys.stderr, hidden=not live, item_show_func=lambda words: words or ""
    ) as bar:

        def progress(words: str, share: float) -> None:
            nonlocal said
            if live:
                bar.update(int(share * 1000) - bar.pos, words)
            elif words != said:
                click.echo(f"{label}: {words}", err=True)
            said = words

        yield progress
