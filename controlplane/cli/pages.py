# Parts of pages that people read: differences, proofs, a whole change.
from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import click

from clients.control.types import Change, Difference, Evidence, JournalEntry, JsonObject, LatencyMeasurement, Plan
from controlplane.cli.output import coloured, facts, heading, prose, table, text, when
from controlplane.domain.sweep_values import short

RELOAD_WORDS = {
    "none": "none: the server has nothing to do",
    "in_place": "in place: what serves goes on serving",
    "reload": "reload: loaded anew beside the old one, which serves meanwhile",
    "breaks_clients": "breaks clients: requests that worked before may be refused",
}

_REVIEW = {"none": "", "open": "open: somebody else closes it: tritonctl change close-review {change} --comment …"}


def differences(found: Iterable[Difference]) -> None:
    rows = list(found)
    if not rows:
        click.echo("  no difference")
    for row in rows:
        difference(row.path, row.before, row.after)


def difference(path: str, before: object, after: object) -> None:
    """`~` changed, `+` came, `-` went."""
    if before is None:
        _whole("+", path, after, "green")
    elif after is None:
        _whole("-", path, before, "red")
    else:
        arrow = click.style(" → ", dim=True)
        click.echo(
            f"  ~ {path}: {click.style(_value(before), fg='red')}{arrow}{click.style(_value(after), fg='green')}"
        )


def proofs(found: Iterable[JsonObject]) -> None:
    for proof in found:
        status = str(proof.get("status", ""))
        words = f"  {coloured(status.ljust(12))}  {proof.get('name', '')}"
        seen = text(proof.get("seen", ""))
        click.echo(f"{words}: {seen}" if seen else words)


def change_page(change: Change) -> None:
    s, plan = change.summary, change.plan
    click.secho(f"change {s.id}  {s.model} in {s.environment}  ", bold=True, nl=False)
    click.echo(coloured(s.state) + (f"  ({change.direction})" if change.direction else ""))
    facts(
        [
            ("kind", s.kind),
            ("goes back", destination(change)),
            ("reason", s.reason),
            ("hypothesis", s.hypothesis),
            ("expected", s.expected_effect),
            ("author", s.author if s.author == s.last_editor else f"{s.author}, last edited by {s.last_editor}"),
            ("proposed", when(s.created_at)),
            ("expires", when(s.expires_at) if s.state == "open" else None),
            ("finished", when(s.finished_at) if s.finished_at else None),
            ("break-glass", s.break_glass),
            ("review", _REVIEW.get(s.review, s.review).format(change=s.id)),
            ("message", s.message),
        ]
    )
    heading(f"plan {plan.number}")
    versions = ", ".join(str(ref.number) for ref in plan.versions) or "none"
    facts(
        [
            ("digest", plan.digest),
            ("base", f"revision {plan.base_revision}"),
            ("desired", f"versions {versions}; {plan.desired_digest}"),
            ("costs", cost(plan)),
        ]
    )
    for item in plan.diff:
        difference(str(item["path"]), item["old"], item["new"])
    if not plan.diff:
        click.echo("  no difference to the base")
    for note in plan.notes:
        click.echo(f"  note: {note}")
    if plan.evidence is not None:
        heading(f"evidence: trial {plan.evidence.sweep}.{plan.evidence.trial}")
        _evidence(plan.evidence)
    if plan.gates:
        heading("gates")
        table(("GATE", "OUTCOME", "SEEN"), [(gate.name, gate.outcome, gate.message) for gate in plan.gates])
    _review(change)
    if change.journal:
        heading("journal")
        table(("AT", "SERVER", "EFFECT", "TOOK", "BECAUSE"), [_journal_row(entry) for entry in change.journal])
    if change.latency:
        heading("latency")
        table(
            ("GATE", "SERVER", "OUTCOME", "ASKED", "SEEN", "95 %", "N", "VERDICT", "CLIENT FLOOR"),
            [_latency_row(measurement) for measurement in change.latency],
        )
    if change.proofs:
        heading("shown")
        proofs(change.proofs)


def _evidence(evidence: Evidence) -> None:
    """What it is of, and the numbers; the digests are for who compares."""
    facts(
        [
            ("measured", f"from {when(evidence.measured_at)} on"),
            ("digest", evidence.digest),
            ("of", f"version {evidence.version}, artifact {evidence.artifact}"),
            ("config", evidence.config),
            ("sweep's rows", evidence.rows),
            *([("load", evidence.load)] if evidence.load else []),
            *((name, _interval(ends)) for name, ends in evidence.figures.items()),
            *((f"objective {one['objective']}", f"{one['met']}: {one['reason']}") for one in evidence.findings),
        ]
    )
    click.echo(f"  more: tritonctl sweep show {evidence.sweep}.{evidence.trial}")


def _interval(ends: object) -> str:
    assert isinstance(ends, list)
    value, low, high = (short(float(str(end))) for end in ends)
    return f"{value} ({low} to {high})"


def destination(change: Change) -> str | None:
    """Where a rollback goes, in words; None for other changes."""
    target, base = change.target, change.plan.base_revision
    if target is None:
        return None
    if target.revision == 0:
        return f"to revision 0, which is nothing, from revision {base}"
    words = f"to revision {target.revision} (accepted {when(target.accepted_at)})"
    return f"{words}, away from what was being applied" if target.revision == base else f"{words}, from revision {base}"


def cost(plan: Plan) -> str:
    """What applying it costs those who are served now."""
    if any(one["path"] == "config" and one["old"] is None for one in plan.diff):
        return "load: nothing of it is served yet"
    return RELOAD_WORDS.get(plan.reload_class, plan.reload_class)


def _review(change: Change) -> None:
    s = change.summary
    heading(f"approvals: {len(change.counted)} of {change.needed}")
    for approval in change.approvals:
        counts = approval.principal in change.counted and approval.plan_digest == change.plan.digest
        why_not = "" if counts else "  (does not count)"
        comment = f": {approval.comment}" if approval.comment else ""
        click.echo(f"  {approval.principal}  {when(approval.at)}{comment}{why_not}")
    if s.state != "open":
        return
    if change.blockers:
        heading("blocked by")
        for blocker in change.blockers:
            prose(blocker.message, f"  {click.style(blocker.code, fg='yellow')}: ")
        if any(blocker.code == "approvals" for blocker in change.blockers):
            click.echo(f"  somebody else may approve it: tritonctl change approve {s.id}")
    else:
        click.echo(f"\nready: tritonctl change apply {s.id}")


def _journal_row(entry: JournalEntry) -> tuple[object, ...]:
    effect = entry.effect if entry.version is None else f"{entry.effect} {entry.version}"
    if entry.direction == "back":
        effect = f"{effect} (back)"
    because = entry.because if entry.error is None else f"{entry.because}; failed: {entry.error}"
    return (when(entry.started_at), entry.server, effect, _took(entry), because)


def _latency_row(m: LatencyMeasurement) -> tuple[object, ...]:
    gate, seen = m.gate, m.seen
    calibration = seen["calibration"]
    assert isinstance(calibration, dict)
    asked = f"p{gate['percentile']} <= {gate['bound_ms']} ms at {gate['rate']}/s"
    ends = f"{_ms(seen['low_us'])} to {_ms(seen['high_us'])} ms"
    floor = f"{_ms(calibration['floor_us'])} ms"
    return (
        gate["name"], m.server, m.outcome, asked, f"{_ms(seen['value_us'])} ms", ends, seen["answered"], seen["verdict"],
        floor,
    )  # fmt: skip


def _ms(microseconds: object) -> str:
    return f"{microseconds / 1000:.3g}" if isinstance(microseconds, int) else "?"


def _took(entry: JournalEntry) -> str:
    if entry.finished_at is None:
        return "…"
    took = datetime.fromisoformat(entry.finished_at) - datetime.fromisoformat(entry.started_at)
    return f"{took.total_seconds():.3f} s"


def _whole(sign: str, path: str, value: object, colour: str) -> None:
    """What came or went; a message over several lines."""
    words = json.dumps(value, indent=2) if isinstance(value, (dict, list)) else _value(value)
    for number, line in enumerate(f"{path}: {words}".split("\n")):
        click.secho(f"  {sign if number == 0 else ' '} {line}", fg=colour)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
