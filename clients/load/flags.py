# The options of `python -m clients.load`, in the order of its help; each default is that of the library's options.
from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clients.load.options import Options

_DEFAULTS = Options(models=())
_FILE = click.Path(path_type=Path, dir_okay=False)
_WHOLE = click.IntRange(1)
_DISTINCT = click.IntRange(1, 100_000)
_MORE = click.FloatRange(0, min_open=True)
_SHARE = click.FloatRange(0, 1)


def _flag(
    names: str,
    metavar: str | None,
    words: str,
    kind: Any = None,  # click's own: its types, or Python's
    *,
    several: bool = False,
) -> click.Option:
    """`names` as click has them: the flags, then its name in the library where that is another one."""
    declared = names.split()
    field = declared[-1] if not declared[-1].startswith("-") else declared[-1].strip("-").replace("-", "_")
    default = getattr(_DEFAULTS, field, None)
    return click.Option(declared, metavar=metavar, help=words, type=kind, multiple=several, default=default)


def _switch(names: str, words: str) -> click.Option:
    field = names.partition("/")[0].strip("-").replace("-", "_")
    return click.Option([names], default=getattr(_DEFAULTS, field), help=words, show_default=False)


_LOAD = (
    _flag("--concurrency", "N", "Calls in flight: 16, or a ladder 1,4,16, 2:10:2 or 1:32:x2.  [default: 1]"),
    _flag("--rate", "R", "Calls a second, whatever the server does: 500, or a ladder 100:1000:100."),
    _flag("--bursts", "RATE:ON:OFF[:BETWEEN]", "RATE for ON seconds, BETWEEN or nothing for OFF seconds, and again."),
    _flag("--ramp", "FIRST:LAST:SECONDS", "From one rate to another in that time."),
    _flag("--curve", "SECOND:RATE,…", "Straight lines through points, such as a day's, begun again at the end."),
    _flag("--trace", "FILE", "Calls at the seconds that the file has, one on each line.", _FILE),
    _flag("--find-rate", "LOW:HIGH", "Look for the highest rate at which every --limit holds."),
)
_SHAPE = (
    _flag("--limit limits", "LIMIT", "Such as p99<=10ms, from when a call was due. Repeatable.", several=True),
    _flag("--within", "SHARE", "How closely --find-rate looks.", _MORE),
    _flag("--arrivals", None, "Of all but --concurrency and --trace.", click.Choice(["poisson", "even"])),
    _flag("--most", "N", "Calls in flight of each process: those that are due beyond wait.", _WHOLE),
)
_END = (
    _flag(
        "--seconds",
        "S",
        "The least time.  [default: 5; a whole --trace or --ramp; whole rounds of --curve and --bursts]",
        _MORE,
    ),
    _flag("--max-seconds", "S", "The most, while the precision is not reached.  [default: 30]", _MORE),
    _flag("--requests", "N", "After so many calls instead, besides those of the warm-up.", _WHOLE),
    _flag("--warm-up", "S", "Left out at the beginning; more is where more is found.", click.FloatRange(0)),
    _flag("--precision", "SHARE", "Half the interval of rate and percentile, as a share, at which it may end.", _MORE),
    _flag(
        "--percentile",
        "P",
        "The one that has to be known so well.  [default: the highest of the limits, else 99]",
        click.FloatRange(0, 100, min_open=True, max_open=True),
    ),
    _flag("--timeout", "S", "After which a call is given up; looked at four times a second.", _MORE),
    _flag("--errors", "SHARE", "Of the calls that may fail without the verdict errors.", _SHARE),
    _flag("--lateness", "S", "Of the client, in the p99, without the verdict client_limited.", _MORE),
)
_DATA = (
    _flag("--batch", "N", "Rows of a request.", _WHOLE),
    _flag("--shape shapes", "INPUT:3,224,224", "Without the batch dimension. Repeatable.", several=True),
    _flag(
        "--range ranges",
        "[INPUT:]LOW:HIGH",
        "Of what is drawn, HIGH excluded. Repeatable.  [default: 0:1, for integers 0:10]",
        several=True,
    ),
    _flag("--distinct", "N", "Different requests that are drawn.  [default: 16, or as many as there are]", _DISTINCT),
    _flag(
        "--data",
        "[MODEL=]PATH",
        "Samples: an .npz file with an array for each input, or a directory of raw tensors, REQUEST/INPUT. Repeatable.",
        several=True,
    ),
    _flag("--seed", "N", "Of data, order and arrivals: the same seed, the same run.", int),
    _flag("--sequence-length", "N[:MOST]", "Requests of a sequence, for stateful models."),
    _flag("--sequences", "N", "Sequences under way in an open loop; else as many as are in flight.", click.IntRange(0)),
    _flag(
        "--expected",
        "[MODEL=]FILE|first",
        "Compare the answers with an .npz file of outputs, or with the first answer to each request. Repeatable.",
        several=True,
    ),
    _flag("--rtol", "X", "How far floats may be from what is expected.  [default: by their type]", click.FloatRange(0)),
    _flag("--atol", "X", "The same, absolute.  [default: by their type]", click.FloatRange(0)),
)
_CLIENT = (
    _flag("--processes", "N", "That send.", _WHOLE),
    _flag("--connections", "N", "Of each process.", _WHOLE),
    _flag(
        "--transport",
        None,
        "http2 is ours and costs least; grpcio does the rest; stream is ModelStreamInfer.  [default: the first that can]",
        click.Choice(["http2", "grpcio", "stream"]),
    ),
    _flag(
        "--shared-memory",
        None,
        "Keep inputs, or outputs too, in memory that a server on this host sees.",
        click.Choice(["none", "inputs", "both"]),
    ),
    _flag("--compression", None, "Of requests, by grpcio.", click.Choice(["none", "gzip", "deflate"])),
    _switch("--tls/--no-tls", "TLS with the system's authorities, where no others are given."),
    _flag("--tls-root", "FILE", "Trust these authorities, in PEM.", _FILE),
    _flag("--tls-certificate", "FILE", "Ours, for mutual TLS.", _FILE),
    _flag("--tls-key", "FILE", "Its key.", _FILE),
    _switch(
        "--calibration/--no-calibration",
        "Look for what this client can do at best on this host, without which a load near that is not seen.",
    ),
)
_SERVER = (
    _flag("--url", "HOST:PORT", "Its gRPC address."),
    _flag(
        "--header headers",
        "KEY=VALUE",
        "With every call, such as a restricted protocol's key. Repeatable.",
        several=True,
    ),
    _flag("--metrics-url", "URL", "Its metrics endpoint.  [default: http://HOST:8002/metrics when the port is 8001]"),
)
_OUT = (
    click.Option(
        ["-o", "--output", "form"],
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        help="What standard output gets.",
    ),
    click.Option(["--raw"], type=_FILE, metavar="FILE.npz", help="Write every call, too."),
)
SECTIONS: dict[str, tuple[click.Option, ...]] = {
    "The load, one of": _LOAD,
    "More of the load": _SHAPE,
    "When it ends": _END,
    "What is sent": _DATA,
    "How it is sent": _CLIENT,
    "The server": _SERVER,
    "What comes out": _OUT,
}
