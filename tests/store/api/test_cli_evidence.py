# Evidence by the command line: asked for, replaced and removed in a policy, and what a change shows of it.
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from clients.load.statistics import Interval
from controlplane.domain.evidence import Evidence
from controlplane.domain.sweep_search import Finding, Met
from tests.store.api.conftest import Api, Cli

POLICY = ("environment", "policy", "prod", "--context", "admin")


def asked(cli: Cli) -> list[tuple[str, int, str]]:
    found = cli.json("environment", "policy", "prod")
    assert isinstance(found, dict)
    return [
        (clause["models"], clause["max_age_days"], clause["inconclusive"]) for clause in found["policy"]["evidence"]
    ]


def test_evidence_is_asked_of_models_until_it_is_not(cli: Cli) -> None:
    shown = cli(*POLICY, "--evidence", "dou*")
    assert (
        "evidence              dou*: at most 30 days old, of servers of the same class, inconclusive: block\n" in shown
    )
    cli(*POLICY, "--evidence", "*:fingerprint=any")
    cli(*POLICY, "--evidence", "dou*:max_age_days=7,inconclusive=accept", "--approvals", "2")
    assert asked(cli) == [("*", 30, "block"), ("dou*", 7, "accept")]
    said = cli(*POLICY, "--no-evidence", "duo*", status=2)
    assert "no evidence is asked of 'duo*' in 'prod', only of: *, dou*" in said
    cli(*POLICY, "--no-evidence", "dou*")
    assert asked(cli) == [("*", 30, "block")]


def test_what_cannot_be_asked_is_refused_with_how_to_write_it(cli: Cli) -> None:
    said = cli(*POLICY, "--evidence", "dou*:days=7", status=2)
    assert "error [policy.invalid]: evidence has no 'days'\n" in said
    assert "next: write it as MODELS, and after it, where wanted, :max_age_days=30" in said


def test_a_change_shows_its_evidence_and_what_the_gate_says_of_it(api: Api, cli: Cli, model: str) -> None:
    cli("model", "register", "double", model)
    cli("change", "propose", "double", "--env", "prod", "--version", "1", "--config", "generated", "--reason", "r")
    cli(*POLICY, "--evidence", "dou*")
    cli("change", "replan", "1")
    page = cli("change", "show", "1")
    assert "evidence  failed   there is none; it is to be a trial of a sweep, at most 30 days old" in page
    with api.storage.write() as unit:
        request = unit.changes.get(1)
        plan = unit.changes.plan(request)
        evidence = Evidence(
            sweep=4,
            trial=2,
            candidate="sha256:c",
            version=1,
            artifact=plan.desired.versions[0].artifact,
            config="sha256:d",
            objectives="sha256:o",
            rows="sha256:r",
            fingerprint=None,
            measured_at=datetime(2026, 11, 20, tzinfo=UTC),
            figures={"throughput": Interval(812.4, 801, 830.25)},
            findings=(Finding("fast", Met.MET, "latency_ms p99 is 8 (7 to 9) ms, to be at most 10 ms"),),
        )
        unit.changes.add_plan(replace(plan, number=3, evidence=evidence))
        unit.changes.edit(1, plan_number=3)
    page = cli("change", "show", "1")
    assert "evidence: trial 4.2\n" in page
    assert "throughput      812.4 (801 to 830.2)\n" in page
    assert "objective fast  met: latency_ms p99 is 8 (7 to 9) ms, to be at most 10 ms\n" in page
    shown = cli.json("change", "show", "1")
    assert isinstance(shown, dict)
    assert shown["plan"]["evidence"]["digest"] == evidence.digest
    assert shown["plan"]["evidence"]["figures"] == {"throughput": ["812.4", "801.0", "830.25"]}
