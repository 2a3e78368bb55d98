# Capsules: what is in one, and what is checked of it.
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane import domain
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject, digest
from controlplane.domain.capsules import SCHEMA, Capsule, CapsuleVersion, capsule_from_json, findings, needed, unchecked
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Requests, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape, spec_from_json
from controlplane.domain.sweeps import Sweep, SweepState, Trial, evidence_digest
from controlplane.errors import CapsuleInvalid

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GOLDEN, WEIGHTS = "sha256:" + "1" * 64, "sha256:" + "2" * 64
MANIFEST = Manifest((FileEntry("model.onnx", 5, WEIGHTS),))
MACHINE = Fingerprint(
    Host("Xeon", 2, 2, 2000, None, 8 << 30, (), "6.1"),
    Serving("2.51.0", "sha256:b", image="registry.acme.example/triton:24.10"),
    local=True,
    packages=(),
    control_plane="1",
    commit=None,
)
CONFIG: JsonObject = {
    "name": "acme-fraud",
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "input": [{"name": "card", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "instance_group": [{"name": "acme-fraud_0", "count": 2, "kind": "KIND_CPU"}],
    "parameters": {"EXECUTION_ENV_PATH": {"string_value": "/srv/acme/env.tar.gz"}},
}
SPEC = spec_from_json({"model": "acme-fraud", "versions": [3], "load": {"concurrency": "4"}})


def a_trial(number: int, count: int) -> Trial:
    config: JsonObject = {**CONFIG, "instance_group": [{"name": "acme-fraud_0", "count": count, "kind": "KIND_CPU"}]}
    return Trial(
        sweep=7,
        number=number,
        candidate=digest({"version": 3, "config": config}),
        version=3,
        artifact=MANIFEST.digest,
        config=config,
        config_digest=digest(config),
        parameters={"instances": count},
        log="E1122 acme-fraud: cannot open /srv/acme/env.tar.gz",
        fates=({"look": 1, "fate": "finalist", "reason": "acme-fraud answers fastest, says anna"},),
    )


def a_block(trial: Trial, turn: int) -> Measurement:
    at = NOW + timedelta(seconds=turn)
    return Measurement(
        sweep=7,
        round=1,
        stage=Stage.RACE,
        order=BlockOrder(2 * turn + trial.number - 1, turn, trial.candidate, Step(Shape.CONCURRENCY, "4"), 1.0, 5),
        verdict=Verdict.VALID,
        reasons=(),
        started_at=at,
        finished_at=at + timedelta(seconds=1),
        seconds=1.0,
        completed=500,
        figures={"throughput": 500.0 + turn, "latency_ms p99": 8.25},
        histogram="AAAA",
        server={"succeeded": 500, "queue_ns": 2**60},
        batches={4: 125},
        fingerprint=MACHINE.digest,
    )


def a_capsule() -> Capsule:
    trials = (a_trial(1, 1), a_trial(2, 2))
    rows = tuple(a_block(trial, turn) for turn in range(3) for trial in trials)
    sweep = Sweep(
        id=7,
        model="acme-fraud",
        spec=SPEC.to_json(),
        spec_digest=SPEC.digest,
        space={"versions": [3], "bases": {"3": CONFIG}, "reasons": [{"path": "x", "sentence": "acme-fraud has 2 cores"}]},
        load={"concurrency": "4", "process": "poisson", "rows": 1, "finds_rate": False, "reason": "as the spec says"},
        plan={
            "method": "racing",
            "candidates": 2,
            "seconds": 12,
            "stages": [
                {"name": name, "candidates": 2, "turns": 3, "steps": 1, "milliseconds": 1000, "loads": 2}
                for name in ("all", "finalists")
            ],
        },
        objectives=({"model": "acme-fraud", "name": "quick", "metric": "latency_ms", "qualifier": "p99",
                     "direction": "at_most", "bound": "10", "stakeholder": "Till Team", "weight": None},),
        state=SweepState.FINISHED,
        started_by="anna",
        created_at=NOW,
        environment="prod-eu",
        base_revision=4,
        bench="bench-7.acme.example:8001",
        began_at=NOW,
        finished_at=NOW + timedelta(minutes=1),
        message="trial 7.2: quick",
        answer={"chosen": "7.2", "reason": "quick: latency_ms p99 is 8.25", "figures": {"7.2": {}}},
    )  # fmt: skip
    sweep = replace(sweep, evidence=evidence_digest(sweep, trials, rows))
    return Capsule(
        sweep=sweep,
        trials=trials,
        measurements=rows,
        versions={3: CapsuleVersion(MANIFEST, Requests(GOLDEN))},
        beside=Manifest(()),
        fingerprints={MACHINE.digest: MACHINE},
        blobs={GOLDEN: 3, WEIGHTS: 5},
        exported_at=NOW,
        control_plane="0.1",
    )


def sealed(tree: JsonObject) -> JsonObject:
    """With a digest of its own, as whoever changed it would write it."""
    rest = {name: value for name, value in tree.items() if name != "digest"}
    return {**rest, "digest": digest(rest)}


def test_a_capsule_goes_through_json_and_all_its_digests_check_out() -> None:
    capsule = a_capsule()
    again = capsule_from_json(json.loads(json.dumps(capsule.to_json())))

    assert again == capsule
    assert findings(again) == ()
    assert needed(again) == {GOLDEN: 3, WEIGHTS: 5}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("measurements", 0, "completed"), 501, "the sweep's evidence digest is sha256:"),
        (("trials", 1, "config", "max_batch_size"), 16, "trial 2: its config is sha256:"),
        (("trials", 1, "artifact"), "sha256:other", "trial 2 is of the artifact sha256:other"),
        (("trials", 0, "version"), 4, "trial 1 is of version 4, which the capsule has not"),
        (("measurements", 0, "candidate"), "sha256:none", "measurement 0 is of sha256:none, which is no trial"),
        (("measurements", 2, "fingerprint"), "sha256:none", "measurement 2 was made on sha256:none"),
        (("fingerprints", MACHINE.digest, "control_plane"), "2", f"the fingerprint {MACHINE.digest} is sha256:"),
        (("sweep", "spec", "defaults"), False, "the spec is sha256:"),
        (("sweep", "evidence"), None, "an answer and no evidence digest"),
    ],
)
def test_what_was_changed_inside_is_named_even_by_who_made_its_digest_anew(
    path: tuple[str | int, ...], value: object, said: str
) -> None:
    tree = json.loads(json.dumps(a_capsule().to_json()))
    place = tree
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(CapsuleInvalid, match="the capsule's document has the digest"):
        capsule_from_json(tree)
    assert any(said in finding for finding in findings(capsule_from_json(sealed(tree))))


def test_what_nobody_can_check_any_more_is_told() -> None:
    assert unchecked(a_capsule()) == ()
    assert "evidence" in unchecked(replace(a_capsule(), dropped=("nothing of note",)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "triton-controlplane/capsule/2"}, f"reads '{SCHEMA}'"),
        ({"more": 1}, "unknown field 'more'"),
        ({"trials": {}}, "trials is not a list"),
        ({"trials": [1]}, "a trial is not an object"),
        ({"measurements": [{}]}, "cannot be read at measurements[0]"),
        ({"versions": {"x": {}}}, "cannot be read at versions"),
        ({"blobs": {"../../etc/passwd": "3"}}, "is not a digest"),
        ({"blobs": {GOLDEN: "-3"}}, "is not a count"),
        ({"blobs": {GOLDEN: 3}}, "in another form"),
        ({"beside": {"files": [{"path": "../../up", "size": "1", "sha256": GOLDEN}]}}, "cannot be read at beside"),
        ({"exported_at": "yesterday"}, "cannot be read at exported_at"),
        ({"dropped": "names"}, "dropped is not a list"),
        ({"sweep": {}}, "sweep has no field"),
        ({"control_plane": 1}, "is not text"),
    ],
)
def test_what_is_no_capsule_is_refused_with_the_place(change: JsonObject, said: str) -> None:
    with pytest.raises(CapsuleInvalid) as error:
        capsule_from_json(sealed({**a_capsule().to_json(), **change}))

    assert said in error.value.message


def test_what_is_nested_deeper_than_anything_of_ours_is_refused() -> None:
    deep: JsonObject = {}
    for _ in range(900):
        deep = {"a": deep}

    with pytest.raises(CapsuleInvalid):
        capsule_from_json({**a_capsule().to_json(), "sweep": deep})


def paths(value: object, at: str = "") -> Iterator[str]:
    """Of everything in a document, with [] for elements and * for keys that are data."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from paths(
                one, f"{at}.*" if at in {"versions", "fingerprints", "blobs"} else f"{at}.{key}".lstrip(".")
            )
    elif isinstance(value, list) and at:
        for one in value:
            yield from paths(one, f"{at}[]")
        if not any(isinstance(one, dict) for one in value):
            yield f"{at}[]"
    else:
        yield at


def test_the_document_of_capsules_names_every_field_and_no_other() -> None:
    text = Path(domain.__file__).with_name("CAPSULE.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    there = set(paths(a_capsule().to_json()))

    assert {
        path for path in there if not any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in named)
    } == set()
    assert {
        one for one in named if not any(path == one or path.startswith((f"{one}.", f"{one}[")) for path in there)
    } == set()


def test_what_steers_a_terminal_is_in_no_capsule() -> None:
    tree = a_capsule().to_json()
    with pytest.raises(CapsuleInvalid, match="control character 0x1b"):
        capsule_from_json(sealed({**tree, "dropped": ["\x1b]0;owned\x07"]}))
