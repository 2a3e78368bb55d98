# Environments and their policies.
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from clients.control.types import Environment, JsonObject, NewEnvironment
from controlplane.cli.deployment import no_drift
from controlplane.cli.output import emit, emit_page, facts, heading, table, when
from controlplane.cli.session import Noun, Session, pass_session, say

F = TypeVar("F", bound=Callable[..., Any])

_CLAUSES = (
    click.option("--approvals", type=int, help="Approvals that a change needs."),
    click.option("--approver-roles", metavar="ROLE,…", help="Roles whose approval counts."),
    click.option("--self-approval/--no-self-approval", default=None, help="Whether authors may approve their own."),
    click.option("--rollback-approvals", type=int, help="Approvals that a rollback needs."),
    click.option("--gates", metavar="GATE,…", help="Gates that must pass; '' for none."),
    click.option("--expires-after-hours", type=int, help="How long a proposal stays open."),
    click.option("--keep-warm/--no-keep-warm", default=None, help="Keep the previous version loaded for rollback."),
    click.option("--load-timeout-seconds", type=int, help="Deadline of one load."),
    click.option("--break-glass/--no-break-glass", default=None, help="Whether an admin may apply in an emergency."),
    click.option("--keep-revisions", type=int, help="How many revisions keep their versions in the repository."),
    click.option(
        "--latency-gate",
        multiple=True,
        metavar="NAME=MODELS:p99<=MSms@RATE/s",
        help="Add a bound of latency that loads must keep, or replace the one of that name; after it, where wanted: "
        ",seconds=10,most_seconds=60,inconclusive=pause|undo|accept",
    ),
    click.option(
        "--evidence",
        multiple=True,
        metavar="MODELS[:CLAUSE=VALUE,…]",
        help="Ask changes of these models (* and ? stand for anything) for a trial of a sweep, or replace what is asked of "
        "them; where wanted, with max_age_days=30,fingerprint=same|any,inconclusive=block|accept. "
        "Rollbacks, reconciling and break-glass are exempt.",
    ),
    click.option(
        "--freeze",
        multiple=True,
        metavar="NAME=START/END",
        help="Add a window without changes (RFC 3339), or move the one of that name.",
    ),
)


def policy_clauses(command: F) -> F:
    for option in reversed(_CLAUSES):
        command = option(command)
    return command


@click.group(cls=Noun)
def environment() -> None:
    """Environments and their policies."""


@environment.command()
@click.argument("name")
@click.option("--description", default="", help="What it is for.")
@policy_clauses
@pass_session
def create(session: Session, /, name: str, description: str, **clauses: Any) -> None:
    """Create environment NAME; clauses that are left out have their defaults."""
    created = session.client.environments.create(NewEnvironment(name, description, _clauses(clauses)))
    emit(session, created, lambda: _page(created))


@environment.command("list")
@pass_session
def list_environments(session: Session) -> None:
    """List the environments."""
    emit_page(
        session,
        session.client.environments.list(),
        ("NAME", "APPROVALS", "GATES", "DESCRIPTION"),
        lambda env: (env.name, env.policy["approvals"], env.policy["gates"], env.description),
        "no environments yet: tritonctl environment create NAME",
    )


@environment.command()
@click.argument("name")
@pass_session
def show(session: Session, name: str) -> None:
    """Show environment NAME, its policy, servers and deployments."""
    found = session.client.environments.get(name)
    servers = session.client.environments.servers(name)
    deployments = session.client.environments.deployments(name)

    def page() -> None:
        _page(found)
        heading("servers")
        table(
            ("NAME", "ADDRESS", "STATE", "REPOSITORY"),
            [(s.name, s.address, s.state, s.repository) for s in servers.items],
        )
        heading("deployments")
        table(
            ("MODEL", "REVISION", "DRIFT"),
            [(d.model, d.revision, len(d.drift) or no_drift(d)) for d in deployments.items],
        )

    emit(session, {"environment": found, "servers": servers.items, "deployments": deployments.items}, page)


@environment.command()
@click.argument("name")
@pass_session
def remove(session: Session, name: str) -> None:
    """Remove environment NAME. Its history stays; to create it again brings it back."""
    session.client.environments.remove(name)
    say(f"removed environment {name}")


@environment.command()
@click.argument("name")
@policy_clauses
@click.option("--unfreeze", multiple=True, metavar="NAME", help="Remove that freeze window.")
@click.option("--no-freeze", is_flag=True, help="Remove all freeze windows that were there.")
@click.option("--no-latency-gate", multiple=True, metavar="NAME", help="Remove that latency gate.")
@click.option("--no-evidence", multiple=True, metavar="MODELS", help="Ask no more evidence of these models.")
@click.option("--if-number", type=int, help="Only while the policy still has this number.")
@pass_session
def policy(
    session: Session,
    /,
    *,
    name: str,
    unfreeze: tuple[str, ...],
    no_freeze: bool,
    no_latency_gate: tuple[str, ...],
    no_evidence: tuple[str, ...],
    if_number: int | None,
    **clauses: Any,
) -> None:
    """Show the policy of environment NAME, or replace the clauses that are given. Freeze windows, latency gates and evidence that
    are not named stay."""
    changes = _clauses(clauses)
    windows, gates, asked = "freeze_windows" in changes, "latency_gates" in changes, "evidence" in changes
    if unfreeze or no_freeze or windows or no_latency_gate or gates or no_evidence or asked:
        before = session.client.environments.get(name)
        if unfreeze or no_freeze or windows:
            changes["freeze_windows"] = _windows(before, changes.get("freeze_windows", []), unfreeze, clear=no_freeze)
        if no_latency_gate or gates:
            changes["latency_gates"] = _gates(before, changes.get("latency_gates", []), no_latency_gate)
        if no_evidence or asked:
            changes["evidence"] = _evidence(before, changes.get("evidence", []), no_evidence)
        # What was not named is written anew: nobody may have changed it meanwhile.
        if_number = before.policy_number if if_number is None else if_number
    if changes:
        found = session.client.environments.set_policy(name, changes, expected_number=if_number)
        say(f"policy of {name} is now number {found.policy_number}")
    else:
        found = session.client.environments.get(name)
    emit(session, found, lambda: _page(found))


def _page(env: Environment) -> None:
    facts(
        [
            ("environment", env.name),
            ("description", env.description),
            ("created", when(env.created_at)),
            ("policy", f"number {env.policy_number}"),
        ]
    )
    windows, gates, evidence = (env.policy[name] for name in ("freeze_windows", "latency_gates", "evidence"))
    assert isinstance(windows, list)
    assert isinstance(gates, list)
    assert isinstance(evidence, list)
    listed = ("freeze_windows", "latency_gates", "evidence")
    facts(
        [(f"  {clause}", _clause(value)) for clause, value in env.policy.items() if clause not in listed]
        + [("  latency", _gate(gate)) for gate in gates]
        + [("  evidence", _asked(clause)) for clause in evidence]
        + [("  freeze", f"{w['name']}: {when(w['starts_at'])} to {when(w['ends_at'])}") for w in windows]
    )


def _gate(gate: JsonObject) -> str:
    asked = f"p{gate['percentile']} <= {gate['bound_ms']} ms at {gate['rate']}/s"
    times = f"{gate['seconds']} to {gate['most_seconds']} s, inconclusive: {gate['inconclusive']}"
    return f"{gate['name']}: {gate['models']} {asked}, {times}"


def _asked(clause: JsonObject) -> str:
    where = {"same": "servers of the same class", "any": "any machine"}.get(str(clause["fingerprint"]), "")
    return f"{clause['models']}: at most {clause['max_age_days']} days old, of {where}, inconclusive: {clause['inconclusive']}"


def _clause(value: object) -> object:
    return "none" if value == [] else value


def _clauses(given: dict[str, Any]) -> JsonObject:
    """Only what was given: the rest keeps what it is."""
    windows: list[object] = [_window(text) for text in given.pop("freeze")]
    gates: list[object] = list(given.pop("latency_gate"))
    evidence: list[object] = list(given.pop("evidence"))
    found: JsonObject = {}
    for name, value in given.items():
        if value is None:
            continue
        found[name] = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if windows:
        found["freeze_windows"] = windows
    if gates:
        found["latency_gates"] = gates
    if evidence:
        found["evidence"] = evidence
    return found


def _gates(before: Environment, added: object, removed: tuple[str, ...]) -> list[object]:
    """Those that were there, without the removed ones, and the added ones, which are text: the API reads it."""
    had, new = before.policy["latency_gates"], added
    assert isinstance(had, list)
    assert isinstance(new, list)
    names = [gate["name"] for gate in had]
    for name in removed:
        if name not in names:
            raise click.BadParameter(
                f"there is no latency gate {name!r} in {before.name!r}, only: {', '.join(names) or 'none'}",
                param_hint="--no-latency-gate",
            )
    gone = {*removed, *(text.partition("=")[0].strip() for text in new)}
    return [*(gate for gate in had if gate["name"] not in gone), *new]


def _evidence(before: Environment, added: object, removed: tuple[str, ...]) -> list[object]:
    """Those that were there, without the removed ones, and the added ones, which are text: the API reads it."""
    had, new = before.policy["evidence"], added
    assert isinstance(had, list)
    assert isinstance(new, list)
    patterns = [clause["models"] for clause in had]
    for pattern in removed:
        if pattern not in patterns:
            raise click.BadParameter(
                f"no evidence is asked of {pattern!r} in {before.name!r}, only of: {', '.join(patterns) or 'nothing'}",
                param_hint="--no-evidence",
            )
    gone = {*removed, *(text.partition(":")[0].strip() for text in new)}
    return [*(clause for clause in had if clause["models"] not in gone), *new]


def _windows(before: Environment, added: object, removed: tuple[str, ...], *, clear: bool) -> list[object]:
    """Those that were there, without the removed ones, and the added ones."""
    had, new = before.policy["freeze_windows"], added
    assert isinstance(had, list)
    assert isinstance(new, list)
    names = [window["name"] for window in had]
    for name in removed:
        if name not in names:
            raise click.BadParameter(
                f"there is no window {name!r} in {before.name!r}, only: {', '.join(names) or 'none'}",
                param_hint="--unfreeze",
            )
    gone = {*removed, *(window["name"] for window in new)}
    return [*(window for window in had if not clear and window["name"] not in gone), *new]


def _window(text: str) -> JsonObject:
    name, _, span = text.partition("=")
    starts_at, slash, ends_at = span.partition("/")
    if not slash:
        raise click.BadParameter(f"{text!r} is not NAME=START/END", param_hint="--freeze")
    return {"name": name, "starts_at": starts_at, "ends_at": ends_at}
