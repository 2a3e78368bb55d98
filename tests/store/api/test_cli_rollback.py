# What the command line says of going back, of a freeze, and of a broken glass.
from __future__ import annotations

from datetime import timedelta

import pytest

from clients.control.types import RollbackTarget
from controlplane.domain.times import format_instant
from controlplane.wiring import SystemClock
from tests.store.api.conftest import Api, Cli
from tests.store.api.test_cli import apply_as_the_worker_records_it

PROPOSE = ("change", "propose", "double", "-e", "prod")


@pytest.fixture
def deployed(api: Api, cli: Cli, model: str) -> None:
    """Revisions 1 and 2 of `double` in `prod`, by changes 1 and 2; the policy wants no approvals."""
    cli("environment", "policy", "prod", "--approvals", "0", "--context", "admin")
    cli("model", "register", "double", model)
    for number, wish in ((1, ("--version", "1", "--config", "generated")), (2, ("--set", "max_batch_size=16"))):
        cli(*PROPOSE, *wish, "--reason", f"wish {number}", "--apply", "--no-wait")
        apply_as_the_worker_records_it(api, number)


def _window() -> str:
    now = SystemClock().now()
    return f"winter={format_instant(now - timedelta(hours=1))}/{format_instant(now + timedelta(hours=1))}"


def test_a_rollback_says_where_it_goes(cli: Cli, api: Api, deployed: None) -> None:
    listed = cli.json("revision", "list", "double", "-e", "prod")
    assert isinstance(listed, dict)
    accepted = next(found["accepted_at"] for found in listed["items"] if found["number"] == 1)
    words = f"to revision 1 (accepted {accepted[:10]} {accepted[11:19]}Z), from revision 2"
    said = cli("rollback", "double", "-e", "prod", "--reason", "worse", "--no-wait")
    assert f"goes back  {words}\n" in said
    apply_as_the_worker_records_it(api, 3)
    assert f"goes back  {words}\n" in cli("change", "show", "3")
    assert "goes back" not in cli("change", "show", "2")
    assert "goes back  to revision 0, which is nothing, from revision 3\n" in cli(
        "rollback", "double", "-e", "prod", "--to", "0", "--reason", "r", "--no-wait"
    )
    author = api.as_("author")
    assert [author.changes.get(number).target for number in (2, 3, 4)] == [
        None,
        RollbackTarget(1, accepted),
        RollbackTarget(0, None),
    ]


def test_a_rollback_away_from_what_is_being_applied_says_so(cli: Cli, deployed: None) -> None:
    cli(*PROPOSE, "--set", "max_batch_size=4", "--reason", "r", "--apply", "--no-wait")
    said = cli("rollback", "double", "-e", "prod", "--reason", "worse", "--no-wait")
    assert "to revision 2 (accepted " in said
    assert "Z), away from what was being applied\n" in said


def test_what_comes_after_a_rollback_to_nothing_is_a_load(cli: Cli, api: Api, deployed: None) -> None:
    cli("rollback", "double", "-e", "prod", "--to", "0", "--reason", "r", "--no-wait")
    apply_as_the_worker_records_it(api, 3)
    page = cli(*PROPOSE, "--version", "1", "--config", "generated", "--reason", "again")
    assert "costs    load: nothing of it is served yet\n" in page
    assert "base     revision 3\n" in page
    assert "  note: nothing of the model is served yet: it is loaded\n" in page


def test_revisions_are_listed_with_what_made_them(cli: Cli, api: Api, deployed: None) -> None:
    cli("rollback", "double", "-e", "prod", "--reason", "worse", "--no-wait")
    apply_as_the_worker_records_it(api, 3)
    lines = [line.split() for line in cli("revision", "list", "double", "-e", "prod").splitlines()]
    assert lines[0][-3:] == ["CHANGE", "KIND", "REASON"]
    assert [(line[0], line[5], line[6], " ".join(line[7:])) for line in lines[1:]] == [
        ("3", "3", "rollback", "worse"),
        ("2", "2", "change", "wish 2"),
        ("1", "1", "change", "wish 1"),
    ]
    page = [line.split() for line in cli("revision", "show", "double", "3", "-e", "prod").splitlines()]
    assert (["kind", "rollback"] in page, ["reason", "worse"] in page) == (True, True), page
    assert "change       3; who decided, and on what: tritonctl change show 3\n" in cli(
        "revision", "show", "double", "3", "-e", "prod"
    )
    revisions = api.as_("author").environments
    assert [(r.kind, r.reason) for r in revisions.revisions("prod", "double").items] == [
        ("rollback", "worse"),
        ("change", "wish 2"),
        ("change", "wish 1"),
    ]
    nothing = revisions.revision("prod", "double", 0)
    assert (nothing.kind, nothing.reason) == (None, None)


def test_a_freeze_names_break_glass_where_the_policy_has_it_and_it_says_who_looks_after(
    cli: Cli, deployed: None
) -> None:
    cli("environment", "policy", "prod", "--freeze", _window(), "--no-break-glass", "--context", "admin")
    cli(*PROPOSE, "--set", "max_batch_size=4", "--reason", "r")
    assert "break-glass" not in cli("change", "apply", "3", status=6)
    cli("environment", "policy", "prod", "--break-glass", "--context", "admin")
    said = cli("change", "apply", "3", status=6)
    assert "next: wait; in an emergency, as an admin: tritonctl change apply 3 --break-glass WHY\n" in said
    assert cli.json("change", "list", "--review", "open") == {"items": [], "next": None}
    page = cli("change", "apply", "3", "--break-glass", "customers wait", "--no-wait", "--context", "admin")
    closes = "tritonctl change close-review 3 --comment …"
    assert f"open: somebody else closes it: {closes}\n" in page
    cli(*PROPOSE, "--set", "max_batch_size=2", "--reason", "another, which needs no review")
    listed = cli.json("change", "list", "--review", "open", "--limit", "1")
    assert isinstance(listed, dict)
    assert ([summary["id"] for summary in listed["items"]], listed["next"]) == ([3], None)
    listed = cli.json("change", "list", "--review", "closed", "--limit", "1")
    assert listed == {"items": [], "next": None}


def test_a_rejection_takes_its_comment_as_a_reason_too(cli: Cli, deployed: None) -> None:
    cli(*PROPOSE, "--set", "max_batch_size=4", "--reason", "r")
    assert cli("change", "reject", "3", "--reason", "too small", "--context", "approver").startswith(
        "rejected change 3"
    )
