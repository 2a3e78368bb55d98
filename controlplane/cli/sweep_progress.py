# How far a sweep is: a bar on a terminal, plain lines in a pipe; always on stderr.
from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click

from clients.control.types import JsonObject, SweepSummary

_WHOLE = 1000
_BAR, _AROUND = 20, 14
"""Characters of the bar, and of its brackets and percents."""
_SHARES = 10
"""In a pipe, a line at each tenth of the way."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A sweep's progress, read for people."""

    stage: str
    done: int
    ordered: int
    seconds_left: int | None
    leader: str

    @classmethod
    def of(cls, progress: JsonObject) -> Standing:
        return cls(
            str(progress.get("stage") or ""),
            _whole(progress.get("done")) or 0,
            _whole(progress.get("ordered")) or 0,
            _whole(progress.get("seconds_left")),
            str(progress.get("leader") or ""),
        )

    @property
    def share(self) -> float:
        return min(self.done / self.ordered, 1.0) if self.ordered else 0.0

    @property
    def words(self) -> str:
        parts = [self.stage, f"{self.done} of {self.ordered} blocks" if self.ordered else ""]
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        if self.leader:
            parts.append(f"ahead: {self.leader}")
        return ", ".join(part for part in parts if part)


def followed(sweeps: Iterable[SweepSummary]) -> Iterator[SweepSummary]:
    """Passes the sweeps on, and shows meanwhile how far each is."""
    live = sys.stderr.isatty()
    said: tuple[object, ...] = ()
    with click.progressbar(
        length=_WHOLE,
        width=_BAR,
        file=sys.stderr,
        hidden=not live,
        show_eta=False,
        item_show_func=lambda words: words or "",
    ) as bar:
        for sweep in sweeps:
            now = Standing.of(sweep.progress)
            words = now.words if sweep.state == "running" and now.words else _waiting(sweep)
            mark = (sweep.state, now.stage, now.leader.partition(":")[0], int(now.share * _SHARES))
            if live:
                bar.label = f"sweep {sweep.id}"
                room = shutil.get_terminal_size().columns - len(bar.label) - _BAR - _AROUND
                bar.update(max(int(now.share * _WHOLE) - bar.pos, 0), words[: max(room, 0)])
                bar.render_progress()
            elif mark != said:
                click.echo(f"sweep {sweep.id}: {words}", err=True)
            said = mark
            yield sweep


def duration(seconds: float) -> str:
    """As `45 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def _waiting(sweep: SweepSummary) -> str:
    words = {"queued": "waits for a worker", "running": "opens its bench"}.get(sweep.state)
    if words is None:
        return sweep.state  # why is said with the answer
    return f"{words}: {sweep.message}" if sweep.message else words


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
