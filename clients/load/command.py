# The options of `python -m clients.load`, in the order of its help. What it does begins in `main`, which loads the rest.
from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from clients.load.errors import LoadFailed, LoadInputError
from clients.load.options import Options

if TYPE_CHECKING:
    from clients.load.runs import Report, Watcher

PROGRAM = "python -m clients.load"
_DEFAULTS = Options(models=())
_SECTIONS: dict[str, list[str]] = {}
_HELP = """Send requests to MODEL and say how fast it answers, and how surely that is known.

Latency counts from when a call was due, so that a server that stalls cannot hide it, and beside it from when it was sent.
Each value comes with the interval that it lies in with 95 % confidence, and each load with a verdict: valid, unstable,
client_limited, too_few_samples or errors. What was measured is shown in any case.

\b
Examples:
  python -m clients.load digits --concurrency 1:32:x2
  python -m clients.load digits --rate 200 --seconds 20 -o json
  python -m clients.load digits --find-rate 100:5000 --limit 'p99<=10ms'
"""
_EPILOG = """\b
Exit status: the gravest of
    0  valid, and every --limit holds
    1  the generator itself broke down
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
        records = {str(param.name): param.get_help_record(ctx) for param in self.get_params(ctx)}
        placed = {name for names in _SECTIONS.values() for name in names}
        for section, names in (
            *_SECTIONS.items(),
            ("Other", [name for name in records if name not in placed]),
        ):
            rows = [record for name in names if (record := records.get(name)) is not None]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


def _option(
    section: str, *names: str, **rest: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:  # click's own
    """An option whose default is that of the library."""
    field = names[-1] if not names[-1].startswith("-") else names[0].strip("-").replace("-", "_")
    _SECTIONS.setdefault(section, []).append(field)
    if hasattr(_DEFAULTS, field):
        rest.setdefault("default", getattr(_DEFAULTS, field))
    return click.option(*names, **rest)


_LOAD, _END, _DATA, _CLIENT, _SERVER, _OUT = (
    "The load, one of", "When it ends", "What is sent", "How it is sent", "The server", "What comes out",
)  # fmt: skip
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    PROGRAM,
    cls=_Command,
    help=_HELP,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.argument("models", metavar="MODEL", nargs=-1, required=True)
@_option(
    _LOAD,
    "--concurrency",
    metavar="N",
    help="Calls in flight: 16, or a ladder 1,4,16, 2:10:2 or 1:32:x2.  [default: 1]",
)
@_option(_LOAD, "--rate", metavar="R", help="Calls a second, whatever the server does: 500, or a ladder 100:1000:100.")
@_option(
    _LOAD, "--bursts", metavar="RATE:ON:OFF", help="RATE for ON seconds, nothing, or a fourth number, for OFF seconds."
)
@_option(_LOAD, "--ramp", metavar="FIRST:LAST:SECONDS", help="From one rate to another in that time.")
@_option(
    _LOAD,
    "--curve",
    metavar="SECOND:RATE,…",
    help="Straight lines through points, such as a day's, begun again at the end.",
)
@_option(_LOAD, "--trace", type=_FILE, metavar="FILE", help="Calls at the seconds that the file has, one on each line.")
@_option(_LOAD, "--find-rate", metavar="LOW:HIGH", help="Look for the highest rate at which every --limit holds.")
@_option(
    _LOAD,
    "--limit",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help="Such as p99<=10ms, from when a call was due. Repeatable.",
)
@_option(_LOAD, "--within", type=float, metavar="SHARE", help="How closely --find-rate looks.")
@_option(_LOAD, "--arrivals", type=click.Choice(["poisson", "even"]), help="Of all but --concurrency and --trace.")
@_option(
    _LOAD, "--most", type=click.IntRange(1), metavar="N", help="Calls in flight of each process; those due beyond wait."
)
@_option(
    _END,
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="The least time.  [default: 5; a whole --trace or --ramp, one round of --curve or --bursts]",
)
@_option(
    _END,
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="The most, while the precision is not reached.  [default: 30, or --seconds where that was said to be more]",
)
@_option(
    _END,
    "--requests",
    type=click.IntRange(1),
    metavar="N",
    help="After so many calls instead, besides those of the warm-up.",
)
@_option(
    _END,
    "--warm-up",
    type=click.FloatRange(0),
    metavar="S",
    help="Left out at the beginning; more is where more is found.",
)
@_option(
    _END,
    "--precision",
    type=click.FloatRange(0, min_open=True),
    metavar="SHARE",
    help="Half of the interval of rate and percentile, as a share, at which it may end.",
)
@_option(
    _END,
    "--percentile",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="P",
    help="The one that has to be known so well.  [default: the highest of the limits, else 99]",
)
@_option(
    _END, "--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="After which a call is given up."
)
@_option(_DATA, "--batch", type=int, metavar="N", help="Rows of a request.")
@_option(
    _DATA,
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT:3,224,224",
    help="Without the batch dimension. Repeatable.",
)
@_option(
    _DATA,
    "--range",
    "ranges",
    multiple=True,
    metavar="[INPUT:]LOW:HIGH",
    help="Of what is drawn, HIGH excluded. Repeatable.  [default: 0:1, for integers 0:10]",
)
@_option(_DATA, "--distinct", type=int, metavar="N", help="Different requests that are drawn.")
@_option(
    _DATA,
    "--data",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Samples: an .npz file with an array for each input, or a directory of raw tensors, REQUEST/INPUT.",
)
@_option(_DATA, "--seed", type=int, metavar="N", help="Of data, order and arrivals: the same seed, the same run.")
@_option(_CLIENT, "--processes", type=click.IntRange(1), metavar="N", help="That send.")
@_option(_CLIENT, "--connections", type=click.IntRange(1), metavar="N", help="Of each process.")
@_option(
    _CLIENT,
    "--no-calibration",
    "calibration",
    flag_value=False,
    default=True,
    show_default=False,
    help="Do not look for what this client can do at best on this host: client_limited is then not seen.",
)
@_option(_SERVER, "--url", metavar="HOST:PORT", help="Its gRPC address.")
@_option(
    _SERVER,
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="Of the model.  [default: the highest that is ready]",
)
@_option(
    _SERVER,
    "--header",
    "headers",
    multiple=True,
    metavar="KEY=VALUE",
    help="Sent with every call, such as a restricted protocol's key. Repeatable.",
)
@_option(_SERVER, "--metrics-url", metavar="URL", help="Its metrics endpoint, such as http://127.0.0.1:8002/metrics.")
@_option(
    _OUT,
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="What standard output gets.",
)
@_option(_OUT, "--raw", type=_FILE, metavar="FILE.npz", help="Write every call, too.")
def load(form: str, raw: Path | None, **given: Any) -> None:  # click's own: as the options above say
    from clients.load.progress import Progress
    from clients.load.runs import run

    options = Options(**given)
    if raw is not None and raw.suffix != ".npz":
        raise click.BadParameter(f"{raw} is no .npz file", param_hint="--raw")
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    watcher = Progress(options, sys.stdout if form == "table" else None, sys.stderr, columns=columns)
    try:
        with _stopped_by_signals(watcher):
            report = run(options, watcher)
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
    if raw is not None:
        write_raw(report, raw)


@contextmanager
def _stopped_by_signals(watcher: Watcher) -> Iterator[None]:
    """The first Ctrl-C, or signal to end, ends the load; the second ends everything."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if watcher.stopping:
            raise KeyboardInterrupt
        watcher.stopping = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
