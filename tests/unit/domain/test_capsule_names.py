# What is left of names in a capsule without them.
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.capsule_names import anonymized
from controlplane.domain.capsules import capsule_from_json, findings
from controlplane.domain.sweep_figures import OVERTIME
from controlplane.domain.sweep_rounds import Step, Verdict
from controlplane.domain.sweep_spec import Shape, spec_from_json
from controlplane.domain.sweeps import SweepState
from tests.unit.domain.test_capsules import CONFIG, SPEC, a_capsule


def test_an_anonymous_capsule_names_nobody_and_says_what_it_dropped() -> None:
    capsule = anonymized(a_capsule(), samples=True)
    text = json.dumps(capsule.to_json())

    for name in ("acme", "anna", "prod-eu", "Till Team", "quick", "/srv", "bench-7", "registry"):
        assert name not in text, name
    assert len(capsule.dropped) == 8
    assert capsule.sweep.model == "model-1"
    assert capsule.trials[1].config is not None
    assert capsule.trials[1].config["name"] == "model-1"
    assert capsule.trials[1].config["input"] == CONFIG["input"]
    assert capsule.trials[1].config["instance_group"] == [{"name": "group-1", "count": 2, "kind": "KIND_CPU"}]
    assert capsule.sweep.answer == {
        "chosen": "7.2",
        "reason": "objective-1: latency_ms p99 is 8.25",
        "figures": {"7.2": {}},
    }


def test_an_anonymous_capsule_keeps_numbers_and_digests_and_can_be_read_again() -> None:
    whole = a_capsule()
    capsule = capsule_from_json(json.loads(json.dumps(anonymized(whole, samples=False).to_json())))

    assert [one.candidate for one in capsule.trials] == [one.candidate for one in whole.trials]
    assert capsule.measurements == whole.measurements
    assert (capsule.versions, capsule.blobs) == (whole.versions, whole.blobs)
    assert capsule.sweep.evidence == whole.sweep.evidence
    assert findings(capsule) == ()


def test_a_name_that_is_a_word_of_capsules_changes_nothing_else() -> None:
    capsule = a_capsule()
    (objective,) = capsule.sweep.objectives
    sweep = replace(capsule.sweep, objectives=({**objective, "name": "p99"},))

    answer = anonymized(replace(capsule, sweep=sweep), samples=False).sweep.answer

    assert answer is not None
    assert answer["reason"] == "quick: latency_ms p99 is 8.25"


def test_a_stakeholder_that_is_a_word_of_sentences_leaves_them_as_they_are() -> None:
    capsule = a_capsule()
    (objective,) = capsule.sweep.objectives
    said: JsonObject = {"chosen": "7.2", "reason": "trial 7.2 has the best product of its figures", "figures": {}}
    sweep = replace(capsule.sweep, objectives=({**objective, "stakeholder": "product"},), answer=said)

    renamed = anonymized(replace(capsule, sweep=sweep), samples=False).sweep

    assert renamed.objectives[0]["stakeholder"] == "stakeholder-1"
    assert renamed.answer is not None
    assert renamed.answer["reason"] == said["reason"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "search"},
        {"model": "5"},
        {"model": "time"},
        {"model": "embedded", "bench": "embedded"},
        {"environment": "load"},
        {"started_by": "space"},
        {"objectives": "search"},
    ],
)
def test_names_that_are_keys_or_values_of_the_document_leave_it_readable(change: dict[str, str]) -> None:
    """The spec, the load and the plan say what they said; so does a block that came too late."""
    capsule = a_capsule()
    (objective,) = capsule.sweep.objectives
    model = change.get("model", "acme-fraud")
    objectives: tuple[JsonObject, ...] = (
        {**objective, "model": model, "stakeholder": change.get("objectives", "Till")},
    )
    sweep = replace(
        capsule.sweep,
        **{name: value for name, value in change.items() if name != "objectives"},  # type: ignore[arg-type]
        spec={**capsule.sweep.spec, "model": model},
        objectives=objectives,
        answer={
            "figures": {"7.2": {"search": ["5", "0", "inf"]}},
            "highest_rate": {"objective": "quick", "bound_ms": "5"},
        },
    )
    late = replace(capsule.measurements[0], verdict=Verdict.NOT_MEASURED, reasons=(OVERTIME,))

    renamed = anonymized(replace(capsule, sweep=sweep, measurements=(late,)), samples=False)

    assert spec_from_json(renamed.sweep.spec) == replace(SPEC, model=renamed.sweep.model)
    assert (renamed.sweep.load, renamed.sweep.plan) == (sweep.load, sweep.plan)
    assert renamed.sweep.answer == {
        "figures": {"7.2": {"search": ["5", "0", "inf"]}},
        "highest_rate": {"objective": "objective-1", "bound_ms": "5"},
    }
    assert renamed.sweep.space.keys() == sweep.space.keys()
    assert renamed.sweep.bench == ("embedded" if "bench" in change else "bench-1")
    assert renamed.sweep.objectives[0].keys() == objective.keys()
    assert renamed.measurements[0].reasons == (OVERTIME,)
    assert not {one for one in change.values() if one != "embedded"} & {
        renamed.sweep.model, renamed.sweep.environment, renamed.sweep.started_by, renamed.sweep.objectives[0]["stakeholder"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("who", "message"),
    [("bob", "principal-2"), ("al", "principal-2"), ("rate", "principal-2"), ("anna", "principal-1")],
)
def test_whoever_cancelled_is_not_named(who: str, message: str) -> None:
    sweep = replace(
        a_capsule().sweep, state=SweepState.CANCELLED, message=f"cancelled by {who}", answer=None, evidence=None
    )

    assert anonymized(replace(a_capsule(), sweep=sweep), samples=False).sweep.message == f"cancelled by {message}"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("the Dask scheduler at tcp://gpubox:8786 went away", "the Dask scheduler at tcp://bench-1 went away"),
        ("tls://gpubox:8786: refused", "tls://bench-1: refused"),
        ("gpubox:8786: refused, and GPUbox is gpubox", "bench-1: refused, and bench-1 is bench-1"),
        ("no dask://GPUbox:8786", "no bench-1"),
        ("the bench worker at tcp://node-7:40001 and tls://[fd00::7]:1", "the bench worker at tcp://address-1 and tls://address-2"),
        ("cannot open /acme.onnx at 400 requests/s", "cannot open /path-2 at 400 requests/s"),
    ],
)  # fmt: skip
def test_a_bench_and_its_workers_are_not_named_however_they_are_spelled(said: str, left: str) -> None:
    capsule = a_capsule()
    trial = replace(capsule.trials[0], failure=said)
    sweep = replace(capsule.sweep, bench="dask://GPUbox:8786", message=said)

    renamed = anonymized(replace(capsule, sweep=sweep, trials=(trial,)), samples=False)

    assert (renamed.sweep.bench, renamed.sweep.message, renamed.trials[0].failure) == ("bench-1", left, left)


@pytest.mark.parametrize("trace", ["traces/acme.txt", "t", "/srv/acme/trace", "rate", "at noon, once"])
def test_a_trace_has_one_name_in_spec_load_reason_and_blocks(trace: str) -> None:
    capsule = a_capsule()
    step = Step(Shape.TRACE, trace)
    rows = tuple(replace(one, order=replace(one.order, step=step)) for one in capsule.measurements)
    load: JsonObject = {"trace": trace, "process": "poisson", "rows": 1}
    sweep = replace(
        capsule.sweep,
        spec={**capsule.sweep.spec, "load": load},
        load={**load, "finds_rate": False, "reason": f"trace {trace}, as the spec says"},
    )

    renamed = anonymized(replace(capsule, sweep=sweep, measurements=rows), samples=False)

    assert renamed.sweep.spec["load"] == {**load, "trace": "trace-1"}
    assert renamed.sweep.load == {
        **load,
        "trace": "trace-1",
        "finds_rate": False,
        "reason": "trace trace-1, as the spec says",
    }
    assert {one.order.step for one in renamed.measurements} == {Step(Shape.TRACE, "trace-1")}


def test_texts_of_parameters_stay_but_for_paths_and_the_capsule_says_so() -> None:
    capsule = a_capsule()
    values: JsonObject = {"owner": "fraud@acme.example", "env": "/srv/acme/env.tar.gz", "acme-fraud": "search"}
    dimension: JsonObject = {
        "name": "parameters.env.string_value",
        "values": ["/srv/acme/env.tar.gz", "acme-fraud"],
        "when": [],
    }
    trial = replace(capsule.trials[0], parameters=values)
    sweep = replace(capsule.sweep, space={**capsule.sweep.space, "dimensions": [dimension]})

    renamed = anonymized(replace(capsule, sweep=sweep, trials=(trial,)), samples=False)

    assert renamed.trials[0].parameters == {**values, "env": "/path-1"}
    assert renamed.sweep.space["dimensions"] == [{**dimension, "values": ["/path-1", "acme-fraud"]}]
    assert any("other texts of configs" in line for line in renamed.dropped)
