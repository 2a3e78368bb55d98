# Servers and environments by the command line and the API: changed, removed, listed over all, and what was never seen.
from __future__ import annotations

import pytest

from clients.control.types import NewEnvironment
from controlplane.wiring import SystemClock
from tests.store.api.conftest import Api, Cli
from tests.store.api.test_cli import apply_as_the_worker_records_it

ADMIN = ("--context", "admin")
WINTER, SUMMER = "winter=2026-12-24T00:00:00Z/2027-01-02T00:00:00Z", "summer=2027-07-01T00:00:00Z/2027-08-01T00:00:00Z"


def windows(cli: Cli) -> list[str]:
    found = cli.json("environment", "policy", "prod")
    assert isinstance(found, dict)
    return [window["name"] for window in found["policy"]["freeze_windows"]]


def test_a_freeze_window_is_added_to_the_others_until_it_is_removed(cli: Cli) -> None:
    policy = ("environment", "policy", "prod", *ADMIN)
    cli(*policy, "--freeze", WINTER)
    cli(*policy, "--freeze", SUMMER)
    assert windows(cli) == ["winter", "summer"]
    moved = cli(*policy, "--freeze", WINTER.replace("2027-01-02", "2027-01-09"))
    assert windows(cli) == ["summer", "winter"]
    assert "winter: 2026-12-24 00:00:00Z to 2027-01-09 00:00:00Z\n" in moved
    said = cli(*policy, "--unfreeze", "sumer", status=2)
    assert "there is no window 'sumer' in 'prod', only: summer, winter" in said
    cli(*policy, "--unfreeze", "summer")
    assert windows(cli) == ["winter"]
    cli(*policy, "--no-freeze", "--freeze", SUMMER)
    assert windows(cli) == ["summer"]


def test_a_mistyped_server_is_mended_or_removed(cli: Cli) -> None:
    shown = cli("server", "set", "one", "-e", "prod", "--address", "127.0.0.1:2", "--log-file", "/log", *ADMIN)
    assert "address      127.0.0.1:2\n" in shown
    assert "log_file" not in cli("server", "set", "one", "-e", "prod", "--log-file", "", *ADMIN)
    assert "error [input.invalid]: nothing to change was named" in cli(
        "server", "set", "one", "-e", "prod", *ADMIN, status=2
    )
    assert "author may not server.manage" in cli("server", "remove", "one", "-e", "prod", status=3)
    said = cli("environment", "remove", "prod", *ADMIN, status=5)
    assert "next: tritonctl server remove one --env prod\n" in said
    cli("server", "remove", "one", "-e", "prod", *ADMIN)
    cli("environment", "remove", "prod", *ADMIN)
    assert cli.json("environment", "list") == {"items": [], "next": None}
    assert "to have it again: tritonctl environment create prod\n" in cli("environment", "show", "prod", status=4)
    cli("environment", "create", "prod", *ADMIN)
    assert "policy       number 2\n" in cli("environment", "show", "prod")


def test_a_server_is_changed_only_while_it_is_what_was_seen(api: Api, cli: Cli) -> None:
    path = "/v1/environments/prod/servers/one"
    with api.http("admin") as client:
        seen = client.get(path).headers["ETag"]
        first = client.patch(path, json={"address": "127.0.0.1:2"}, headers={"If-Match": seen})
        late = client.patch(path, json={"address": "127.0.0.1:3"}, headers={"If-Match": seen})
        unknown = client.patch(path, json={"home": "/nowhere"})
    assert (first.status_code, late.status_code, late.json()["code"]) == (200, 412, "precondition.failed")
    assert first.headers["ETag"] not in ("", seen)
    assert unknown.status_code == 422
    entry = api.as_("admin").audit.entries(limit=1).items[0]
    assert (entry.action, entry.subjects) == ("server.changed", {"environment": "prod", "server": "one"})


def test_a_taken_name_is_answered_with_a_command_that_works(api: Api, cli: Cli) -> None:
    api.as_("admin").environments.create(NewEnvironment("local"))
    add = ("server", "add", "one", "-e", "local", "--address", "127.0.0.1:1", "--repository", "/nowhere/x")
    said = cli(*add, *ADMIN, status=5)
    assert "server 'one' exists, in environment 'prod'" in said
    command = said.split("next: tritonctl ")[1].split()
    assert "environment  prod\n" in cli(*command)
    assert "one   prod         127.0.0.1:1  unknown" in cli("server", "list")


def test_what_was_never_looked_at_is_not_called_clean(
    api: Api, cli: Cli, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def drift(*arguments: str) -> str:
        cli.quiet("drift", *arguments)
        return capsys.readouterr().err

    assert drift() == "nothing is deployed: there was nothing to look at\n"
    assert drift("double") == "double is not deployed: there was nothing to look at\n"
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "-e", "prod", "--reason", "r", "--version", "1", "--config", "generated")
    cli("change", "approve", "1", "--context", "approver")
    cli("change", "apply", "1", "--no-wait")
    apply_as_the_worker_records_it(api, 1)
    assert drift("-e", "prod") == (
        "no drift is known in prod\nthe worker has not looked yet at double in prod: does it run? `tritonctl worker`\n"
    )
    assert "not looked at yet" in cli("deployment", "list")
    with api.storage.write() as unit:
        deployment = unit.environments.deployment("prod", "double")
        assert deployment is not None
        unit.environments.guard("prod", "double", deployment.lease_token, watched_at=SystemClock().now())
    assert drift() == "no drift\n"
    assert drift("double", "-e", "prod") == "no drift in prod\n"
