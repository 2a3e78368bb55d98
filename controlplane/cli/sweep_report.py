# The report of a sweep, made here from what the API tells: a page, pictures, or a summary.
from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from clients.control.errors import ApiError
from clients.control.types import MeasurementView, SweepView, TrialView
from controlplane.cli.output import emit
from controlplane.cli.session import Session, Verb, pass_session
from controlplane.domain.times import parse_instant

if TYPE_CHECKING:
    from clients.control.client import ControlClient
    from controlplane.domain.canonical import Json
    from controlplane.domain.sweep_rounds import Measurement
    from controlplane.domain.sweeps import Sweep, Trial
    from controlplane.reports.material import Material

_FORMATS = ("html", "svg", "png", "md")
_ENDINGS = {"", ".html", ".htm", ".md"}
_PAGE = 200
"""Measurements asked for at once: their histograms have a few kB each."""


@click.command(cls=Verb)
@click.argument("source", metavar="SWEEP|CAPSULE")
@click.option(
    "--out",
    metavar="FILE|DIR",
    type=click.Path(path_type=Path),
    help="A file for html and md, a directory for pictures; - is stdout. Default: sweep-N.html, sweep-N/, stdout for md.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="A page with everything, a picture of each chart, or a summary in Markdown; default: as --out ends, or html.",
)
@click.option("--open", "show", is_flag=True, help="Show it: open the file or directory.")
@pass_session
def report(session: Session, /, source: str, *, out: Path | None, form: str | None, show: bool) -> None:
    """Write the report of a sweep: goal and outcome, charts, every trial and why it lost, how to verify.

    SWEEP is its number, or a capsule of it, a file that tritonctl sweep export wrote: then no API is asked. The page is one file that loads nothing from anywhere. Charts need the extra: pip install 'triton-controlplane[report]'.
    """
    if form is None and out is not None and out.suffix not in _ENDINGS and not out.is_dir():
        how = f"--format {out.suffix[1:]} --out DIR" if out.suffix[1:] in _FORMATS else "--out FILE.html or FILE.md"
        raise click.BadParameter(f"{out}: no report is one file that ends so; use {how}", param_hint="--out")
    form = form or (out.suffix[1:] if out is not None and out.suffix[1:] in {"html", "md"} else "html")
    on_stdout = str(out) == "-" or (out is None and form == "md" and not show)
    if on_stdout and (form not in {"html", "md"} or show):
        raise click.BadParameter("only html and md can go to stdout, and nobody can open that", param_hint="--out")
    material = _material(session.client, int(source)) if source.isdecimal() else _from_capsule(Path(source))

    from controlplane.reports.files import ONE_FILE  # numpy and scipy take half a second
    from controlplane.reports.files import report as made_of
    from controlplane.reports.standings import Findings

    made = made_of(Findings(material), form)
    if on_stdout:
        click.echo(next(iter(made.values())), nl=False)
        return
    if form in ONE_FILE:
        name, data = next(iter(made.items()))
        path = out or Path(name)
        files = {path / name if path.is_dir() else path: data}
    else:
        path = out or Path(f"sweep-{material.sweep.id}")
        files = {path / name: data for name, data in made.items()}
    for file, data in files.items():
        _write(file, data)
    emit(session, [str(file) for file in files], lambda: click.echo("\n".join(f"wrote {file}" for file in files)))
    if show:
        click.launch(str(path.resolve()))


def _material(client: ControlClient, number: int) -> Material:
    from controlplane.domain.fingerprints import Fingerprint
    from controlplane.reports.material import Material

    sweep = client.sweeps.get(number)
    trials = client.sweeps.all_trials(sweep.id)
    candidates = {one.number: one.candidate for one in trials}
    measurements = []
    cursor: str | None = None
    while True:
        page = client.sweeps.measurements(sweep.id, histograms=True, cursor=cursor, limit=_PAGE)
        measurements += [_measurement(one, candidates[one.trial]) for one in page.items]
        cursor = page.next
        if cursor is None:
            break
    known = client.sweeps.fingerprints(sweep.id).fingerprints
    fingerprints = {digest: Fingerprint.from_json(cast("Json", tree)) for digest, tree in known.items()}
    return Material(
        _sweep(sweep), tuple(map(_trial, trials)), tuple(measurements), fingerprints, _description(client, sweep.model)
    )


def _from_capsule(path: Path) -> Material:
    """Raises CapsuleInvalid for what is none, or does not check out."""
    from clients.load.histogram import decode
    from controlplane.domain.capsule_checks import check_readable
    from controlplane.errors import CapsuleInvalid
    from controlplane.reports.material import Material
    from controlplane.services.capsule_files import open_capsule

    with open_capsule(path) as opened:
        if wrong := opened.verify():
            raise CapsuleInvalid(f"{path} does not check out: {wrong[0]}", hint="get it again")
        found = opened.capsule
    check_readable(found)
    for at, one in enumerate(found.measurements):
        try:
            decode(one.histogram) if one.histogram else None
        except ValueError as error:
            raise CapsuleInvalid(f"{path}: the histogram of measurement {at} cannot be read: {error}") from None
    return Material(
        found.sweep, found.trials, found.measurements, found.fingerprints, dropped=found.dropped, capsule=str(path)
    )


def _description(client: ControlClient, model: str) -> str:
    """Empty where we may see the sweep and not the model, or it is gone."""
    try:
        return client.catalog.model(model).description
    except ApiError:
        return ""


def _sweep(view: SweepView) -> Sweep:
    from controlplane.domain.sweeps import Sweep, SweepState

    times = {name: _instant(getattr(view, name)) for name in ("began_at", "finished_at")}
    plain = {one.name: getattr(view, one.name) for one in fields(Sweep)}
    return Sweep(**{**plain, **times, "created_at": parse_instant(view.created_at), "state": SweepState(view.state)})


def _trial(view: TrialView) -> Trial:
    from controlplane.domain.sweeps import Trial

    return Trial(**{one.name: getattr(view, one.name) for one in fields(Trial)})


def _measurement(view: MeasurementView, candidate: str) -> Measurement:
    from controlplane.domain.sweep_rounds import Measurement

    histograms = {"histogram": view.histogram or "", "histogram_sent": view.histogram_sent or ""}
    return Measurement.from_json({**asdict(view), **histograms, "candidate": candidate, "reasons": list(view.reasons)})


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--out") from None
