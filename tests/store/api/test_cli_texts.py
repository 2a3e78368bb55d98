# What the command line says when something is wrong or was done before: what, which value, and the next command.
from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from clients.control.types import ConfigText, NewEnvironment
from controlplane.domain.times import format_instant
from controlplane.wiring import SystemClock, host_facts
from tests.store.api.conftest import Api, Cli
from tests.store.api.test_cli import apply_as_the_worker_records_it

PROPOSE = ("change", "propose", "double", "-e", "prod", "--reason", "r")


@pytest.fixture
def deployed(api: Api, cli: Cli, model: str) -> None:
    """Version 1 of `double` in `prod`, by change 1."""
    cli("model", "register", "double", model)
    cli(*PROPOSE, "--version", "1", "--config", "generated")
    cli("change", "approve", "1", "--context", "approver")
    cli("change", "apply", "1", "--no-wait")
    apply_as_the_worker_records_it(api, 1)


def test_a_file_that_is_no_model_is_named_with_what_else_is_possible(cli: Cli, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    said = cli("model", "register", "double", str(notes), status=2)
    assert f"error [model.invalid]: {notes} cannot be registered: the file is no ONNX graph" in said
    assert "next: export it as ONNX again; what another backend serves: tritonctl model register double DIR" in said


def test_a_permission_that_is_missing_names_the_role_that_has_it(cli: Cli) -> None:
    said = cli("environment", "policy", "prod", "--approvals", "2", status=3)
    assert "author may not policy.set: that takes the role admin, and it has operator\n" in said
    assert (
        "next: ask an admin: tritonctl principal grant author admin; or act as somebody else: --context NAME\n" in said
    )


def test_a_freeze_that_ends_before_it_starts_shows_both_moments(cli: Cli) -> None:
    window = "x=2026-12-24T00:00:00Z/2026-12-23T00:00:00Z"
    said = cli("environment", "policy", "prod", "--freeze", window, "--context", "admin", status=2)
    assert "'x' starts at 2026-12-24T00:00:00.000000Z, but does not end after that: it ends at 2026-12-23" in said
    assert "next: --freeze x=START/END, the earlier moment first\n" in said


@pytest.mark.usefixtures("deployed")
def test_applying_twice_says_since_when_it_is_applied_and_succeeds(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "change 1  double in prod  applied\n" in cli("change", "apply", "1")
    cli.quiet("change", "apply", "1")
    assert capsys.readouterr().err.startswith("change 1 is applied already, since ")


@pytest.mark.usefixtures("deployed")
def test_a_wish_that_triton_would_refuse_says_each_thing_once(cli: Cli) -> None:
    said = cli(*PROPOSE, "--set", "max_batch_size=-3", status=2)
    assert said == "error [config.invalid]: max_batch_size is -3\nnext: use 0 or more\n"
    said = cli(*PROPOSE, "--set", "max_batch_size=abc", status=2)
    assert "next: write it as: --set 'max_batch_size=VALUE', with a value of that kind\n" in said


@pytest.mark.usefixtures("deployed")
def test_the_same_proposal_again_is_made_and_names_the_open_one(cli: Cli) -> None:
    cli(*PROPOSE, "--set", "max_batch_size=4")
    page = cli(*PROPOSE, "--set", "max_batch_size=4")
    assert "  note: change 2 by author, still open, proposes the same: one of them is enough\n" in page


@pytest.mark.usefixtures("deployed")
def test_the_first_deployment_is_not_said_to_stand_beside_an_old_one(cli: Cli) -> None:
    assert "costs    load: nothing of it is served yet\n" in cli("change", "show", "1")


def test_a_proof_that_was_changed_says_what_to_do_with_it(cli: Cli, model: str, tmp_path: Path) -> None:
    cli("model", "register", "double", model)
    cli(*PROPOSE, "--version", "1", "--config", "generated")
    key = cli.json("audit", "checkpoint", "--sign", "--context", "admin")["key"]  # type: ignore[index]  # a tree
    file = tmp_path / "change.proof"
    cli("audit", "proof", "1", "--file", str(file))
    whole = file.read_text()
    for old, new in (('"r"', '"s"'), ("— ", "— x")):
        file.write_text(whole.replace(old, new))
        said = cli("audit", "check", str(file), "--key", key, status=8)
        assert f"{file} proves nothing: " in said
        assert "next: it was changed since it was written, or the key is of another log" in said


def test_servers_are_listed_with_what_the_last_look_found(api: Api, cli: Cli, deployed: None) -> None:
    def state() -> tuple[str, str | None]:
        found = cli.json("server", "list", "-e", "prod")["items"][0]  # type: ignore[index]  # a tree
        return found["state"], found["watched_at"]

    def look(*drift: str) -> str:
        now = SystemClock().now()
        with api.storage.write() as unit:
            deployment = unit.environments.deployment("prod", "double")
            assert deployment is not None
            token = deployment.lease_token
            unit.environments.guard("prod", "double", token, drift=list(drift), watched_at=now)
        return format_instant(now)

    assert state() == ("unknown", None)
    seen = look("config.pbtxt differs")
    assert state() == ("reachable", seen)
    seen = look("cannot be observed (server.unreachable)")
    assert state() == ("cannot be observed (server.unreachable)", seen)
    assert "one   prod         127.0.0.1:1  cannot be observed (server.unreachable)  20" in cli(
        "server", "list", "-e", "prod"
    )


def test_drift_is_shown_with_what_mends_it(
    api: Api, cli: Cli, deployed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for found, mend in (
        ("cannot be observed (server.unreachable)", "server list --env prod"),
        ("config.pbtxt differs", "change propose double --env prod --reconcile --reason …"),
    ):
        with api.storage.write() as unit:
            deployment = unit.environments.deployment("prod", "double")
            assert deployment is not None
            unit.environments.guard("prod", "double", deployment.lease_token, drift=[found])
        cli.quiet("drift", "-e", "prod")
        assert capsys.readouterr().err == f"next: tritonctl {mend}\n"
        assert f"{found}\n" in cli("deployment", "show", "double", "-e", "prod")
    cli.quiet("drift", "-e", "prod", "-o", "json")
    assert capsys.readouterr().err == ""


def test_a_config_is_made_and_checked_for_the_server_of_an_environment(
    api: Api, cli: Cli, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = api.as_("admin")
    admin.environments.create(NewEnvironment("here", ""))
    ours = {"home": str(tmp_path / "ours")}
    api.services.environments.add_server(api.admin, "here", "mine", "127.0.0.1:2", str(tmp_path / "here"), **ours)
    cli("model", "register", "double", model)

    def hardware(*arguments: str) -> str:
        cli.quiet(*arguments)
        return capsys.readouterr().err.partition("\n")[0]

    file = tmp_path / "config.pbtxt"
    for command in (("config", "generate", "double", "--file", str(file)), ("config", "lint", str(file))):
        assert hardware(*command).startswith("hardware: this host, ")
        assert hardware(*command, "-e", "here").startswith("hardware: server mine: this host, ")
        assert hardware(*command, "-e", "prod").startswith("hardware: server one: not known, 127.0.0.1:1 is not ours")
    cli("config", "lint", str(file), "-e", "nowhere", status=4)
    on_gpu = file.read_text().replace("KIND_CPU", "KIND_GPU")
    found = {
        env: {item.code for item in admin.configs.lint(ConfigText(on_gpu, environment=env)).items}
        for env in (None, "here", "prod")
    }
    assert "embedded.unsupported" not in found[None]
    assert "embedded.unsupported" in found["here"]
    assert "instances.no_gpu" in found[None] or host_facts().gpus
    assert not found["prod"] & {"embedded.unsupported", "instances.no_gpu"}


def test_a_rollback_in_a_freeze_says_that_it_is_exempt(cli: Cli, deployed: None) -> None:
    now = SystemClock().now()
    window = f"holidays={format_instant(now)}/{format_instant(now + timedelta(hours=1))}"
    cli("environment", "policy", "prod", "--freeze", window, "--rollback-approvals", "1", "--context", "admin")
    page = cli("rollback", "double", "-e", "prod", "--to", "0", "--reason", "r")
    assert "  note: freeze window 'holidays' is on until " in page


def test_a_generated_config_is_explained_as_it_was_written(cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    delay = "dynamic_batching.max_queue_delay_microseconds"
    sets = ("--set", f"{delay}=500", "--set", "max_batch_size=9")
    made = cli.json("config", "generate", "double", "--throughput", "--max-batch-size", "4", *sets)
    assert isinstance(made, dict)
    said = {choice["path"]: choice["sentence"] for choice in made["choices"]}
    assert (said[delay], said["max_batch_size"]) == ("500, as set", "9, as set")
    assert made["config"]["max_batch_size"] == 9
    made = cli.json("config", "generate", "double", "--unset", "parameters")
    assert isinstance(made, dict)
    assert [choice for choice in made["choices"] if "parameters" in choice["path"]] == [
        {"path": "parameters", "sentence": "left out, as unset"}
    ]
    assert not any("parameters" in found["path"] or "thread" in found["message"] for found in made["findings"])


def test_adopting_again_says_what_is_proposed_already_and_what_to_do(
    cli: Cli, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / "old" / name / "1").mkdir(parents=True)
        (tmp_path / "old" / name / "1" / "model.onnx").write_bytes(Path(model).read_bytes())
    adopt = ("model", "adopt", str(tmp_path / "old"), "-e", "prod")
    cli.quiet(*adopt)
    said = capsys.readouterr().err
    assert "apply them in this order: 1, 2; next: tritonctl change show 1\n" in said
    assert "still open, proposes the same" not in said
    cli.quiet(*adopt)
    said = capsys.readouterr().err
    assert "note on change 3: change 1 by author, still open, proposes the same" in said
    assert "apply them in this order: 3, 4; next: tritonctl change show 3\n" in said


def test_each_finding_has_a_line_with_its_hint_and_is_not_repeated_for_each_version(
    cli: Cli, model: str, tmp_path: Path
) -> None:
    for _ in range(2):
        cli("model", "register", "double", model)
    bad = tmp_path / "bad.pbtxt"
    bad.write_text('backend: "onnxruntime" input { name: "z" data_type: TYPE_FP32 dims: 4 }\n')
    said = cli(*PROPOSE, "--version", "1", "--version", "2", "--config", str(bad), status=2)
    first, *lines = said.splitlines()
    assert first == f"error [config.invalid]: Triton would refuse the config, for {len(lines)} findings"
    assert len(lines) == len(set(lines)) > 1
    unlisted = [line for line in lines if "needs input 'x'" in line]
    assert unlisted == ["  input: version 1 needs input 'x', which is not listed (also version 2); list it"]
