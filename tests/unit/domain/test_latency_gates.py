# What a latency gate may ask, and what a measurement says of it.
from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest

from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.domain.latency_gates import (
    LatencyGate,
    LatencyOutcome,
    LatencySeen,
    gates_from_json,
    judge,
    tightened,
)
from controlplane.domain.policies import Policy
from controlplane.errors import InvalidInput, PolicyInvalid

GATE = LatencyGate("fast", "digits*", bound_ms=Decimal(10), rate=Decimal(50))
SEEN = LatencySeen(
    "valid", seconds=12, offered=600, answered=600, value=0.004, low=0.003, high=0.006, sent_low=0.003, rate=50.2,
    lateness=0.0002, ceiling=4000, floor=0.0003, concurrency=4, seed=7,
)  # fmt: skip


def test_a_gate_is_written_as_text_or_as_an_object_and_has_one_form() -> None:
    text = "fast=digits*:p99<=10ms@50/s"
    assert LatencyGate.from_json(text) == GATE
    assert LatencyGate.from_json(str(GATE)) == GATE
    assert LatencyGate.from_json(GATE.to_json()) == GATE
    assert LatencyGate.from_json({"name": "fast", "models": "digits*", "bound_ms": "10.0", "rate": 50}) == GATE
    assert GATE.to_json() == {
        "name": "fast",
        "models": "digits*",
        "bound_ms": "10",
        "rate": "50",
        "percentile": "99",
        "seconds": 10,
        "most_seconds": 60,
        "inconclusive": "pause",
    }
    long = LatencyGate.from_json("slow=m:p99.9<=2.50ms@200/s,seconds=5,most_seconds=60,inconclusive=accept")
    assert (long.percentile, long.bound_ms, long.inconclusive) == (Decimal("99.9"), Decimal("2.5"), "accept")
    assert (long.seconds, long.most_seconds) == (5, 60)


def test_the_pattern_says_which_models() -> None:
    assert [GATE.matches(name) for name in ("digits", "digits2", "xdigits", "Digits")] == [True, True, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        "p99<=10ms@50/s",
        "fast=digits*:p99<10ms@50/s",
        "fast=digits*:p99<=10s@50/s",
        "fast=digits*:p99<=10ms@50/s,deconds=3",
        "fast=di gits:p99<=10ms@50/s",
        "../x=digits:p99<=10ms@50/s",
        "fast=digits:p99<=0ms@50/s",
        "fast=digits:p99<=6000ms@50/s",
        "fast=digits:p99<=10ms@0/s",
        "fast=digits:p99<=10ms@1001/s",
        "fast=digits:p100<=10ms@50/s",
        "fast=digits:p99<=1.2.3ms@50/s",
        "fast=digits:p99<=10ms@50/s,seconds=61",
        "fast=digits:p99<=10ms@50/s,most_seconds=301",
        "fast=digits:p99<=10ms@50/s,inconclusive=maybe",
        {"name": "fast", "models": "m", "bound_ms": True, "rate": 50},
        {"name": "fast", "models": "m", "bound_ms": "nan", "rate": 50},
        {"name": "fast", "models": "m", "bound_ms": "1e999999", "rate": 50},
        {"name": "fast", "models": "m", "bound_ms": 10, "rate": "1e-99999"},
        {"name": {"a": 1}, "models": ["m"], "bound_ms": 10, "rate": 50},
        {"name": "fast", "models": "m", "bound_ms": 10, "rate": 50, "seconds": 1.5},
        {"name": "fast", "models": "m", "bound_ms": 10},
        7,
    ],
)
def test_what_is_no_gate_is_refused_with_what_to_write(wrong: Json) -> None:
    with pytest.raises(InvalidInput) as refused:
        LatencyGate.from_json(wrong)
    assert refused.value.hint


def test_a_gate_that_could_never_tell_is_refused_with_the_time_that_it_takes() -> None:
    with pytest.raises(PolicyInvalid) as refused:
        LatencyGate.from_json("fast=digits:p99<=10ms@5/s")
    assert "459 answers" in refused.value.message
    assert refused.value.hint == "most_seconds=92 or more, or a higher rate"
    assert LatencyGate.from_json("fast=digits:p99<=10ms@5/s,most_seconds=92").most_seconds == 92


def test_a_policy_holds_gates_of_different_names_and_binds_them() -> None:
    policy = Policy.from_json({"latency_gates": ["fast=digits*:p99<=10ms@50/s", {**GATE.to_json(), "name": "other"}]})
    assert policy.latency_gates == (GATE, replace(GATE, name="other"))
    assert Policy.from_json(policy.to_json()) == policy
    assert policy.clauses()["latency_gates"] == [gate.to_json() for gate in policy.latency_gates]
    digest(policy.clauses())  # nothing in it that has no canonical form
    for wrong in (
        [str(GATE), str(GATE)],
        "fast=digits*:p99<=10ms@50/s",
        [str(replace(GATE, name=f"g{n}")) for n in range(21)],
    ):
        with pytest.raises(PolicyInvalid):
            gates_from_json(wrong)


def test_only_what_asks_more_of_this_model_is_tighter() -> None:
    assert tightened((GATE,), (GATE,), "digits") == ()
    assert tightened((GATE,), (), "other") == ()
    assert tightened((GATE,), (), "digits") == ("new latency gate fast: p99 <= 10 ms at 50/s",)
    for looser in (
        replace(GATE, bound_ms=Decimal(20)),
        replace(GATE, inconclusive="accept"),
        replace(GATE, rate=Decimal(20)),
    ):
        assert tightened((looser,), (GATE,), "digits") == ()
        assert len(tightened((GATE,), (looser,), "digits")) == 1


@pytest.mark.parametrize(
    ("seen", "outcome", "words"),
    [
        (SEEN, "passed", "p99 is 4 ms (95 %: 3 to 6 ms, n 600) at 50/s; the bound is 10 ms"),
        (replace(SEEN, high=0.010), "passed", "95 %: 3 to 10 ms"),
        (replace(SEEN, verdict="unstable", high=0.009), "passed", "3 to 9 ms"),
        (replace(SEEN, low=0.011, value=0.02, high=math.inf), "failed", "11 ms or more"),
        (replace(SEEN, high=0.0101), "inconclusive", "the bound is 10 ms, inside the interval"),
        (replace(SEEN, verdict="too_few_samples", answered=458, reasons=("458 answers",)), "inconclusive", "458 answers"),
        (replace(SEEN, verdict="client_limited", reasons=("sent late",)), "inconclusive", "sent late; p99 is 4 ms"),
        (
            replace(SEEN, verdict="client_limited", low=0.02, value=0.03, high=0.04, sent_low=0.02),
            "failed",
            "20 to 40 ms",
        ),
        (
            replace(SEEN, verdict="errors", answered=590, failed={"INTERNAL": 8, "UNAVAILABLE": 2}, failure="no such"),
            "failed",
            "10 of 600 requests failed (8 INTERNAL, 2 UNAVAILABLE): no such",
        ),
        (replace(SEEN, waiting=140), "failed", "the server fell behind 50/s: 140 requests waited"),
        (replace(SEEN, cached=3), "inconclusive", "the response cache answered 3 requests"),
        (LatencySeen("errors", ("100.00% of the calls failed; 0.00% may",)), "inconclusive", "100.00% of the calls"),
        (LatencySeen("broken", ("the load generator could not measure: it died",)), "inconclusive", "it died"),
    ],
)  # fmt: skip
def test_the_interval_decides_and_the_reason_has_the_numbers(seen: LatencySeen, outcome: str, words: str) -> None:
    found, reason = judge(GATE, seen)
    assert found is LatencyOutcome(outcome)
    assert words in reason


def test_what_is_recorded_has_a_canonical_form_and_says_what_is_not_known() -> None:
    tree: JsonObject = replace(SEEN, high=math.inf, failed={"INTERNAL": 1}).to_json()
    digest(tree)
    assert (tree["value_us"], tree["low_us"], tree["high_us"]) == (4000, 3000, None)
    assert tree["calibration"] == {"ceiling": 4000, "concurrency": 4, "floor_us": 300}
    assert (tree["offered"], tree["answered"], tree["failed"], tree["rate"]) == (600, 600, {"INTERNAL": 1}, "50.2")
    digest(LatencySeen("broken").to_json())
