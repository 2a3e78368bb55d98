# Models: registering versions, looking at them, objectives.
from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clients.control.errors import ApiError
from clients.control.types import NewObjective, NewVersion, Signature, Version
from controlplane.cli import options
from controlplane.cli.adopt import adopt
from controlplane.cli.output import emit, emit_page, facts, heading, short, size, table, when
from controlplane.cli.session import Noun, Session, pairs, pass_session, say
from controlplane.cli.uploading import files_of, require_npz, upload_version


@click.group(cls=Noun)
def model() -> None:
    """Register versions, look at them, adopt a repository."""


@model.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--version", "number", type=click.IntRange(min=1), help="Its number; default: the next one.")
@click.option("--owner", help="Whose model it is; default: you.")
@click.option("--description", help="What it does.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="May be given several times.")
@click.option("--source", default="", metavar="URI", help="Where it comes from: a commit, a training run.")
@click.option("--samples", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Inputs as .npz.")
@click.option("--opaque", is_flag=True, help="Not ONNX: kept and served as it is, with your --config.")
@click.option("--config", type=click.File(), help="config.pbtxt of an opaque version.")
@pass_session
def register(session: Session, /, name: str, file: Path, **given: Any) -> None:
    """Register FILE, an ONNX file or a directory of a version's files, as a version of model NAME."""
    registered = _register(session, name, file, **given)
    emit(session, registered, lambda: _version_page(registered))
    if session.output == "table":
        say(
            f"\nnext: tritonctl change propose {name} --env ENV --version {registered.number} --config generated --reason …"
        )


def _register(
    session: Session,
    name: str,
    file: Path,
    *,
    opaque: bool,
    config: Any,
    samples: Path | None,
    tags: tuple[str, ...],
    **given: Any,
) -> Version:
    if opaque != (config is not None):
        raise click.UsageError("--opaque and --config go together", click.get_current_context())
    if samples is not None:
        require_npz(samples, "--samples")
    files = upload_version(session, files_of(file))
    uploaded = session.client.uploads.upload(samples, "samples.npz").sha256 if samples else None
    new = NewVersion(
        files=files,
        samples=uploaded,
        tags=pairs(tags, "--tag") or None,
        config=config.read() if config else None,
        **given,
    )
    if session.output == "table":
        say("validating …")
    try:
        return session.client.catalog.register(name, new)
    except ApiError as error:
        if error.code in ("model.invalid", "artifact.invalid"):
            raise _not_servable(file, name, error) from None
        raise


def _not_servable(file: Path, name: str, error: ApiError) -> ApiError:
    """The API knows the file by the name under which it is served: say which one it was here."""
    hint = error.hint or (
        f"export it as ONNX again; what another backend serves: tritonctl model register {name} DIR --opaque "
        "--config config.pbtxt"
    )
    return ApiError(
        f"{file} cannot be registered: {error.message}",
        code=error.code,
        status=error.status,
        exit_code=error.exit_code,
        hint=hint,
        details=error.details,
    )


model.add_command(adopt)


@model.command()
@click.option("--apply", "apply_now", is_flag=True, help="Delete it; without this it is only named.")
@pass_session
def prune(session: Session, *, apply_now: bool) -> None:
    """Delete uploaded bytes that nothing needs.

    Nothing that a version, a plan or a revision refers to is touched, and nothing that was written within the last day.
    Version directories of a model repository are another matter: the policy's keep_revisions decides.
    """
    found = session.client.catalog.prune(apply=apply_now)

    def page() -> None:
        for blob in found.blobs:
            click.echo(blob)
        what = f"{len(found.blobs)} blobs, {size(found.size)}"
        say(f"deleted {what}" if found.applied else f"{what}: tritonctl model prune --apply deletes them")

    emit(session, found, page if found.blobs else lambda: say("nothing to prune"))


@model.command("list")
@options.limit
@options.cursor
@pass_session
def list_models(session: Session, limit: int, cursor: str | None) -> None:
    """List the models."""
    emit_page(
        session,
        session.client.catalog.models(cursor=cursor, limit=limit),
        ("NAME", "OWNER", "TAGS", "CREATED", "DESCRIPTION"),
        lambda m: (m.name, m.owner, m.tags, when(m.created_at), m.description),
        "no models yet: tritonctl model register NAME FILE",
    )


@model.command()
@click.argument("name")
@click.option("--version", "number", type=int, help="Show this version.")
@pass_session
def show(session: Session, name: str, number: int | None) -> None:
    """Show model NAME and its versions, or one version in full."""
    catalog = session.client.catalog
    if number is not None:
        version = catalog.version(name, number)
        emit(session, version, lambda: _version_page(version))
        return
    found, known, objectives = catalog.model(name), catalog.versions(name), catalog.objectives(name)

    def page() -> None:
        facts(
            [
                ("model", found.name),
                ("owner", found.owner),
                ("description", found.description),
                ("tags", found.tags),
                ("created", when(found.created_at)),
            ]
        )
        heading("versions")
        table(_VERSION_HEADINGS, [_version_row(version) for version in known.items])
        if objectives.items:
            heading("objectives")
            table(_OBJECTIVE_HEADINGS, [_objective_row(item) for item in objectives.items])

    emit(session, {"model": found, "versions": known.items, "objectives": objectives.items}, page)


@model.command()
@click.argument("name")
@options.limit
@options.cursor
@pass_session
def versions(session: Session, name: str, limit: int, cursor: str | None) -> None:
    """List the versions of model NAME, the highest first."""
    emit_page(
        session,
        session.client.catalog.versions(name, cursor=cursor, limit=limit),
        _VERSION_HEADINGS,
        _version_row,
        f"no versions yet: tritonctl model register {name} FILE",
    )


@model.group(cls=Noun)
def objective() -> None:
    """What stakeholders need of a model."""


@objective.command("set")
@click.argument("model_name", metavar="MODEL")
@click.argument("name")
@click.option("--metric", required=True, help="Such as latency_ms, accuracy or throughput.")
@click.option("--qualifier", default="", help="A percentile (p99) or a cohort.")
@click.option("--at-most", metavar="BOUND", help="It is met at or below this.")
@click.option("--at-least", metavar="BOUND", help="It is met at or above this.")
@click.option("--stakeholder", required=True, help="Who needs it.")
@click.option("--weight", help="How much it counts; without a weight it is a hard constraint.")
@pass_session
def set_objective(
    session: Session, /, model_name: str, name: str, *, at_most: str | None, at_least: str | None, **given: Any
) -> None:
    """Set objective NAME of MODEL."""
    if (at_most is None) == (at_least is None):
        raise click.UsageError("give one of --at-most and --at-least", click.get_current_context())
    direction, bound = ("at_most", at_most) if at_most is not None else ("at_least", at_least)
    new = NewObjective(direction=direction, bound=str(bound), **given)
    found = session.client.catalog.set_objective(model_name, name, new)
    emit(session, found, lambda: table(_OBJECTIVE_HEADINGS, [_objective_row(found)]))


@objective.command("list")
@click.argument("model_name", metavar="MODEL")
@pass_session
def list_objectives(session: Session, model_name: str) -> None:
    """List the objectives of MODEL."""
    emit_page(
        session,
        session.client.catalog.objectives(model_name),
        _OBJECTIVE_HEADINGS,
        _objective_row,
        f"no objectives yet: tritonctl model objective set {model_name} NAME --metric … --at-most …",
    )


@objective.command("remove")
@click.argument("model_name", metavar="MODEL")
@click.argument("name")
@pass_session
def remove_objective(session: Session, model_name: str, name: str) -> None:
    """Remove objective NAME of MODEL."""
    session.client.catalog.remove_objective(model_name, name)
    say(f"removed objective {name} of {model_name}")


_VERSION_HEADINGS = ("VERSION", "BACKEND", "BATCHING", "SIZE", "ARTIFACT", "BY", "REGISTERED")
_OBJECTIVE_HEADINGS = ("NAME", "METRIC", "QUALIFIER", "BOUND", "STAKEHOLDER", "WEIGHT")


def _version_row(version: Version) -> tuple[object, ...]:
    batching = version.signature.batching if version.signature else "-"
    return (
        version.number,
        version.backend,
        batching,
        size(version.size),
        short(version.artifact),
        version.registered_by,
        when(version.registered_at),
    )


def _objective_row(item: Any) -> tuple[object, ...]:
    sign = "≤" if item.direction == "at_most" else "≥"
    return (item.name, item.metric, item.qualifier, f"{sign} {item.bound}", item.stakeholder, item.weight or "hard")


def _version_page(version: Version) -> None:
    golden = version.golden
    facts(
        [
            ("model", version.model),
            ("version", version.number),
            ("artifact", version.artifact),
            ("same bytes as", version.same_bytes_as),
            ("size", f"{size(version.size)} in {len(version.files)} files"),
            ("backend", version.backend),
            ("source", version.source),
            ("registered", f"{when(version.registered_at)} by {version.registered_by}"),
            ("golden", f"{golden.cases} cases, {golden.mode}, {golden.source}" if golden else None),
            ("not checked", version.skipped),
            ("notes", "\n".join(version.notes)),
        ]
    )
    if version.signature:
        _signature(version.signature)


def _signature(signature: Signature) -> None:
    heading(f"signature  (batching: {signature.batching}, opset {signature.opset}, IR {signature.ir_version})")
    rows = [("input", t) for t in signature.inputs] + [("output", t) for t in signature.outputs]
    table(
        ("", "NAME", "TYPE", "DIMS"),
        [(side, t.name, t.datatype, [f"{'?' if d is None else d}" for d in t.dims]) for side, t in rows],
    )
