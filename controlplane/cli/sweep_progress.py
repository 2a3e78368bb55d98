# How far a sweep is: a bar on a terminal, plain lines in a pipe; always on stderr.
from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click

from clients.control.types import JsonObject, SweepSummary

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
            parts.append(f"{self.leader} leads")
        return ", ".join(part for part in parts if part)


def followed(sweeps: Iterable[SweepSummary]) -> Iterator[SweepSummary]:
    """Passes the sweeps on, and shows meanwhile how far each is."""
    live = sys.stderr.isatty()
    said: tuple[object, ...] = ()
    with click.progressbar(
        length=1000, file=sys.stderr, hidden=not live, show_eta=False, item_show_func=lambda words: words or ""
    ) as bar:
        for sweep in sweeps:
            now = Standing.of(sweep.progress)
            words = now.words if sweep.state == "running" and now.words else _waiting(sweep)
            mark = (sweep.state, now.stage, now.leader, int(now.share * _SHARES))
            if live:
                bar.label = f"sweep {sweep.id}"
                bar.update(max(int(now.share * 1000) - bar.pos, 0), words)
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
    if sweep.message:
        return f"{sweep.state}: {sweep.message}"
    return {"queued": "waits for a worker", "running": "opens its bench"}.get(sweep.state, sweep.state)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
