# An existing model repository, taken under management: every version registered, its config proposed as a change.
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from clients.control.errors import ApiError
from clients.control.types import File, JsonObject, NewChange, NewVersion, Version
from controlplane.cli import options
from controlplane.cli.output import emit, table
from controlplane.cli.session import Session, Verb, pass_session, say
from controlplane.cli.uploading import files_of, upload_version

_VERSION = re.compile(r"[1-9][0-9]*")
_CONFIG = "config.pbtxt"
_ALREADY = "already adopted"
_ENSEMBLE = "ensemble_scheduling"
_ONNX = frozenset({"onnxruntime", "onnxruntime_onnx"})


@dataclass(frozen=True, slots=True)
class Found:
    """One model's directory. `text` is its config.pbtxt, None when it has none; `beside` are the other files, by path:
    labels, `configs/`."""

    name: str
    home: Path
    versions: dict[int, Path]
    text: str | None
    beside: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Adopted:
    model: str
    versions: tuple[int, ...]
    opaque: bool
    change: int | None
    message: str
    notes: tuple[str, ...] = ()


@click.command(cls=Verb)
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@options.environment
@click.option("--model", "only", multiple=True, help="Only this model; may be given several times.")
@click.option("--reason", default="adopt an existing model repository", show_default=True, help="It is recorded.")
@pass_session
def adopt(session: Session, /, directory: Path, *, env: str, only: tuple[str, ...], reason: str) -> None:
    """Adopt the model repository in DIRECTORY.

    Every version of every model is registered under its number, and what Triton would serve of it is proposed as a
    change of the environment, with the files that lie beside its config. The directory itself is only
    read; files whose name begins with a dot are left out. Apply the members of an ensemble before it.
    """
    models = [found for found in scan(directory) if not only or found.name in only]
    if not models:
        raise click.BadParameter(f"{directory} holds no model directory", param_hint="DIRECTORY")
    done = [_adopt(session, found, env, reason) for found in models]
    rows = [(a.model, a.versions, a.opaque, a.change, a.message) for a in done]

    def page() -> None:
        table(("MODEL", "VERSIONS", "OPAQUE", "CHANGE", ""), rows)
        for adopted in done:
            for note in adopted.notes:
                say(f"note on change {adopted.change}: {note}")
        if changes := [adopted.change for adopted in done if adopted.change is not None]:
            order = f"apply them in this order: {', '.join(map(str, changes))}; " if len(changes) > 1 else ""
            say(f"{order}next: tritonctl change show {changes[0]}")

    emit(session, done, page)
    failed = [a for a in done if a.change is None and a.message != _ALREADY]
    if failed:
        raise ApiError(
            f"{len(failed)} of {len(done)} models were not proposed, first {failed[0].model}: {failed[0].message}",
            code="adopt.incomplete",
            exit_code=5,
            hint="mend what is named and run it again: what is registered already stays as it is",
        )


def scan(directory: Path) -> list[Found]:
    """Directories with a config or a numbered version, by name; ensembles last, because they need their members."""
    found = []
    for home in sorted(path for path in directory.iterdir() if path.is_dir()):
        versions = {int(p.name): p for p in home.iterdir() if p.is_dir() and _VERSION.fullmatch(p.name)}
        config = home / _CONFIG
        if versions or config.is_file():
            text = config.read_text(encoding="utf-8") if config.is_file() else None
            ours = {str(number) for number in versions} | {_CONFIG}
            files = files_of(home, may_be_empty=True)
            beside = {path: file for path, file in files.items() if path.partition("/")[0] not in ours}
            found.append(Found(home.name, home, dict(sorted(versions.items())), text, beside))
    return sorted(found, key=lambda each: _ENSEMBLE in (each.text or ""))


def served(config: JsonObject, numbers: list[int]) -> tuple[int, ...]:
    """The versions that Triton would load under the config's version policy: by default the highest alone."""
    policy = config.get("version_policy")
    rules = policy if isinstance(policy, dict) else {}
    if "all" in rules:
        return tuple(numbers)
    if "specific" in rules:
        named = {int(number) for number in rules["specific"].get("versions", [])}
        return tuple(number for number in numbers if number in named)
    count = int(rules.get("latest", {}).get("num_versions", 1))
    return tuple(numbers[-count:])


def _adopt(session: Session, found: Found, env: str, reason: str) -> Adopted:
    say(f"{found.name}: versions {', '.join(map(str, found.versions)) or 'none'}")
    opaque = False
    registered: list[Version] = []
    try:
        config = session.client.configs.parse(found.text).config if found.text is not None else {}
        opaque = not _is_onnx(config, found)
        for number, directory in found.versions.items():
            new = NewVersion(
                files=upload_version(session, files_of(directory, may_be_empty=_ENSEMBLE in config)),
                number=number,
                source=str(directory.absolute()),
                config=found.text if opaque else None,
            )
            registered.append(session.client.catalog.register(found.name, new))
        beside = upload_version(session, found.beside)
        if _is_deployed(session, found, env, config, beside):
            return Adopted(found.name, tuple(found.versions), opaque, None, _ALREADY)
        change = session.client.changes.propose(
            NewChange(
                environment=env,
                model=found.name,
                reason=reason,
                versions=served(config, list(found.versions)),
                config=found.text,
                generate=found.text is None,
                beside=beside,
                adopted_from=str(found.home.absolute()),
            )
        )
    except ApiError as error:
        return Adopted(found.name, tuple(v.number for v in registered), opaque, None, f"[{error.code}] {error.message}")
    s, numbers = change.summary, tuple(v.number for v in registered)
    return Adopted(found.name, numbers, opaque, s.id, s.state, change.plan.notes)


def _is_deployed(session: Session, found: Found, env: str, config: JsonObject, beside: tuple[File, ...]) -> bool:
    """Whether the environment serves these versions with this config and these files: nothing would change. A model
    without a config is served with one that was made for it, whichever it is."""
    try:
        deployment = session.client.environments.deployment(env, found.name)
        if tuple(ref.number for ref in deployment.versions) != served(config, list(found.versions)):
            return False
        revision = session.client.environments.revision(env, found.name, deployment.revision)
    except ApiError as error:
        if error.code != "not_found":
            raise
        return False
    without_policy = {key: value for key, value in config.items() if key != "version_policy"}
    return set(revision.beside) == set(beside) and (found.text is None or revision.config == without_policy)


def _is_onnx(config: JsonObject, found: Found) -> bool:
    """What our inspection can look into; everything else is kept as it is."""
    if found.text is None:
        return True
    return config.get("backend", config.get("platform")) in _ONNX and all(
        (directory / "model.onnx").exists() for directory in found.versions.values()
    )
