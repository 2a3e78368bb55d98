# The load generator: it stands alone, as `python -m clients.load` and as a library.
"""
In a script, whose processes begin it again and must not measure in turn:

    if __name__ == "__main__":
        report = run(Options(models=("digits",), concurrency="1,4,16"))
        print([(point.name, point.measured.rate, point.measured.latency.scheduled[99.0]) for point in report.points])

`clients.load.report` makes JSON and CSV of a report, `clients.load.table` the command's table; `clients.load.measure.measure` is one
load on messages of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.load.options import Options

if TYPE_CHECKING:
    from clients.load.runs import Report, Watcher

__all__ = ["Options", "run"]


def run(options: Options, watcher: Watcher | None = None) -> Report:
    """Measure each load that the options ask for. Raises LoadInputError before anything is sent, LoadFailed when the generator
    itself breaks down; what the server does is in the report. Its processes are started anew, so a script needs the usual
    `if __name__ == "__main__":`. The watcher is told how it goes, and may end it."""
    from clients.load.runs import run as run_all

    return run_all(options, watcher)
