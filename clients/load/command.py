# `python -m clients.load`: from the command line to a run and back, with its exit status. What is heavy is loaded when it runs.
from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from clients.load.errors import LoadFailed, LoadInputError
from clients.load.flags import SECTIONS
from clients.load.options import Options

if TYPE_CHECKING:
    from clients.load.runs import Measuring, Report, Watcher

_UNWRITTEN = 1
PROGRAM = "python -m clients.load"
_HELP = """Send requests to a model and say how fast it answers, and how surely that is known.

Latency counts from when a call was due, so that a server that stalls cannot hide it, and beside it from when it was sent.
Each value comes with the interval that it lies in with 95 % confidence, and each load with a verdict: valid, unstable,
client_limited, too_few_samples or errors. What was measured is shown in any case.

MODEL is NAME, NAME:VERSION, NAME=WEIGHT or NAME:VERSION=WEIGHT; several get their shares of one load.

\b
Examples:
  python -m clients.load digits --concurrency 1:32:x2
  python -m clients.load digits --rate 200 --seconds 20 -o json
  python -m clients.load digits --find-rate 100:5000 --limit 'p99<=10ms'
"""
_EPILOG = """\b
Exit status: the gravest of
    0  valid, and every --limit holds
    1  the generator itself broke down, or could not write a file
    2  wrong input
    3  errors: calls failed
    4  the server does not serve that model
    5  client_limited: the numbers say more of this client than of the server
    6  too_few_samples
    7  unstable: the precision was not reached
    8  a --limit does not hold, or it cannot be told; no rate was found
    9  no Triton answers there
  130  interrupted, by Ctrl-C or a signal to end: what was measured until then is shown
"""


class _Command(click.Command):
    """Shows its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, options in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [record for option in options if (record := option.get_help_record(ctx)) is not None]
                )


def _run(form: str, raw: Path | None, **given: Any) -> None:  # what click parsed, by the names of the options' fields
    perform(Options(**given), form, raw)


def perform(options: Options, form: str, raw: Path | None, measuring: Measuring | None = None) -> None:
    """Run, show, and exit with the status. `measuring` is how one load is measured, here if it is left out."""
    from clients.load.measure import measure
    from clients.load.progress import Progress
    from clients.load.runs import run

    if raw is not None and raw.suffix != ".npz":
        raise click.BadParameter(f"{raw} is no .npz file", param_hint="--raw")
    if raw is not None and not raw.parent.is_dir():
        raise click.BadParameter(f"there is no directory {raw.parent}", param_hint="--raw")
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    watcher = Progress(options, sys.stdout if form == "table" else None, sys.stderr, columns=columns)
    try:
        with _stopped_by_signals(watcher):
            report = run(options, watcher, measuring or measure)
    except LoadInputError as error:
        watcher.clear()
        click.echo(f"error: {error.message}" + (f"\nnext: {error.hint}" if error.hint else ""), err=True)
        sys.exit(error.status)
    except LoadFailed as error:
        watcher.clear()
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    _write(report, form, raw)
    sys.exit(report.status)


def _write(report: Report, form: str, raw: Path | None) -> None:
    from clients.load.report import to_csv, to_json, write_raw
    from clients.load.table import summary

    if form == "json":
        click.echo(json.dumps(to_json(report), indent=1, allow_nan=False))
    elif form == "csv":
        click.echo(to_csv(report.points), nl=False)
    elif last := summary(report):
        click.echo(f"\n{last}")
    if raw is None:
        return
    try:
        write_raw(report, raw)
    except OSError as error:
        click.echo(f"error: {raw} cannot be written: {error.strerror}\nnext: what was measured stands above", err=True)
        sys.exit(_UNWRITTEN)


@contextmanager
def _stopped_by_signals(watcher: Watcher) -> Iterator[None]:
    """The first Ctrl-C, signal to end or terminal that goes away ends the load; the second ends everything. `nohup` has the
    last of them ignored, which stays so."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if watcher.stopping:
            raise KeyboardInterrupt
        watcher.stopping = True

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


load = _Command(
    PROGRAM,
    params=[
        click.Argument(["models"], metavar="MODEL...", nargs=-1, required=True),
        *(option for options in SECTIONS.values() for option in options),
    ],
    callback=_run,
    help=_HELP,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
