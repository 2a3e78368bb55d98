# From a sweep to a change, and to a capsule and its replay, by the command line. (sweep acceptance 4 and 9)
from __future__ import annotations

import json
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.cli.app import main
from controlplane.wiring import SystemClock
from tests.simulated_bench import FINGERPRINT
from tests.store.api.conftest import Api, Cli
from tests.store.api.test_sweeps import bench, runner

SPEC = '{"model": "double", "space": {"instances": [1, 2]}, "defaults": false}'


@pytest.fixture
def work(api: Api) -> Callable[[], None]:
    """As a worker does, for the sweep that waits."""

    def once() -> None:
        assert runner(api, bench()).once()

    return once


@pytest.fixture
def swept(cli: Cli, api: Api, model: str, tmp_path: Path, work: Callable[[], None]) -> Cli:
    """Of a registered model with an objective, in an environment that asks for evidence."""
    spec = tmp_path / "spec.json"
    spec.write_text(SPEC)
    cli("model", "register", "double", model)
    cli("model", "objective", "set", "double", "fast", "--metric", "latency_ms", "--qualifier", "p99", "--at-most", "10",
        "--stakeholder", "Acme")  # fmt: skip
    cli("sweep", "run", "double", "--spec", str(spec), "--no-wait")
    work()
    cli("environment", "policy", "prod", "--evidence", "dou*", "--approvals", "0", "--context", "admin")
    with api.storage.write() as unit:
        (server,) = unit.environments.servers("prod")
        unit.server_fingerprints.set("prod", server.digest, FINGERPRINT.digest, SystemClock().now())
    return cli


def test_a_sweep_becomes_a_change_with_its_evidence_that_may_be_applied(swept: Cli) -> None:
    """sweep acceptance 9: from `sweep run` to a change with its evidence, by the command line alone."""
    said = swept("sweep", "propose", "1", "--env", "prod")
    assert "evidence: trial 1." in said
    assert "evidence  passed   trial 1." in said
    assert "ready: tritonctl change apply 1" in said
    shown = swept.json("change", "show", "1")
    assert isinstance(shown, dict)
    assert shown["plan"]["evidence"]["sweep"] == 1
    assert shown["summary"]["expected_effect"].startswith("latency_ms p99 ")
    assert swept("sweep", "propose", "1.x", "--env", "prod", status=2)
    assert "there is no sweep 9" in swept("sweep", "propose", "9", "--env", "prod", status=4)
    applied = swept("change", "apply", "1", "--no-wait")
    assert "applying" in applied


def test_a_capsule_is_exported_checked_and_replayed(swept: Cli, tmp_path: Path, work: Callable[[], None]) -> None:
    """sweep acceptance 4: `replay` of a capsule on the same machine agrees."""
    file = tmp_path / "there" / "first.capsule"
    said = swept("sweep", "export", "1", "--out", str(file), "--artifacts")
    assert "every digest inside checks out" in said
    assert f"file bytes    {file.stat().st_size}\n" in said
    assert "files of inferences and versions, " in said
    with tarfile.open(file) as tar:
        assert len(tar.getnames()) == 3
    assert not file.with_name("first.capsule.part").exists()
    verified = swept.json("sweep", "replay", str(file), "--verify")
    assert isinstance(verified, dict)
    assert (verified["model"], verified["dropped"]) == ("double", [])
    swept("sweep", "replay", str(file), "--no-wait", "--model", "again")
    work()
    found = swept.json("sweep", "show", "2")
    assert isinstance(found, dict)
    assert (found["state"], found["model"], found["plan"]["method"]) == ("finished", "again", "replay")
    assert found["answer"]["replay"]["differing"] == 0
    for said in (swept("sweep", "show", "2"), swept("sweep", "watch", "2")):
        assert "a replay of sweep 1 of double: " in said
        assert "\nbeside\n  machine: no difference of the fingerprints\n" in said
        assert "nothing is chosen" not in said


def test_a_replay_that_comes_to_no_end_is_told_as_a_program_reads_it(
    swept: Cli, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "first.capsule"
    swept("sweep", "export", "1", "--out", str(file))

    def cancel() -> None:
        sweeps = api.as_("author").sweeps
        while not any(one.id == 2 for one in sweeps.list().items):
            time.sleep(0.05)
        sweeps.cancel(2)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        status = main(["sweep", "replay", str(file), "-o", "json"])
    finally:
        thread.join()
    written = capsys.readouterr()
    assert status == 7
    found = json.loads(written.out)
    assert (found["id"], found["state"], found["message"]) == (2, "cancelled", "cancelled by author")
    assert "sweep.cancelled" in written.err


def test_an_anonymous_capsule_says_what_was_dropped(
    swept: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "anonymous.capsule"
    said = swept("sweep", "export", "1", "--out", str(file), "--anonymize")
    assert "dropped" in said
    assert "the logs of the server are left out" in said
    with tarfile.open(file) as tar:
        member = tar.extractfile("capsule.json")
        assert member is not None
        document = json.loads(member.read())
    assert (document["sweep"]["model"], document["sweep"]["started_by"]) == ("model-1", "principal-1")
    text = json.dumps(document)
    assert "double" not in text
    assert "Acme" not in text
    swept.quiet("sweep", "export", "1", "--out", str(file), "--anonymize", "--artifacts", "--force")
    assert "weights and recorded inferences are in the capsule as they are" in capsys.readouterr().err


def test_a_capsule_that_was_changed_is_refused_with_what_is_wrong(swept: Cli, tmp_path: Path) -> None:
    file = tmp_path / "first.capsule"
    swept("sweep", "export", "1", "--out", str(file))
    data = file.read_bytes()
    file.write_bytes(data[:-1100] + b"!" + data[-1099:])
    said = swept("sweep", "replay", str(file), "--verify", status=2)
    assert "error [capsule.invalid]: " in said
    assert "does not check out: the bytes of sha256:" in said
    file.write_text("no capsule")
    assert "is no capsule" in swept("sweep", "replay", str(file), status=2)


def test_an_export_writes_over_no_file_unless_told_to(swept: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kept.capsule"
    file.write_text("of another sweep")
    said = swept("sweep", "export", "1", "--out", str(file), status=5)
    assert f"{file} exists\nnext: name another FILE, or write over it with --force\n" in said
    assert file.read_text() == "of another sweep"
    swept("sweep", "export", "1", "--out", str(file), "--force")
    assert tarfile.is_tarfile(file)


def test_an_export_that_is_refused_leaves_no_file(swept: Cli, tmp_path: Path) -> None:
    file = tmp_path / "x.capsule"
    swept("sweep", "export", "7", "--out", str(file), status=4)
    swept("sweep", "export", "1", "--out", str(file), "--context", "viewer", status=3)
    assert list(tmp_path.glob("x.*")) == []
