# A sweep as people run it: `tritonctl up`, a model with an objective, one command to the answer, and one to the revision.
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from controlplane.triton.runtime.find import TritonRuntime
from tests.live.python_models import register_sleeping
from tests.live.test_up import TRITONCTL, Up, make, until

SPEC = "{space: {max_batch_size: [1, 4]}, defaults: false, search: {seconds: 60}}"
STEADY = "{space: {max_batch_size: [1, 4]}, defaults: false, load: {rate: 15}, search: {seconds: 90}}"
"""A rate that either config has no trouble with: no highest one is looked for, whatever else runs on the host."""


@pytest.fixture(scope="module")
def up(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """With `slow`, nine of ten of whose answers may take 600 ms, deployed by a config that is none of the candidates."""
    directory = tmp_path_factory.mktemp("sweep")
    for made in make(runtime, directory):
        config = register_sleeping(made, directory, "slow")
        bound = ("--metric", "latency_ms", "--qualifier", "p90", "--at-most", "600", "--stakeholder", "product")
        made.run("model", "objective", "set", "slow", "fast", *bound)
        made.run("environment", "policy", "local", "--approvals", "0", "--context", "admin")
        wish = ("--version", "1", "--config", str(config), "--set", "instance_group[0].count=3")
        made.run("change", "propose", "slow", "--env", "local", *wish, "--reason", "first", "--apply")
        yield made


def sweep(up: Up, *arguments: str, spec: str = SPEC, chooses: bool = True) -> tuple[str, str]:
    """Standard output and standard error. A busy host may leave nothing to choose, where that is no matter."""
    done = subprocess.run(
        [*TRITONCTL, "sweep", *arguments],
        env=up.environment,
        input=spec,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode in ((0,) if chooses else (0, 7)), done.stdout + done.stderr
    return done.stdout, done.stderr


def tree(up: Up, *arguments: str) -> dict[str, object]:
    found = json.loads(sweep(up, *arguments, "-o", "json")[0])
    return found if isinstance(found, dict) else {"items": found}


def benches(up: Up) -> list[int]:
    """Servers that the worker runs for sweeps."""
    found = up.children()["worker"].children(recursive=True)
    return [child.pid for child in found if "tritonserver" in child.name()]


def test_one_command_goes_from_the_wish_to_the_answer_and_touches_no_environment(up: Up) -> None:
    assert "base        the config of revision 1 in local\n" in sweep(up, "run", "slow", "-e", "local", "--dry-run")[0]
    said, progress = sweep(up, "run", "slow", "--spec", "-", "--seed", "3")
    plan, _, answer = said.partition("sweep 1  slow  finished\n")
    assert "candidates  2 of 2 choices\n" in plan
    assert "method      racing, seed 3\n" in plan
    assert "objectives  fast: latency_ms p90 at most 600\n" in plan
    assert " blocks, about " in progress
    assert progress.endswith("sweep 1: finished\n")
    assert " requests a second at p90 <= 600 ms" in answer
    assert "next: tritonctl sweep propose 1." in answer
    found = tree(up, "show", "1")
    assert str(found["evidence"]).startswith("sha256:")
    trials = tree(up, "show", "1", "--trials")["items"]
    assert isinstance(trials, list)
    assert all(trial["blocks"] >= 3 and not trial["failure"] for trial in trials if not trial["refused"])
    deployed = json.loads(up.run("deployment", "show", "slow", "--env", "local", "-o", "json"))
    assert (deployed["revision"], deployed["drift"], deployed["active_change"]) == (1, [], None)
    assert up.answer("slow") == 2.0
    until(lambda: benches(up) == [], 30, "the bench is gone")
    assert "the audit log is intact" in up.run("audit", "verify")


def test_its_choice_becomes_a_verified_revision_with_its_evidence_and_back(up: Up) -> None:
    """Sweep acceptance 9, on a live server: by the command line alone, where the policy asks for evidence."""
    up.run("environment", "policy", "local", "--evidence", "sl*", "--context", "admin")
    bare = ("--set", "max_batch_size=2", "--reason", "a guess", "--apply")
    assert "evidence" in up.run("change", "propose", "slow", "--env", "local", *bare, status=6)
    until(lambda: sweep(up, "propose", "1", "--env", "local")[0].count("evidence  passed") == 1, 60, "a known machine")
    proposed, _ = sweep(up, "propose", "1", "--env", "local", "--apply")
    assert "evidence: trial 1." in proposed
    assert "applied" in proposed
    assert up.answer("slow") == 2.0
    up.run("rollback", "slow", "--env", "local", "--reason", "it was better before")
    revisions = json.loads(up.run("revision", "list", "slow", "--env", "local", "-o", "json"))["items"]
    assert [(one["number"], one["config"]["instance_group"][0]["count"] == 3) for one in revisions] == [
        (3, True),
        (2, False),
        (1, True),
    ]
    assert "the audit log is intact" in up.run("audit", "verify")


def test_two_trials_of_it_are_compared(up: Up) -> None:
    trials = tree(up, "show", "1", "--trials")["items"]
    assert isinstance(trials, list)
    one, other = [trial["name"] for trial in trials if not trial["refused"]][:2]
    compared = tree(up, "compare", "1", one, other)
    figures = compared["figures"]
    assert isinstance(figures, list)
    assert [(figure["name"], figure["pairs"] >= 3) for figure in figures][:1] == [("sustainable_rate", True)]


def test_a_cancelled_sweep_leaves_its_bench_at_once_and_goes_on_where_it_was(up: Up) -> None:
    sweep(up, "run", "slow", "--spec", "-", "--no-wait", spec=STEADY)

    def done() -> int:
        progress = tree(up, "show", "2")["progress"]
        assert isinstance(progress, dict)
        return int(progress["done"])

    until(lambda: done() >= 3, 60, "three blocks")
    sweep(up, "cancel", "2")
    until(lambda: benches(up) == [], 30, "the bench is gone")
    before = tree(up, "show", "2")
    assert before["state"] == "cancelled"
    kept = done()
    said, _ = sweep(up, "resume", "2", chooses=False)
    assert "sweep 2  slow  finished\n" in said
    with_blocks = tree(up, "show", "2", "--trials")["items"]
    assert isinstance(with_blocks, list)
    assert sum(trial["blocks"] for trial in with_blocks) == done() > kept


def test_nothing_of_a_sweep_outlives_tritonctl_up(up: Up) -> None:
    sweep(up, "run", "slow", "--spec", "-", "--no-wait")
    until(lambda: benches(up) != [], 60, "a bench")
    running = [psutil.Process(pid) for pid in benches(up)]
    assert up.stop() == 0
    _, alive = psutil.wait_procs(running, timeout=20)
    assert alive == []
