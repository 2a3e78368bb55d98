# Sweeps by the command line, on both databases: the bench simulates, everything else is real.
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.wiring import SystemClock, open_artifacts
from tests.simulated_bench import FINGERPRINT
from tests.store.api.conftest import Api, Cli
from tests.store.sweeping import SimulatedBench, SimulatedTime

pytestmark = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)

SPEC = "{space: {instances: [1, 2, 4], max_batch_size: [1, 8], threads: [1]}, defaults: false}"
OBJECTIVE = ("--metric", "latency_ms", "--qualifier", "p99", "--at-most", "10", "--stakeholder", "product")


def bench() -> SimulatedBench:
    return SimulatedBench(SimulatedTime(SystemClock().now()))


def runner(api: Api, on: SimulatedBench) -> SweepRunner:
    artifacts = open_artifacts(api.settings)
    return SweepRunner(
        api.storage, SystemClock(), on.open, artifacts, PbtxtCodec(), name="w", lease_seconds=30, turns=Turns(), poll_seconds=0.05
    )  # fmt: skip


@contextmanager
def at_work(api: Api, on: SimulatedBench) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=runner(api, on).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def spec(cli: Cli, model: str, tmp_path: Path) -> str:
    """`double` is registered, with an objective."""
    cli("model", "register", "double", model)
    cli("model", "objective", "set", "double", "fast", *OBJECTIVE)
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return str(path)


def test_a_dry_run_says_what_would_be_done_and_why_and_keeps_nothing(cli: Cli, spec: str) -> None:
    said = cli("sweep", "run", "double", "--spec", spec, "--seed", "7", "--seconds", "240", "--dry-run")
    for line in (
        "method      racing, seed 7\n",
        "bench       embedded\n",
        "base        generated configs\n",
        "load        concurrency 16: no objective names a rate, so the highest one is looked for at which the latency holds\n",
        "objectives  fast: latency_ms p99 at most 10\n",
        "  instance_group[0].count                           1, 2, 4, as the spec says\n",
        "highest rate  2           18              4                0\n",
    ):
        assert line in said, line
    assert cli.json("sweep", "list") == {"items": [], "next": None}
    plan = cli.json("sweep", "run", "double", "--spec", spec, "--dry-run")
    assert isinstance(plan, dict)
    assert 10 < plan["plan"]["seconds"] <= 180 == plan["spec"]["search"]["seconds"]
    assert [(trial["version"], trial["name"]) for trial in plan["trials"] if trial["base"]] == [(1, "0.1")]


def test_a_dry_run_says_why_choices_are_refused(cli: Cli, spec: str, tmp_path: Path) -> None:
    crowded = tmp_path / "crowded.yaml"
    crowded.write_text("space: {instances: [1, 1000000]}\n")
    del spec
    said = cli("sweep", "run", "double", "--spec", str(crowded), "--dry-run")
    assert "not tried: " in said
    assert ' × parameters["intra_op_thread_count"].string_value: 1000000 instances of ' in said
    plan = cli.json("sweep", "run", "double", "--spec", str(crowded), "--dry-run")
    assert isinstance(plan, dict)
    refused = [trial for trial in plan["trials"] if trial["refused"]]
    assert plan["space"]["refused"] == len(refused) > 0
    assert sum(one["choices"] for one in plan["space"]["refused_because"]) >= len(refused)


def test_a_sweep_is_planned_followed_and_answered_by_one_command(
    api: Api, cli: Cli, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with at_work(api, bench()):
        cli.quiet("sweep", "run", "double", "--spec", spec)
    shown = capsys.readouterr()
    assert shown.out.startswith("sweep 1  double  queued\nmethod      racing, seed 1\ntakes       about ")
    answer = shown.out.partition("sweep 1  double  finished\n")[2]
    assert answer.startswith("\nfront: none of these is shown to be worse than another, the preferred first\n")
    assert "chosen: 1." in answer
    assert " requests a second at p99 <= 10 ms\n" in answer
    assert "measured again in 5 blocks, all held: latency_ms p99" in answer
    assert "lost: " in answer
    assert answer.rstrip().rpartition("\n")[2].startswith("next: tritonctl sweep propose 1.")
    assert " blocks, about " in shown.err
    assert shown.err.endswith("sweep 1: finished\n")


def test_what_was_found_is_listed_shown_and_compared(
    api: Api, cli: Cli, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")
    assert cli.json("sweep", "list", "--state", "finished") == {"items": [], "next": None}
    assert runner(api, bench()).once()
    sweep = cli.json("sweep", "show", "1")
    assert isinstance(sweep, dict)
    chosen = sweep["answer"]["chosen"]
    listed = cli.json("sweep", "list", "--model", "double")
    assert isinstance(listed, dict)
    assert [(one["id"], one["state"], one["chosen"]) for one in listed["items"]] == [(1, "finished", chosen)]
    cli.quiet("sweep", "list", "--model", "nope")
    assert capsys.readouterr().err == "no such sweep: tritonctl sweep list\n"
    page = cli("sweep", "show", "1")
    assert f"evidence  {sweep['evidence']}\n" in page
    assert f"\nchosen: {chosen}, " in page
    trials = cli.json("sweep", "show", "1", "--trials")
    assert isinstance(trials, list)
    (best,) = (one for one in trials if one["name"] == chosen)
    assert best["fates"][-1]["fate"] == "chosen"
    assert {figure["name"] for figure in best["figures"]} == {"latency_ms p99", "sustainable_rate", "throughput"}
    assert cli.json("sweep", "show", chosen) == best
    assert f"trial {chosen}\n" in cli("sweep", "show", chosen)
    assert api.as_("viewer").sweeps.fingerprints(1).fingerprints == {FINGERPRINT.digest: FINGERPRINT.to_json()}
    other = next(one for one in trials if one["base"])
    compared = cli.json("sweep", "compare", "1", other["name"], str(best["number"]))
    assert isinstance(compared, dict)
    assert (compared["one"], compared["other"], compared["margin"]) == (other["number"], best["number"], 0.05)
    (figure,) = compared["figures"]
    assert (figure["name"], figure["outcome"], figure["low"] > 1) == ("sustainable_rate", "better", True)
    assert "sustainable_rate" in cli("sweep", "compare", "1", other["name"], chosen)


def test_a_trial_that_cannot_load_is_a_row_with_its_reason_and_log(api: Api, cli: Cli, spec: str) -> None:
    """Sweep acceptance 6, as far as a command shows it."""
    on = bench()
    on.broken = {2: "out of memory"}
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")
    assert runner(api, on).once()
    trials = cli.json("sweep", "show", "1", "--trials")
    assert isinstance(trials, list)
    failed = [one for one in trials if one["failure"]]
    assert {(one["parameters"]["instances"], one["failure"], one["log"]) for one in failed} == {
        (2, "out of memory", "log of out of memory")
    }
    page = cli("sweep", "show", failed[0]["name"])
    assert "failure     out of memory\n" in page
    assert "the server's log\nlog of out of memory\n" in page
    assert "could not be measured: out of memory" in cli("sweep", "show", "1")


def test_a_cancelled_sweep_ends_its_command_so_and_can_be_resumed(api: Api, cli: Cli, spec: str) -> None:
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")
    assert "operation.timed_out" in cli("sweep", "watch", "1", "--timeout", "1", status=10)
    cli("sweep", "cancel", "1")
    said = cli("sweep", "watch", "1", status=7)
    assert (
        "error [sweep.cancelled]: sweep 1 is cancelled. cancelled by author\nnext: tritonctl sweep resume 1\n" in said
    )
    cli("sweep", "resume", "1", "--no-wait")
    with at_work(api, bench()):
        assert "sweep 1  double  finished\n" in cli("sweep", "watch", "1")
    said = cli("sweep", "resume", "1", status=5)
    assert "error [change.transition_illegal]" in said
    said = cli("sweep", "cancel", "1", status=5)
    assert "next: tritonctl sweep show 1\n" in said


def test_a_sweep_without_a_winner_shows_its_answer_and_ends_so(api: Api, cli: Cli, spec: str) -> None:
    cli(
        "model",
        "objective",
        "set",
        "double",
        "more",
        "--metric",
        "throughput",
        "--at-least",
        "9000",
        "--stakeholder",
        "x",
    )
    cli("sweep", "run", "double", "--spec", spec, "--no-wait")
    assert runner(api, bench()).once()
    said = cli("sweep", "watch", "1", status=7)
    assert (
        "error [sweep.nothing_chosen]: sweep 1 found no candidate that is shown to meet every hard objective\n" in said
    )
    assert "\nnothing is chosen\n" in cli("sweep", "show", "1")


def test_what_cannot_be_is_said_with_its_exit_status(cli: Cli, spec: str) -> None:
    assert spec
    for line, status, said in (
        ("run nothing", 4, "error [not_found]: "),
        ("run double:9", 4, "error [not_found]: "),
        ("run double:x", 2, "error [sweep.invalid]: versions cannot be 'x'"),
        ("run double --env prod", 4, "'double' is not deployed in 'prod'"),
        ("run double --spec none.yaml", 2, "error [usage]: "),
        ("run double --seconds 10", 2, "error [sweep.invalid]: "),
        ("run double --bench 10.0.0.1:8001", 2, "error [sweep.invalid]: "),
        ("run double --context viewer", 3, "viewer may not sweep.run"),
        ("run double --dry-run --context viewer", 3, "viewer may not sweep.run"),
        ("show 7", 4, "error [not_found]: there is no sweep 7\nnext: tritonctl sweep list\n"),
        ("show x", 2, "'x' is no sweep, such as 3, and no trial, such as 3.7"),
        ("compare 1 1 2.1", 2, "2.1 is not of sweep 1"),
        ("compare 1 1 1", 2, "trial 1 is compared with itself"),
        ("watch 7", 4, "there is no sweep 7"),
        ("cancel 7", 4, "there is no sweep 7"),
        ("resume 7 --context approver", 3, "approver may not sweep.run"),
    ):
        assert said in cli("sweep", *line.split(), status=status), line


def test_a_spec_of_another_model_or_with_mistakes_is_refused_with_its_place(cli: Cli, spec: str) -> None:
    for text, said in (
        ("model: words", "the spec is of 'words', and 'double' was asked for\nnext: leave the model out of the spec\n"),
        ("space: {instances: [1", "the spec cannot be read: line 1, column"),
        ("space: {instnces: [1]}", "next: did you mean instances?\n"),
        ("search: {method: guess}", "search.method cannot be 'guess'"),
    ):
        Path(spec).write_text(text)
        assert said in cli("sweep", "run", "double", "--spec", spec, status=2)
