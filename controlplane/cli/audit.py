# The audit log: reading, checkpoints, proofs, and verifying it without the API.
from __future__ import annotations

import shlex
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from controlplane.cli import options
from controlplane.cli.output import emit, emit_page, facts, heading, prose, text, when
from controlplane.cli.session import Local, Noun, Session, pass_session, say
from controlplane.errors import AuditBroken, IntegrityError, SettingsInvalid

if TYPE_CHECKING:
    from controlplane.domain.audit_report import VerificationReport


@click.group(cls=Noun)
def audit() -> None:
    """The audit log, its checkpoints and its proofs."""


@audit.command("list")
@click.option("--subject", metavar="KIND:ID", help="Only about this, such as change:12 or model:digits.")
@click.option("--actor", help="Only by this principal.")
@click.option("--action", help="Only this, such as change.applied.")
@options.limit
@options.cursor
@pass_session
def list_entries(session: Session, /, **given: str) -> None:
    """List what was recorded, the newest first."""
    emit_page(
        session,
        session.client.audit.entries(**given),  # type: ignore[arg-type]  # click gives limit as a number
        ("SEQ", "AT", "ACTOR", "ACTION", "SUBJECTS", "DETAILS"),
        lambda e: (e.seq, when(e.at), e.actor, e.action, e.subjects, _brief(e.details)),
        "nothing was recorded",
    )


@audit.command()
@click.option("--sign", is_flag=True, help="Sign the log as it is now.")
@pass_session
def checkpoint(session: Session, sign: bool) -> None:
    """Print the latest signed checkpoint and the log's key. Keep them elsewhere."""
    found = session.client.audit.sign() if sign else session.client.audit.checkpoint()

    def page() -> None:
        say(f"key {found.key}")
        click.echo(found.note, nl=False)

    emit(session, found, page)


@audit.command()
@click.argument("change", type=int)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it; default: stdout.")
@pass_session
def proof(session: Session, change: int, file: Path | None) -> None:
    """Write a proof of everything recorded about CHANGE. `audit check` reads it without the log."""
    written = session.client.audit.proof(change)
    if file is None:
        click.echo(written, nl=False)
        return
    file.write_text(written)
    say(f"wrote {file}; check it anywhere: tritonctl audit check {file} --key {_key(session)}")


@audit.command()
@click.argument("file", type=click.File())
@click.option("--key", required=True, metavar="VKEY", help="The log's verification key.")
@pass_session
def check(session: Session, file: IO[str], key: str) -> None:
    """Check a proof FILE offline."""
    from controlplane.domain.audit import AuditEntry
    from controlplane.domain.checkpoints import verify_proof
    from controlplane.domain.notes import Verifier

    try:
        shown = verify_proof(file.read(), [Verifier.parse(key)])
    except (IntegrityError, UnicodeDecodeError) as error:
        raise _not_proven(file.name, error) from None

    def line(entry: AuditEntry) -> str:
        return f"{entry.seq}  {entry.at.isoformat()}  {entry.actor.name}  {entry.action}  {text(dict(entry.details))}"

    def page() -> None:
        kind, identifier = shown.subject
        click.secho(f"proven: {len(shown.entries)} entries about {kind} {identifier}", fg="green")
        for entry in shown.entries:
            click.echo(f"  {line(entry)}")
        click.echo(f"under the signed checkpoint over {shown.checkpoint.size} entries")

    emit(session, {"subject": list(shown.subject), "entries": [line(entry) for entry in shown.entries]}, page)


@audit.command(cls=Local)
@pass_session
def rotate_key(session: Session) -> None:
    """Replace the log's signing key, next to its file. Stop api and worker before, and start them after.

    What the old key signed still counts. Clients have pinned the old key: tell each of them the new one.
    """
    from controlplane.settings import load_settings
    from controlplane.storage.checkpoint_files import ensure_signing_key, rotate_signing_key

    settings = load_settings()
    file, origin = settings.key_file, settings.audit.origin
    if not file.exists():
        raise SettingsInvalid(f"there is no signing key at {file}", hint="run it where the signing key lies")
    old = str(ensure_signing_key(file, origin).verifier)
    new = str(rotate_signing_key(file, origin).verifier)

    def page() -> None:
        facts([("old", old), ("new", new)])
        say("start api and worker again; each client pins the new key, told by a way other than the API:")
        say(f"  tritonctl context set NAME --audit-key {shlex.quote(new)}")

    emit(session, {"old": old, "new": new}, page)


@audit.command()
@click.option("--database", metavar="URL", help="Default: that of the settings.")
@click.option("--key", "keys", metavar="VKEY", multiple=True, help="Default: that of the signing key's file.")
@click.option(
    "--checkpoints", type=click.Path(path_type=Path, file_okay=False), help="Directory of exported checkpoints."
)
@pass_session
def verify(session: Session, database: str | None, keys: tuple[str, ...], checkpoints: Path | None) -> None:
    """Recompute the whole log from the database, without the API."""
    from controlplane.settings import load_settings
    from controlplane.wiring import verify_audit

    report = verify_audit(load_settings(), database=database, keys=keys, checkpoints=checkpoints)
    emit(session, _tree(report), lambda: _page(report))
    if not report.intact:
        first = report.findings[0]
        raise AuditBroken(
            f"the audit log is not intact, first at entry {first.first}: {first.kind.value}",
            hint="keep database and checkpoints as they are: they are evidence",
        )


def _not_proven(file: str, error: IntegrityError | UnicodeDecodeError) -> IntegrityError:
    kind, reason = (type(error), error.message) if isinstance(error, IntegrityError) else (AuditBroken, str(error))
    return kind(
        f"{file} proves nothing: {reason}",
        hint="it was changed since it was written, or the key is of another log: write it again and compare, "
        "tritonctl audit proof CHANGE --file FILE",
    )


def _tree(report: VerificationReport) -> dict[str, object]:
    return {
        "intact": report.intact,
        "entries": report.size,
        "root": report.root.hex(),
        "signed": report.signed,
        "covered": report.covered,
        "tail": report.tail,
        "checkpoints": report.checkpoints,
        "findings": [
            {"kind": f.kind.value, "first": f.first, "last": f.last, "message": f.message, "attacker": f.attacker}
            for f in report.findings
        ],
        "warnings": report.warnings,
        "excludes": report.excludes,
    }


def _page(report: VerificationReport) -> None:
    verdict = "intact" if report.intact else "not intact"
    click.secho(f"the audit log is {verdict}", fg="green" if report.intact else "red", bold=True)
    signed = f"the first {report.signed} entries"
    if report.intact:
        signed += f", by {report.checkpoints} checkpoints"
    elif report.covered < report.signed:
        signed += f"; still as they were signed: {f'the first {report.covered}' if report.covered else 'none'}"
    tail = f"the last {report.tail} entries: no checkpoint is over them" if report.tail else "nothing"
    facts(
        [
            ("entries", report.size),
            ("root", report.root.hex()),
            ("signed", signed),
            ("unsigned", tail),
        ]
    )
    for finding in report.findings:
        heading(f"{finding.kind.value} at entry {finding.first}")
        prose(finding.message)
        prose(finding.attacker, "  by ")
    for warning in report.warnings:
        click.echo(f"warning: {warning}")
    click.echo(report.excludes)


def _key(session: Session) -> str:
    """Quoted for a shell: a key's text holds signs of its own."""
    return shlex.quote(session.client.audit.checkpoint().key)


def _brief(details: dict[str, object]) -> str:
    words = text(details)
    return words if len(words) <= 100 else f"{words[:99]}…"
