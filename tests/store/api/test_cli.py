# The command line against a real API: what is printed for people and for programs, and how it ends.
from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from controlplane.domain.changes import ChangeState
from controlplane.domain.environments import Revision
from controlplane.wiring import SystemClock
from tests.store.api.conftest import Api, Cli


def test_the_same_list_for_people_and_for_programs(cli: Cli) -> None:
    assert cli("environment", "list") == (
        "NAME  APPROVALS  GATES  DESCRIPTION\n"
        "prod  1          -      what customers see\n"
    )  # fmt: skip
    tree = cli.json("environment", "list")
    assert tree == yaml.safe_load(cli("environment", "list", "-o", "yaml"))
    assert isinstance(tree, dict)
    assert [item["name"] for item in tree["items"]] == ["prod"]
    assert tree["next"] is None


def test_options_that_all_commands_share_may_stand_first(cli: Cli) -> None:
    assert cli.json("--context", "viewer", "principal", "show") == cli.json("principal", "show", "--context", "viewer")
    assert json.loads(cli("-o", "json", "principal", "show"))["name"] == "author"


def test_an_empty_list_says_what_to_do_next_and_prints_nothing(cli: Cli) -> None:
    assert cli("model", "list") == ""
    assert cli.json("model", "list") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("model", "show", "none"), 4, "error [not_found]: "),
        (("environment", "create", "prod", "--context", "admin"), 5, "error [already_exists]: "),
        (("environment", "create", "a b", "--context", "admin"), 2, "error [name.invalid]: "),
        (("principal", "list"), 3, "error [access.permission_denied]: author may not access.manage"),
        (("server", "show", "two", "-e", "prod"), 4, "error [not_found]: there is no server 'two' in 'prod'"),
        (("audit", "list", "--subject", "change"), 2, "error [input.invalid]: "),
    ],
)
def test_each_class_of_error_has_its_exit_status(cli: Cli, arguments: tuple[str, ...], status: int, error: str) -> None:
    said = cli(*arguments, status=status)
    assert said.startswith(error)
    assert "\nnext: " in said


def test_a_policy_is_shown_and_changed_by_its_clauses(cli: Cli) -> None:
    window = "winter=2026-12-24T00:00:00Z/2027-01-02T00:00:00Z"
    arguments = ("--approvals", "2", "--gates", "golden,compatible", "--keep-warm", "--freeze", window)
    shown = cli("environment", "policy", "prod", *arguments, "--context", "admin")
    assert "approvals             2\n" in shown
    assert "gates                 golden, compatible\n" in shown
    assert "keep_warm             yes\n" in shown
    assert "freeze                winter: 2026-12-24 00:00:00Z to 2027-01-02 00:00:00Z\n" in shown.replace(
        "  freeze  winter", "  freeze                winter"
    )
    cli("environment", "policy", "prod", "--gates", "", "--no-freeze", "--context", "admin")
    policy = cli.json("environment", "policy", "prod")
    assert isinstance(policy, dict)
    assert (policy["policy"]["gates"], policy["policy"]["freeze_windows"], policy["policy_number"]) == ([], [], 3)
    cli("environment", "policy", "prod", "--approvals", "0", "--if-number", "1", "--context", "admin", status=5)


def test_a_model_is_registered_with_what_is_said_of_it(cli: Cli, model: str) -> None:
    said = ("--owner", "maths", "--tag", "team=a", "--tag", "stage=b", "--source", "git:1", "--version", "7")
    shown = cli("model", "register", "double", model, *said)
    assert "version     7\n" in shown
    assert "x     TYPE_FP32  N, 4\n" in shown
    found = cli.json("model", "show", "double")
    assert isinstance(found, dict)
    assert (found["model"]["owner"], found["model"]["tags"]) == ("maths", {"stage": "b", "team": "a"})
    assert "git:1" in cli("model", "show", "double", "--version", "7")
    cli("model", "register", "double", model, "--tag", "team", status=2)
    cli("model", "register", "double", model, "--opaque", status=2)


def test_a_change_is_a_page_that_says_everything(cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    proposed = ("--version", "1", "--config", "generated", "--reason", "first", "--hypothesis", "it doubles")
    cli("change", "propose", "double", "--env", "prod", *proposed, "--set", "max_batch_size=16")
    page = cli("change", "show", "1")
    for line in (
        "change 1  double in prod  open\n",
        "reason      first\n",
        "hypothesis  it doubles\n",
        "costs    load: nothing of it is served yet\n",
        "  + versions[1]: sha256:",
        '      "max_batch_size": 16,\n',
        "approvals: 0 of 1\n",
        "  approvals: 0 of 1 approvals\n",
        "  somebody else may approve it: tritonctl change approve 1\n",
    ):
        assert line in page, line
    blocked = cli("change", "apply", "1", status=6)
    assert "error [change.blocked]: change 1 may not be applied: 0 of 1 approvals" in blocked
    approved = cli("change", "approve", "1", "--comment", "good", "--context", "approver")
    assert cli.json("change", "show", "1")["plan"]["digest"] in approved  # type: ignore[index]  # a tree
    assert "ready: tritonctl change apply 1\n" in cli("change", "show", "1")
    listed = cli("change", "list", "--state", "open").splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["1", "open", "change", "prod", "double", "author", *listed[1].split()[6:8], "first"]
    ]


def test_a_change_that_did_not_end_well_ends_the_command_so(api: Api, cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    cli("environment", "policy", "prod", "--approvals", "0", "--context", "admin")
    wish = ("change", "propose", "double", "-e", "prod", "--version", "1", "--config", "generated", "--reason", "r")
    cli(*wish, "--apply", "--no-wait")
    assert "operation.timed_out" in cli("change", "watch", "1", "--timeout", "1", status=10)
    for state, hint in ((ChangeState.STUCK, "change resume 1 --decision"), (ChangeState.UNDONE, "change show 1")):
        with api.storage.write() as unit:
            unit.changes.move(1, state, message="the load failed")
        said = cli("change", "watch", "1", status=7)
        assert f"error [change.{state.value}]: change 1: " in said
        assert f"next: tritonctl {hint}" in said


def test_a_repository_is_adopted_with_what_triton_would_serve(cli: Cli, model: str, tmp_path: Path) -> None:
    root = tmp_path / "old"
    for number in ("1", "2"):
        (root / "double" / number).mkdir(parents=True)
        (root / "double" / number / "model.onnx").write_bytes(Path(model).read_bytes())
    cli("model", "register", "double", model)
    text = cli("config", "generate", "double")
    (root / "double" / "config.pbtxt").write_text(f"{text}\nversion_policy {{ all {{ }} }}\n")
    (root / "script" / "1").mkdir(parents=True)
    (root / "script" / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
    (root / "script" / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 2\n')
    adopted = cli.json("model", "adopt", str(root), "-e", "prod")
    assert isinstance(adopted, list)
    notes = [item.pop("notes") for item in adopted]
    assert "version_policy was left out: the versions of the revision decide it" in notes[0]
    assert adopted == [
        {"model": "double", "versions": [1, 2], "opaque": False, "change": 1, "message": "open"},
        {"model": "script", "versions": [1], "opaque": True, "change": 2, "message": "open"},
    ]
    change = cli.json("change", "show", "1")
    assert isinstance(change, dict)
    assert [ref["number"] for ref in change["plan"]["versions"]] == [1, 2]
    assert "version_policy" not in change["plan"]["config"]


def test_what_is_served_as_it_lies_there_is_adopted_already(cli: Cli, api: Api, model: str, tmp_path: Path) -> None:
    root = tmp_path / "old"
    for name in ("double", "plain"):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(Path(model).read_bytes())
    cli("model", "register", "double", model)
    config = root / "double" / "config.pbtxt"
    config.write_text(cli("config", "generate", "double") + "\nversion_policy { all { } }\n")
    adopted = cli.json("model", "adopt", str(root), "-e", "prod")
    assert [item["change"] for item in adopted] == [1, 2]  # type: ignore[attr-defined]  # a tree
    for number in ("1", "2"):
        cli("change", "approve", number, "--context", "approver")
        cli("change", "apply", number, "--no-wait")
        apply_as_the_worker_records_it(api, int(number))
    assert cli.json("model", "adopt", str(root), "-e", "prod") == [
        {"model": name, "versions": [1], "opaque": False, "change": None, "message": "already adopted", "notes": []}
        for name in ("double", "plain")
    ]
    config.write_text(config.read_text() + "\nresponse_cache { enable: true }\n")
    adopted = cli.json("model", "adopt", str(root), "-e", "prod")
    assert [(item["change"], item["message"]) for item in adopted] == [  # type: ignore[attr-defined]  # a tree
        (3, "open"),
        (None, "already adopted"),
    ]


def apply_as_the_worker_records_it(api: Api, change: int) -> None:
    with api.storage.write() as unit:
        request = unit.changes.get(change)
        deployment = unit.environments.deployment(request.environment, request.model)
        assert deployment is not None
        number = deployment.revision + 1
        unit.environments.guard(
            request.environment, request.model, deployment.lease_token, revision=number, active_change=None
        )
        desired = unit.changes.plan(request).desired
        unit.environments.add_revision(
            Revision(request.environment, request.model, number, desired, change, SystemClock().now(), ())
        )
        unit.changes.move(change, ChangeState.APPLIED)


def test_a_bare_replan_keeps_the_wish_and_options_are_the_whole_wish(cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    wish = ("--version", "1", "--config", "generated", "--set", "max_batch_size=16")
    cli("change", "propose", "double", "-e", "prod", *wish, "--reason", "first", "--hypothesis", "faster")
    bare = cli.json("change", "replan", "1")
    assert isinstance(bare, dict)
    assert (bare["plan"]["number"], bare["plan"]["config"]["max_batch_size"]) == (2, 16)
    said = cli("change", "replan", "1", "--reason", "second", status=2)
    assert "say the whole wish again, or replan without options" in said
    assert cli.json("change", "show", "1")["plan"]["number"] == 2  # type: ignore[index]  # a tree
    new = cli.json("change", "replan", "1", *wish[:-1], "max_batch_size=8", "--reason", "second")
    assert isinstance(new, dict)
    assert (new["plan"]["config"]["max_batch_size"], new["summary"]["reason"]) == (8, "second")
    assert new["summary"]["hypothesis"] == "faster"


def test_the_api_refuses_a_replan_that_would_lose_the_wish(cli: Cli, api: Api, model: str) -> None:
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "-e", "prod", "--version", "1", "--config", "generated", "--reason", "first")
    with api.http("author") as http:
        answer = http.post("/v1/changes/1/plans", json={"environment": "prod", "model": "double", "reason": "second"})
        assert (answer.status_code, answer.json()["code"]) == (422, "input.invalid")
        assert answer.json()["hint"] == "say the whole wish again, or replan without options"
        answer = http.post("/v1/changes/1/plans")
        assert (answer.status_code, answer.json()["plan"]["number"]) == (201, 2)


def test_a_vote_prints_what_it_made_and_not_the_page_from_before(cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "-e", "prod", "--version", "1", "--config", "generated", "--reason", "first")
    digest = cli.json("change", "show", "1")["plan"]["digest"]  # type: ignore[index]  # a tree
    assert cli("change", "approve", "1", "--context", "approver") == (
        f"approved change 1, plan {digest}\n1 of 1 approvals\nready: tritonctl change apply 1\n"
    )
    cli("change", "withdraw", "1")
    said = cli("change", "approve", "1", "--context", "approver", status=5)
    assert said.startswith("error [change.transition_illegal]: ")


def test_what_cannot_be_adopted_is_named_and_the_rest_is(cli: Cli, model: str, tmp_path: Path) -> None:
    root = tmp_path / "old"
    for name, data in (("bad", b"no model"), ("good", Path(model).read_bytes())):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(data)
    said = cli("model", "adopt", str(root), "-e", "prod", status=5)
    assert "error [adopt.incomplete]: 1 of 2 models were not proposed, first bad: [model.invalid]" in said
    assert [item["model"] for item in cli.json("change", "list")["items"]] == ["good"]  # type: ignore[index]  # a tree


def test_configs_are_linted_and_compared(cli: Cli, model: str, tmp_path: Path) -> None:
    cli("model", "register", "double", model)
    one, two = tmp_path / "one.pbtxt", tmp_path / "two.pbtxt"
    cli("config", "generate", "double:1", "--throughput", "--file", str(one))
    two.write_text(one.read_text().replace("dims: 4", "dims: 5", 1))
    assert cli("config", "lint", str(one), "--for", "double") == ""
    said = cli("config", "lint", str(two), "--for", "double", status=2)
    assert f"error [config.invalid]: Triton would refuse {two}, for " in said
    for line in [line for line in said.splitlines() if line.startswith("refused: ")]:
        assert said.count(line.rpartition("; ")[2]) == 1, "a hint is said once"
    compared = cli("config", "diff", str(one), str(two))
    assert "  ~ input[" in compared or "  ~ input" in compared
    assert "costs: breaks_clients" in compared


def test_a_proof_is_written_and_checked_offline(cli: Cli, model: str, tmp_path: Path) -> None:
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "-e", "prod", "--version", "1", "--config", "generated", "--reason", "r")
    key = cli.json("audit", "checkpoint", "--sign", "--context", "admin")["key"]  # type: ignore[index]  # a tree
    file = tmp_path / "change.proof"
    cli("audit", "proof", "1", "--file", str(file))
    assert "proven: 1 entries about change 1\n" in cli("audit", "check", str(file), "--key", key)
    file.write_text(file.read_text().replace('"r"', '"s"'))
    assert "error [audit.broken]: " in cli("audit", "check", str(file), "--key", key, status=8)


def test_tokens_are_made_shown_once_and_revoked(cli: Cli, api: Api) -> None:
    cli("principal", "create", "robot", "--service-account", "--role", "operator", "--context", "admin")
    secret = cli("token", "create", "robot", "--days", "1", "--context", "admin").strip()
    assert api.services.access.authenticate(secret).name == "robot"
    tokens = cli.json("token", "list", "robot", "--context", "admin")["items"]  # type: ignore[index]  # a tree
    assert secret not in json.dumps(tokens)
    cli("token", "revoke", str(tokens[0]["id"]), "--context", "admin")
    cli("principal", "revoke", "robot", "operator", "--context", "admin")
    cli("principal", "disable", "robot", "--context", "admin")
    shown = cli("principal", "show", "robot", "--context", "admin")
    assert "roles      none\n" in shown
    assert "disabled  " in shown
