# Latency gates by the command line: set, replaced and removed in a policy, and what a change shows of them.
from __future__ import annotations

import re

from controlplane.domain.latency_gates import LatencyGate, LatencyMeasurement, LatencyOutcome, LatencySeen
from controlplane.wiring import SystemClock
from tests.store.api.conftest import Api, Cli

POLICY = ("environment", "policy", "prod", "--context", "admin")
FAST = "fast=dou*:p99<=10ms@50/s"


def gates(cli: Cli) -> list[tuple[str, str]]:
    found = cli.json("environment", "policy", "prod")
    assert isinstance(found, dict)
    return [(gate["name"], gate["bound_ms"]) for gate in found["policy"]["latency_gates"]]


def test_a_gate_is_added_to_the_others_until_it_is_removed(cli: Cli) -> None:
    cli(*POLICY, "--latency-gate", FAST)
    shown = cli(*POLICY, "--latency-gate", "tail=dou*:p99.9<=2.5ms@200/s,inconclusive=accept")
    assert "latency               fast: dou* p99 <= 10 ms at 50/s, 10 to 60 s, inconclusive: pause\n" in shown
    assert "tail: dou* p99.9 <= 2.5 ms at 200/s, 10 to 60 s, inconclusive: accept\n" in shown
    cli(*POLICY, "--latency-gate", FAST.replace("10ms", "20ms"), "--approvals", "2")
    assert gates(cli) == [("tail", "2.5"), ("fast", "20")]
    said = cli(*POLICY, "--no-latency-gate", "tial", status=2)
    assert "there is no latency gate 'tial' in 'prod', only: tail, fast" in said
    cli(*POLICY, "--no-latency-gate", "tail")
    assert gates(cli) == [("fast", "20")]


def test_what_is_no_gate_is_refused_with_how_to_write_it(cli: Cli) -> None:
    said = cli(*POLICY, "--latency-gate", "digits p99 10", status=2)
    assert "error [policy.invalid]: 'digits p99 10' is not a latency gate\n" in said
    assert "next: write it as NAME=MODELS:p99<=10ms@50/s" in said
    said = cli(*POLICY, "--latency-gate", "fast=m:p99<=10ms@2/s", status=2)
    assert "p99 takes 459 answers, and 2/s for 60 s gives 120\n" in said
    assert "next: most_seconds=230 or more, or a higher rate\n" in said


def test_a_change_shows_what_its_gates_asked_and_saw(api: Api, cli: Cli, model: str) -> None:
    cli(*POLICY, "--latency-gate", FAST)
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "--env", "prod", "--version", "1", "--config", "generated", "--reason", "r")
    page = cli("change", "show", "1")
    assert "latency fast  later    p99 <= 10 ms at 50/s: measured for 10 s to 60 s after the load; " in page
    assert "if that cannot tell, the change pauses until a human decides\n" in page
    seen = LatencySeen(
        "valid", seconds=12, offered=600, answered=600, value=0.004, low=0.0031, high=0.006, ceiling=9000, floor=0.0002
    )
    gate, now = LatencyGate.from_json(FAST).to_json(), SystemClock().now()
    with api.storage.write() as unit:
        unit.latency.add(
            LatencyMeasurement(1, "one", 1, gate, LatencyOutcome.PASSED, "p99 is 4 ms", seen.to_json(), now, now)
        )
    page = cli("change", "show", "1")
    row = page.split("CLIENT FLOOR\n")[1].splitlines()[0]
    assert re.split(r"\s{2,}", row.strip()) == [
        "fast", "one", "passed", "p99 <= 10 ms at 50/s", "4 ms", "3.1 to 6 ms", "600", "valid", "0.2 ms",
    ]  # fmt: skip
    tree = cli.json("change", "show", "1")
    assert isinstance(tree, dict)
    (measurement,) = tree["latency"]
    assert (measurement["outcome"], measurement["gate"], measurement["seen"]) == ("passed", gate, seen.to_json())
