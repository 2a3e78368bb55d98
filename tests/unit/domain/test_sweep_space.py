# Which space is searched when the spec is silent, what a spec changes about it, and how many choices it has.
from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Objective, Signature, TensorSpec
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_candidates import candidates
from controlplane.domain.sweep_space import Space, Subject, size, space_of
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.errors import SweepInvalid
from controlplane.triton.generate import generate
from controlplane.triton.pbtxt import PbtxtCodec

CODEC = PbtxtCodec()
HOST = HostFacts(cpu_cores=2, gpus=0, memory_bytes=8 << 30)
P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "4", "product", None)


def signature(batching: Batching = Batching.BATCHABLE) -> Signature:
    rows: int | str = 1 if batching is Batching.FIXED else "n"
    return Signature(
        (TensorSpec("x", "TYPE_FP32", (rows, 4)),), (TensorSpec("y", "TYPE_FP32", (rows, 4)),), batching, 17, 8, "test"
    )


def subject(batching: Batching = Batching.BATCHABLE, host: HostFacts = HOST, **more: Any) -> Subject:
    base = generate(GenerateRequest("m", signature(batching), host)).config
    return Subject("m", {1: base}, {1: signature(batching)}, host, **more)


def spaced(of: Subject, **more: Json) -> Space:
    return space_of(spec_from_json({"model": "m", **more}), of)


def named(space: Space) -> dict[str, tuple[Json, ...]]:
    return {one.name: one.values for one in space.dimensions}


def why(space: Space) -> dict[str, str]:
    return {reason.path: reason.sentence for reason in space.reasons}


def test_a_batchable_model_on_two_cores_gets_a_small_space_with_reasons() -> None:
    space = spaced(subject())

    assert named(space) == {
        "max_batch_size": (1, 4, 8, 16, 64),  # 8 is the base config's own
        "instances": (1, 2),
        "threads": (1, 2),
        "queue_delay_us": (0, 100, 500, 2000),
    }
    assert set(why(space)) == {
        "max_batch_size", "dynamic_batching.max_queue_delay_microseconds", "instance_group[0].kind", "instance_group[0].count",
        'parameters["intra_op_thread_count"].string_value', "optimization.execution_accelerators",
        "dynamic_batching.preferred_batch_size", "dynamic_batching.default_queue_policy", "response_cache.enable",
    }  # fmt: skip
    assert "the host has no GPU" in why(space)["instance_group[0].kind"]


def test_the_queue_delay_starts_at_none_and_keeps_to_a_share_of_the_latency_that_is_allowed() -> None:
    assert named(spaced(subject(objectives=(P99,))))["queue_delay_us"] == (0, 100, 500)
    assert named(spaced(subject(objectives=(replace(P99, bound="0.3"),))))["queue_delay_us"] == (0,)
    wish = replace(P99, bound="0.3", weight="1")
    assert named(spaced(subject(objectives=(wish,))))["queue_delay_us"] == (0, 100, 500, 2000)


@pytest.mark.parametrize(
    ("batching", "said"),
    [
        (Batching.FIXED, "no variable first"),
        (Batching.MIXES_ROWS, "in company"),
        (Batching.UNKNOWN, "could not be tried"),
    ],
)
def test_a_model_that_does_not_batch_is_swept_over_its_instances_only(batching: Batching, said: str) -> None:
    space = spaced(subject(batching))

    assert set(named(space)) == {"instances", "threads"}
    assert said in why(space)["max_batch_size"]


def test_stateful_opaque_and_ensemble_models_keep_what_makes_them_so() -> None:
    stateful = CODEC.check({"name": "m", "backend": "onnxruntime", "max_batch_size": 4, "sequence_batching": {}})
    opaque = CODEC.check({"name": "m", "backend": "python", "max_batch_size": 8})
    ensemble = CODEC.check({"name": "m", "platform": "ensemble", "ensemble_scheduling": {}})

    of_stateful, of_opaque, of_ensemble = (
        spaced(Subject("m", {1: base}, {}, HOST)) for base in (stateful, opaque, ensemble)
    )

    assert "queue_delay_us" not in named(of_stateful)
    assert named(of_opaque)["max_batch_size"] == (1, 4, 8)
    assert "threads" not in named(of_opaque)
    assert named(of_ensemble) == {}
    assert "members" in why(of_ensemble)["instance_group"]


def test_a_gpu_brings_kinds_and_accelerators_but_not_for_the_embedded_server() -> None:
    host = replace(HOST, gpus=1)

    found = spaced(subject(host=host))
    embedded = spaced(subject(host=host, embedded=True))

    assert named(found)["kind"] == ("cpu", "gpu")
    assert named(found)["accelerator"] == ("none", "tensorrt")
    assert [c.text for one in found.dimensions if one.name == "threads" for c in one.when] == [
        "instance_group[0].kind=KIND_CPU"
    ]
    assert {"kind", "accelerator"}.isdisjoint(named(embedded))


def test_what_the_spec_names_replaces_the_default_of_that_place_whatever_its_name() -> None:
    space = spaced(subject(), space={"instance_group[0].count": [1, 3], "queue_delay_us": [0, 7]})

    assert named(space)["instance_group[0].count"] == (1, 3)
    assert "instances" not in named(space)
    assert named(space)["queue_delay_us"] == (0, 7)
    assert "as the spec says" in why(space)["instance_group[0].count"]
    assert set(named(spaced(subject(), defaults=False, space={"threads": [1]}))) == {"threads"}


def test_a_dimension_stands_after_those_that_its_conditions_look_at() -> None:
    space = spaced(
        subject(),
        defaults=False,
        space={
            "max_batch_size": {"values": [1, 4], "when": "instance_group[0].count=2"},
            "instances": {"values": [1, 2], "when": 'parameters["b"].string_value=x'},
            'parameters["b"].string_value': ["x", "y"],
        },
    )

    assert [one.name for one in space.dimensions] == ['parameters["b"].string_value', "instances", "max_batch_size"]
    assert size(space, subject(), CODEC) == 4  # y; x,1; x,2,1; x,2,4


def test_conditions_that_wait_for_each_other_are_refused() -> None:
    circle: JsonObject = {
        "max_batch_size": {"values": [1, 4], "when": "instance_group[0].count=2"},
        "instances": {"values": [1, 2], "when": "max_batch_size=1"},
    }
    with pytest.raises(SweepInvalid, match="max_batch_size and instances wait for each other"):
        spaced(subject(), space=circle, defaults=False)


def test_versions_are_those_of_the_spec_and_must_exist() -> None:
    one = subject()
    two = replace(one, bases={1: one.bases[1], 2: one.bases[1]}, signatures={1: signature(), 2: signature()})

    assert spaced(two).versions == (1, 2)
    assert spaced(two, versions=[2]).versions == (2,)
    with pytest.raises(SweepInvalid, match="no version 3"):
        spaced(two, versions=[3])
    with pytest.raises(SweepInvalid, match="no version to sweep"):
        spaced(replace(one, bases={}))


def test_the_size_counts_conditions_and_edits_that_cannot_be_made() -> None:
    space = spaced(subject())
    listed = candidates(space, subject(), CODEC, seed=1, most=1000)

    assert size(space, subject(), CODEC) == listed.choices == (1 + 4 * 4) * 2 * 2
    strange: dict[str, Json] = {"dynamic_batching.no_such_field": [1, 2], "threads": [1, 2]}
    assert size(spaced(subject(), defaults=False, space=strange), subject(), CODEC) == 4


def test_a_huge_space_is_counted_without_being_listed() -> None:
    many: JsonObject = {f'parameters["p{n}"].string_value': "1:60:1" for n in range(12)}
    space = spaced(subject(), space=many)

    assert size(space, subject(), CODEC) == 68 * 60**12


def test_conditions_over_too_many_combinations_are_refused() -> None:
    chain: JsonObject = {f'parameters["p{n}"].string_value': "1:60:1" for n in range(4)}
    chain |= {f"model_warmup[{n}].count": {"values": [1], "when": f"{path}=1"} for n, path in enumerate(list(chain))}
    with pytest.raises(SweepInvalid, match="more than 1000 combinations"):
        size(spaced(subject(), space=chain, defaults=False), subject(), CODEC)


def test_the_hosts_cores_bound_the_instances() -> None:
    space = spaced(subject(host=replace(HOST, cpu_cores=64)))

    assert named(space)["instances"] == (1, 2, 4, 8)
    assert named(space)["threads"] == (1, 8, 16, 32, 64)
    assert all(isinstance(a, int) and isinstance(b, int) and a < b for a, b in pairwise(named(space)["threads"]))
