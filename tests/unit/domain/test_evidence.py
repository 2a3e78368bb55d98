# Evidence of a change: what a policy asks for, and whether a trial answers for what is to be deployed.
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clients.load.statistics import Interval
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.catalog import Objective
from controlplane.domain.environments import RevisionContent, VersionRef
from controlplane.domain.evidence import Evidence, EvidenceNow, EvidenceOutcome, judge, objectives_digest
from controlplane.domain.evidence_clauses import ANY, EvidenceClause, asked_of, clauses_from_json, tightened
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.policies import Policy
from controlplane.domain.sweep_search import Finding, Met
from controlplane.errors import PolicyInvalid

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ARTIFACT = "sha256:" + "a" * 64
CONFIG: JsonObject = {"name": "digits", "max_batch_size": 8}
P99 = Objective("digits", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
HOST = Host("Xeon", 2, 2, 2000, None, 8 << 30, (), "6.1")
MACHINE = Fingerprint(HOST, Serving("2.51.0", "sha256:b"), local=True, packages=(), control_plane="1", commit=None)
EVIDENCE = Evidence(
    sweep=7,
    trial=3,
    candidate="sha256:" + "c" * 64,
    version=2,
    artifact=ARTIFACT,
    config=digest(CONFIG),
    objectives=objectives_digest([P99]),
    rows="sha256:rows",
    fingerprint=MACHINE,
    measured_at=NOW - timedelta(days=2),
    figures={"latency_ms p99": Interval(8.1, 7.9, 8.4)},
    findings=(Finding("fast", Met.MET, "latency_ms p99 is 8.1 (7.9 to 8.4) ms, to be at most 10 ms"),),
)
DESIRED = RevisionContent((VersionRef(2, ARTIFACT),), CONFIG)
CLAUSE = EvidenceClause("digits*")
AT = EvidenceNow("prod", EVIDENCE.objectives, EVIDENCE.rows, {"one": MACHINE}, NOW)


def other_cpu(model: str | None) -> Fingerprint:
    return replace(MACHINE, host=replace(HOST, cpu_model=model))


def test_the_load_that_a_spec_chose_stands_beside_the_numbers() -> None:
    """Any latency holds at a rate that is low enough."""
    outcome, reason = judge(replace(EVIDENCE, load="rate 20, as the spec says"), DESIRED, CLAUSE, AT)

    assert (outcome, reason.rpartition("; ")[2]) == (EvidenceOutcome.PASSED, "load: rate 20, as the spec says")


def test_a_trial_of_what_would_be_deployed_passes_with_its_numbers() -> None:
    outcome, reason = judge(EVIDENCE, DESIRED, CLAUSE, AT)

    assert outcome is EvidenceOutcome.PASSED
    assert reason == (
        "trial 7.3, measured from 2026-11-20T12:00:00.000000Z: fast: latency_ms p99 is 8.1 (7.9 to 8.4) ms, to be at most 10 ms"
    )


@pytest.mark.parametrize(
    ("evidence", "desired", "at", "said"),
    [
        (None, DESIRED, AT, "there is none; it is to be a trial of a sweep, at most 30 days old"),
        (EVIDENCE, replace(DESIRED, versions=(VersionRef(2, "sha256:" + "d" * 64),)), AT, "measured was version 2"),
        (EVIDENCE, replace(DESIRED, config=CONFIG | {"max_batch_size": 16}), AT, "the config is sha256:"),
        (EVIDENCE, DESIRED, replace(AT, objectives=objectives_digest([replace(P99, bound="5")])),
         "sweep again (tritonctl sweep run digits)"),
        (EVIDENCE, DESIRED, replace(AT, rows="sha256:other"), "the rows of sweep 7 were changed"),
        (EVIDENCE, DESIRED, replace(AT, rows=None), "there is no sweep 7 any more"),
        (EVIDENCE, DESIRED, replace(AT, now=NOW + timedelta(days=29)), "it is 31.0 days old, and may be 30"),
        (EVIDENCE, DESIRED, replace(AT, servers={"one": other_cpu("Epyc")}), "processor: Xeon here, Epyc there"),
        (replace(EVIDENCE, findings=(Finding("fast", Met.MISSED, "p99 is 12 ms"),)), DESIRED, AT, "fast: p99 is 12 ms"),
    ],
    ids=["none", "artifact", "config", "objectives", "rows", "gone", "old", "machine", "missed"],
)  # fmt: skip
def test_evidence_for_something_else_fails_and_says_what(
    evidence: Evidence | None, desired: RevisionContent, at: EvidenceNow, said: str
) -> None:
    outcome, reason = judge(evidence, desired, CLAUSE, at)

    assert outcome is EvidenceOutcome.FAILED
    assert said in reason


@pytest.mark.parametrize(
    ("evidence", "desired", "at", "said"),
    [
        (
            EVIDENCE,
            DESIRED,
            replace(AT, servers={"one": MACHINE, "two": None}),
            "the machine of server two is not known",
        ),
        (EVIDENCE, DESIRED, replace(AT, servers={"one": other_cpu(None)}), "perhaps not of the class"),
        (replace(EVIDENCE, fingerprint=None), DESIRED, AT, "environments of more than one class"),
        (replace(EVIDENCE, findings=(Finding("fast", Met.CANNOT_TELL, "too few"),)), DESIRED, AT, "fast: too few"),
        (
            EVIDENCE,
            replace(DESIRED, versions=(VersionRef(1, "sha256:" + "e" * 64), VersionRef(2, ARTIFACT))),
            AT,
            "version 1 would be served beside it, and was not measured",
        ),
        (
            replace(EVIDENCE, beside=Manifest(()).digest),
            replace(DESIRED, beside=Manifest((FileEntry("labels.txt", 3, "sha256:" + "f" * 64),))),
            AT,
            "the files beside the config are sha256:",
        ),
    ],
    ids=["unknown server", "unknown processor", "moved", "too few", "beside", "files"],
)
def test_evidence_that_nobody_can_judge_is_inconclusive(
    evidence: Evidence, desired: RevisionContent, at: EvidenceNow, said: str
) -> None:
    outcome, reason = judge(evidence, desired, CLAUSE, at)

    assert outcome is EvidenceOutcome.INCONCLUSIVE
    assert said in reason


def test_a_version_that_is_kept_warm_needs_no_measurement_of_its_own() -> None:
    warm = replace(DESIRED, versions=(VersionRef(1, "sha256:" + "e" * 64), VersionRef(2, ARTIFACT)))

    assert judge(EVIDENCE, warm, CLAUSE, AT, warm=True)[0] is EvidenceOutcome.PASSED


def test_a_policy_may_take_evidence_from_any_machine() -> None:
    away = replace(AT, servers={"one": other_cpu("Epyc"), "two": None})

    assert judge(EVIDENCE, DESIRED, replace(CLAUSE, fingerprint=ANY), away)[0] is EvidenceOutcome.PASSED


def test_evidence_is_kept_as_json_and_named_by_its_digest() -> None:
    again = Evidence.from_json(EVIDENCE.to_json())

    assert again == EVIDENCE
    assert again.digest == EVIDENCE.digest
    assert replace(EVIDENCE, trial=4).digest != EVIDENCE.digest


def test_the_digest_of_objectives_does_not_depend_on_their_order() -> None:
    rate = Objective("digits", "rate", "throughput", "", "at_least", "100", "product", "1")

    assert objectives_digest([P99, rate]) == objectives_digest([rate, P99]) != objectives_digest([P99])


def test_a_clause_is_read_from_text_and_written_as_it_is_read() -> None:
    clause = EvidenceClause.from_json("digits*:max_age_days=7,fingerprint=any,inconclusive=accept")

    assert clause == EvidenceClause("digits*", 7, "any", "accept")
    assert EvidenceClause.from_json(str(clause)) == clause == EvidenceClause.from_json(clause.to_json())
    assert EvidenceClause.from_json("*") == EvidenceClause("*")


@pytest.mark.parametrize(
    "text",
    ["", "a b", "*:max_age_days=0", "*:max_age_days=x", "*:days=3", "*:fingerprint=near", "*:inconclusive=undo",
     "*:max_age_days=1,max_age_days=2", "*:", "*:max_age_days=999999999999"],
)  # fmt: skip
def test_what_is_no_clause_is_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid):
        EvidenceClause.from_json(text)


def test_a_wrong_value_of_a_clause_is_named() -> None:
    with pytest.raises(PolicyInvalid, match="max_age_days is -1"):
        EvidenceClause.from_json("reader:max_age_days=-1")


def test_a_policy_keeps_its_clauses_and_asks_once_for_each_pattern() -> None:
    policy = Policy.from_json({"evidence": ["digits*", "other:max_age_days=3"]})

    assert Policy.from_json(policy.to_json()) == policy
    assert policy.evidence == (EvidenceClause("digits*"), EvidenceClause("other", 3))
    for wrong in (["*", "*"], "*", [f"m{number}" for number in range(21)], [3]):
        with pytest.raises(PolicyInvalid):
            clauses_from_json(wrong)


def test_all_clauses_about_a_model_are_asked_together() -> None:
    clauses = (EvidenceClause("dig*", 90, "any", "accept"), EvidenceClause("*s", 7, "same", "accept"))

    assert asked_of("digits", clauses) == EvidenceClause("digits", 7, "same", "accept")
    assert asked_of("resnet", clauses) is None


def test_a_policy_that_asks_for_more_evidence_says_so() -> None:
    lax, strict = EvidenceClause("*", 30, "any"), EvidenceClause("digits", 7, "any")

    assert tightened([lax], [lax], "digits") == tightened([], [strict], "digits") == ()
    assert tightened([lax], [strict], "digits") == ()
    (said,) = tightened([lax, strict], [lax], "digits")
    assert said.startswith("evidence went from a trial of a sweep, at most 30 days old")
    assert "at most 7 days old" in said
    assert tightened([lax, strict], [lax], "resnet") == ()
    assert tightened([lax], [], "digits")[0].startswith("evidence is asked for: a trial of a sweep")
