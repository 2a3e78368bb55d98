# Capsules by the command line: a sweep into a file, its check, and its rounds again.
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clients.control.types import NewReplay
from controlplane.cli.output import emit, facts, heading, prose
from controlplane.cli.progress import bytes_bar, sending
from controlplane.cli.session import Session, Verb, pass_session, say
from controlplane.cli.sweep import finish, waiting

if TYPE_CHECKING:
    from controlplane.services.capsule_files import CapsuleFile

_DOCUMENT = "capsule.json"


@click.command(cls=Verb)
@click.argument("number", metavar="SWEEP", type=int)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where to.")
@click.option(
    "--artifacts",
    is_flag=True,
    help="With the bytes of the versions and their recorded inferences, so that a replay needs nothing else.",
)
@click.option("--anonymize", is_flag=True, help="With other names for the model, people, places and paths.")
@click.option("--force", is_flag=True, help="Write over FILE where there is one.")
@pass_session
def export(session: Session, number: int, *, out: Path, artifacts: bool, anonymize: bool, force: bool) -> None:
    """Export a sweep as one file, a capsule.

    It has the spec, seeds, configs, digests, recorded inferences, fingerprints, histograms, every measurement and the answer. It is
    checked before it has its name. --anonymize says in the file what was dropped.
    """
    from controlplane.errors import AlreadyExists
    from controlplane.services.capsule_files import open_capsule

    if out.exists() and not force:  # it may be the only copy of another sweep
        raise AlreadyExists(f"{out} exists", hint="name another FILE, or write over it with --force")
    part = out.with_name(f"{out.name}.part")
    if anonymize and artifacts:
        say(
            "with --artifacts, weights and recorded inferences are in the capsule as they are; --anonymize changes names alone"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            session.client.sweeps.export(number, file, artifacts=artifacts, anonymize=anonymize)
        with open_capsule(part) as opened:
            _refuse(part, opened.verify())
            said = _said(part, opened)
        part.replace(out)
    except OSError as error:
        raise click.BadParameter(f"{out}: {error.strerror}", param_hint="--out") from None
    finally:
        part.unlink(missing_ok=True)
    emit(session, {"file": str(out), **said}, lambda: _page(out, said))


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--verify", is_flag=True, help="Only check that the digests inside check out; no API is asked.")
@click.option(
    "--bench", metavar="ADDRESS", help="Measure on a server that stands ready for it; default: one of our own."
)
@click.option("--model", metavar="NAME", help="What the new sweep is called by; default: as in the capsule.")
@waiting
@pass_session
def replay(
    session: Session,
    /,
    *,
    file: Path,
    verify: bool,
    bench: str | None,
    model: str | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Measure the rounds of the capsule FILE again.

    The same blocks in the same order with the same seeds, as a sweep of its own, here or on a bench; nothing is registered. At the end
    it says which figures agree and which differ, beside the differences of the two machines. The capsule's models run on the bench:
    replay what you trust.
    """
    from controlplane.services.capsule_files import open_capsule

    with open_capsule(file) as opened:
        _refuse(file, opened.verify())
        said = _said(file, opened)
        if verify:
            emit(session, {"file": str(file), **said}, lambda: _page(file, said))
            return
        document = _upload(session, opened)
    with sending("tritonctl sweep list"):
        started = session.client.sweeps.replay(NewReplay(document, bench, model))
    finish(session, started, wait=wait, timeout=timeout)


def _refuse(file: Path, wrong: tuple[str, ...]) -> None:
    """Raises CapsuleInvalid where anything does not check out."""
    from controlplane.errors import CapsuleInvalid

    if wrong:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CapsuleInvalid(f"{file} does not check out: {wrong[0]}{more}", hint="get it again")


def _upload(session: Session, opened: CapsuleFile) -> str:
    """What the API does not hold yet, and the document last; its digest."""
    from controlplane.domain.canonical import canonical_bytes

    capsule, uploads = opened.capsule, session.client.uploads
    document = canonical_bytes(capsule.to_json())
    total = sum(capsule.blobs.values()) + len(document)
    with tempfile.TemporaryDirectory(prefix="tritonctl-") as directory, bytes_bar("uploading", total) as done:
        path = Path(directory) / "blob"
        for sha256 in capsule.blobs:
            with path.open("wb") as file:
                for chunk in opened.blob(sha256):
                    file.write(chunk)
            uploads.upload(path, sha256, progress=done)
        path.write_bytes(document)
        return uploads.upload(path, _DOCUMENT, progress=done).sha256


def _said(file: Path, opened: CapsuleFile) -> dict[str, object]:
    from controlplane.domain.capsules import unchecked

    capsule = opened.capsule
    return {
        "digest": capsule.digest,
        "sweep": capsule.sweep.id,
        "model": capsule.sweep.model,
        "trials": len(capsule.trials),
        "measurements": len(capsule.measurements),
        "file_bytes": file.stat().st_size,
        "blobs": len(capsule.blobs),
        "blob_bytes": sum(capsule.blobs.values()),
        "evidence": capsule.sweep.evidence,
        "dropped": list(capsule.dropped),
        "unchecked": list(unchecked(capsule)),
    }


def _page(file: Path, said: dict[str, object]) -> None:
    dropped, unchecked = said["dropped"], said["unchecked"]
    assert isinstance(dropped, list)
    assert isinstance(unchecked, list)
    verdict, evidence = "every digest inside checks out", said["evidence"]
    if unchecked:
        verdict = f"it is whole; digests of {', '.join(unchecked)} cannot be checked, since names were dropped"
        evidence = f"{evidence}, as the capsule says: compare it with the audit log where the sweep ran"
    facts(
        [
            ("capsule", f"{file}: {verdict}"),
            *(
                (name.replace("_", " "), said[name])
                for name in ("digest", "sweep", "model", "trials", "measurements", "file_bytes")
            ),
            ("recorded", f"{said['blobs']} files of inferences and versions, {said['blob_bytes']} bytes"),
            ("evidence", evidence),
        ]
    )
    if dropped:
        heading("dropped")
        for line in dropped:
            prose(line)
