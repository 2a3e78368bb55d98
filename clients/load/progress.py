# How a run goes, said while it goes: on a terminal in a line that is written over, elsewhere only what stays.
from __future__ import annotations

from collections import deque
from typing import TextIO

import numpy as np

from clients.load.measure import Limits
from clients.load.options import Options
from clients.load.outcomes import ANSWERED, DUE, STATUS
from clients.load.processes import Records
from clients.load.runs import Point, Watcher
from clients.load.statistics import Interval
from clients.load.subject import Subject
from clients.load.table import about, block

_RECENT_SECONDS = 2.0
_CLEAR = "\r\x1b[K"


class Progress(Watcher):
    """Writes what is measured to `out` as it is known, or nothing where that is None; the live line goes to `terminal`, where
    there is one."""

    def __init__(self, options: Options, out: TextIO | None, said: TextIO, *, columns: int | None) -> None:
        self._options = options
        self._out = out
        self._said = said
        self._columns = columns
        self._name = ""
        self._limits = Limits()
        self._recent: deque[tuple[float, Records]] = deque()
        self._failed = 0
        self._known = ""

    def prepared(self, subject: Subject) -> None:
        print(about(subject, self._options), file=self._out or self._said, flush=True)

    def calibrating(self) -> None:
        self._line("looking for what this client can do without inference")

    def begins(self, name: str, limits: Limits) -> None:
        self._name, self._limits = name, limits
        self._recent.clear()
        self._failed, self._known = 0, ""

    def goes_on(self, seconds: float, records: Records) -> None:
        self._recent.append((seconds, records))
        self._failed += int((records[:, STATUS] != 0).sum())
        if self._columns is None:
            return
        while self._recent[0][0] < seconds - _RECENT_SECONDS:
            self._recent.popleft()
        recent = np.concatenate([block for _, block in self._recent])
        rate = len(recent) / min(seconds, _RECENT_SECONDS)
        words = [self._name, f"{seconds:.0f} s of {self._end()}", f"{rate:,.0f}/s"]
        good = recent[recent[:, STATUS] == 0]
        if len(good):
            words.append(f"p99 {float(np.quantile((good[:, ANSWERED] - good[:, DUE]) / 1e6, 0.99)):.3g} ms")
        if self._failed:
            words.append(f"{self._failed:,} failed")
        if self._known:
            words.append(self._known)
        self._line("  ".join(words))

    def knows(self, rate: Interval, watched: Interval) -> None:
        limits = self._limits
        self._known = (
            f"known: rate to {_share(rate)}, p{limits.watched:g} to {_share(watched)} (asked {limits.precision:.0%})"
        )

    def ended(self, point: Point) -> None:
        self.clear()
        if self._out is not None:
            print(f"\n{block(point)}", file=self._out, flush=True)

    def clear(self) -> None:
        if self._columns is not None:
            print(_CLEAR, end="", file=self._said, flush=True)

    def _line(self, words: str) -> None:
        if self._columns is not None:
            print(f"{_CLEAR}{words[: self._columns - 1]}", end="", file=self._said, flush=True)

    def _end(self) -> str:
        limits = self._limits
        if limits.count is not None:
            return f"{limits.count:,} requests"
        least, most = limits.warm_up + limits.seconds, limits.warm_up + limits.cap
        return f"{most:.0f}" if most <= least else f"{least:.0f} to {most:.0f}"


def _share(one: Interval) -> str:
    return f"{one.precision:.1%}" if np.isfinite(one.precision) else "?"
