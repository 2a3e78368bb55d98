# Candidates: each choice once, the base config first, the same order for the same seed, the impossible explained.
from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Signature, TensorSpec
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_candidates import Candidate, Candidates, Refusal, candidate, candidates
from controlplane.domain.sweep_space import Space, Subject, space_of
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.triton.generate import generate
from controlplane.triton.pbtxt import PbtxtCodec

CODEC = PbtxtCodec()
HOST = HostFacts(cpu_cores=2, gpus=0, memory_bytes=8 << 30)
SIGNATURE = Signature(
    (TensorSpec("x", "TYPE_FP32", ("n", 4)),),
    (TensorSpec("y", "TYPE_FP32", ("n", 4)),),
    Batching.BATCHABLE,
    17,
    8,
    "test",
)
BASE = generate(GenerateRequest("m", SIGNATURE, HOST)).config
SUBJECT = Subject("m", {1: BASE}, {1: SIGNATURE}, HOST)


def spaced(space: JsonObject | None = None, of: Subject = SUBJECT, *, defaults: bool = False) -> Space:
    return space_of(spec_from_json({"model": "m", "space": space or {}, "defaults": defaults}), of)


def found(
    space: JsonObject | None = None,
    of: Subject = SUBJECT,
    *,
    seed: int = 1,
    most: int = 1000,
    rows: int = 1,
    defaults: bool = False,
) -> Candidates:
    return candidates(spaced(space, of, defaults=defaults), of, CODEC, seed=seed, most=most, rows=rows)


def tried(of: Candidates) -> set[tuple[Json, ...]]:
    return {tuple(value for _, value in one.parameters) for one in of.tried if one.parameters}


def codes(of: Candidates) -> dict[tuple[Json, ...], set[str]]:
    return {
        tuple(value for _, value in one.parameters): {finding.code for finding in one.findings} for one in of.refusals
    }


def test_the_default_space_has_the_base_first_and_every_config_once() -> None:
    listed = found(defaults=True)

    assert listed.tried[0].base
    assert listed.tried[0].config == BASE
    assert dict(listed.tried[0].parameters) == {
        "max_batch_size": 8, "instances": 1, "threads": 2, "queue_delay_us": 0,
    }  # fmt: skip
    assert not any(one.base for one in listed.tried[1:])
    assert len({one.digest for one in listed.tried}) == len(listed.tried) == listed.choices
    assert (listed.refusals, listed.merged, listed.left_out, listed.drawn) == ((), 0, 0, False)
    assert all(CODEC.check(one.config) == one.config for one in listed.tried)


def test_each_short_name_makes_the_edit_that_it_stands_for() -> None:
    gpu = replace(SUBJECT, host=replace(HOST, gpus=1))
    for name, value, path, expected in (
        ("max_batch_size", 4, "max_batch_size", 4),
        ("instances", 2, "instance_group", [{"name": "cpu", "kind": "KIND_CPU", "count": 2}]),
        ("kind", "gpu", "instance_group", [{"name": "cpu", "kind": "KIND_GPU", "count": 1}]),
        ("threads", 1, "parameters", {"intra_op_thread_count": {"string_value": "1"}}),
        ("threads", None, "parameters", None),
        ("queue_delay_us", 70, "dynamic_batching", {"max_queue_delay_microseconds": "70"}),
        ("preferred_batch_sizes", [2, 4], "dynamic_batching", {"preferred_batch_size": [2, 4]}),
        ("response_cache", True, "response_cache", {"enable": True}),
        (
            "queue", {"timeout_us": 900, "max_size": 5}, "dynamic_batching",
            {"default_queue_policy": {"default_timeout_microseconds": "900", "max_queue_size": 5}},
        ),
        ("dynamic_batching.preserve_ordering", True, "dynamic_batching", {"preserve_ordering": True}),
        ("dynamic_batching", None, "dynamic_batching", None),
    ):  # fmt: skip
        one = candidate(1, {name: value}, spaced({name: [value]}, gpu), gpu, CODEC)
        assert isinstance(one, Candidate), one
        assert one.config.get(path) == expected
        assert one.parameters == ((name, value),)
        assert not one.base


def test_values_that_take_away_what_is_not_there_give_the_base_config() -> None:
    nothing: JsonObject = {
        "queue": [None], "accelerator": ["none"], "response_cache": [False], "preferred_batch_sizes": [[]], "kind": ["cpu"],
    }  # fmt: skip

    listed = found(nothing)

    assert len(listed.tried) == 1
    assert listed.tried[0].base
    assert [name for name, _ in listed.tried[0].parameters] == [one.name for one in spaced(nothing).dimensions]


def test_accelerators_of_a_gpu_are_tried_on_it_only() -> None:
    gpu = replace(SUBJECT, host=replace(HOST, gpus=1))

    listed = found({"kind": ["cpu", "gpu"], "accelerator": ["none", "tensorrt"]}, gpu)

    assert tried(listed) == {("cpu", "none"), ("gpu", "none"), ("gpu", "tensorrt")}
    assert codes(listed) == {("cpu", "tensorrt"): {"accelerator.no_gpu"}}


def test_another_kind_leaves_behind_what_only_the_first_can_use() -> None:
    config = CODEC.set(BASE, "instance_group", '[{"name": "g", "kind": "KIND_GPU", "count": 1, "gpus": [0]}]')
    config = CODEC.set(
        config, "optimization.execution_accelerators", '{"gpu_execution_accelerator": [{"name": "tensorrt"}]}'
    )
    of = replace(SUBJECT, host=replace(HOST, gpus=1), bases={1: config})

    one = candidate(1, {"kind": "cpu"}, spaced({"kind": ["cpu", "gpu"]}, of), of, CODEC)

    assert isinstance(one, Candidate)
    assert one.config["instance_group"] == [{"name": "g", "kind": "KIND_CPU", "count": 1}]
    assert "tensorrt" not in str(one.config)


def test_equal_configs_are_one_candidate() -> None:
    listed = found({"dynamic_batching.preserve_ordering": [True, "true", False]})

    assert (listed.choices, len(listed.tried), listed.merged) == (3, 2, 1)


def test_a_batch_of_one_joins_nothing_so_what_joins_is_taken_away() -> None:
    one = candidate(1, {"max_batch_size": 1}, spaced({"max_batch_size": [1, 4]}), SUBJECT, CODEC)
    assert isinstance(one, Candidate)
    assert "dynamic_batching" not in one.config

    limited = CODEC.set(
        CODEC.set(BASE, "dynamic_batching.default_queue_policy.max_queue_size", "9"),
        "dynamic_batching.max_queue_delay_microseconds",
        "50",
    )
    of = replace(SUBJECT, bases={1: limited})
    kept = candidate(1, {"max_batch_size": 1}, spaced({"max_batch_size": [1, 4]}, of), of, CODEC)
    assert isinstance(kept, Candidate)
    assert kept.config["dynamic_batching"] == {"default_queue_policy": {"max_queue_size": 9}}


def test_invalid_combinations_are_explained_and_not_tried() -> None:
    listed = found({"max_batch_size": [1, 4], "queue_delay_us": [50], "preferred_batch_sizes": [[], [8]]})

    assert {json_text(one) for one in listed.tried} == {"", "4 50 []"}
    refusals = {json_text(one): {finding.code for finding in one.findings} for one in listed.refusals}
    assert refusals == {
        "1 50 []": {"batching.without_batch", "batching.delay_for_nothing"},
        "1 50 [8]": {"batching.preferred", "batching.without_batch", "batching.delay_for_nothing"},
        "4 50 [8]": {"batching.preferred"},
    }
    assert all(finding.message and finding.hint for one in listed.refusals for finding in one.findings)


def json_text(one: Candidate | Refusal) -> str:
    return " ".join(str(value) for _, value in one.parameters)


def test_more_than_twice_as_many_threads_as_cores_are_not_tried() -> None:
    listed = found({"instances": [1, 2, 3], "threads": [0, 1, 2]})

    assert tried(listed) == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 1)}
    assert codes(listed) == {(3, 0): {"sweep.crowded"}, (3, 2): {"sweep.crowded"}}
    assert "6 threads on 2 cores" in listed.refusals[0].findings[0].message


def test_what_does_not_fit_the_memory_or_the_requests_is_not_tried() -> None:
    heavy = replace(SUBJECT, sizes={1: 3 << 30})

    assert codes(found({"instances": [1, 2, 3], "threads": [1]}, heavy)) == {(3, 1): {"sweep.memory"}}
    assert codes(found({"max_batch_size": [2, 4]}, rows=4)) == {(2,): {"sweep.rows"}}


def test_a_base_that_cannot_be_served_is_explained_and_one_that_is_unwise_is_tried() -> None:
    bad = replace(SUBJECT, bases={1: CODEC.set(BASE, "dynamic_batching.preferred_batch_size", "[9]")})
    crowded = replace(SUBJECT, bases={1: CODEC.set(BASE, "instance_group[0].count", "9")})

    listed = found({"preferred_batch_sizes": [[], [8]]}, bad)

    assert [one.parameters for one in listed.refusals] == [()]
    assert len(listed.tried) == 2
    assert found({}, crowded).tried[0].base


def test_a_path_that_leads_nowhere_is_explained() -> None:
    listed = found({"dynamic_batching.no_such": [1], "threads": [1]})

    assert [(one.findings[0].code, one.findings[0].path) for one in listed.refusals] == [
        ("config.path_invalid", "dynamic_batching.no_such")
    ]
    assert len(listed.tried) == 1


def test_a_scheduler_that_clients_know_is_not_taken_away() -> None:
    stateful = CODEC.check({"name": "m", "backend": "python", "max_batch_size": 4, "sequence_batching": {}})
    of = Subject("m", {1: stateful}, {}, HOST)

    assert codes(found({"queue_delay_us": [10]}, of)) == {(10,): {"sweep.scheduler"}}


def test_a_model_without_instance_group_gets_one() -> None:
    opaque = CODEC.check({"name": "m", "backend": "python"})
    one = candidate(
        1, {"instances": 2}, spaced({"instances": [2]}, of := Subject("m", {1: opaque}, {}, HOST)), of, CODEC
    )

    assert isinstance(one, Candidate)
    assert one.config["instance_group"] == [{"name": "all", "kind": "KIND_CPU", "count": 2}]


def test_versions_are_a_dimension_with_their_own_base_configs() -> None:
    of = replace(
        SUBJECT,
        bases={1: BASE, 2: CODEC.set(BASE, 'parameters["intra_op_thread_count"].string_value', "1")},
        signatures={1: SIGNATURE, 2: SIGNATURE},
    )

    listed = found({"threads": [1, 2]}, of)

    assert [(one.version, one.base) for one in listed.tried[:2]] == [(1, True), (2, True)]
    assert len(listed.tried) == 4
    assert len({one.config_digest for one in listed.tried}) == 2


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    one, again, other = (found(defaults=True, seed=seed) for seed in (1, 1, 2))

    assert one == again
    assert [c.digest for c in one.tried] != [c.digest for c in other.tried]
    assert {c.digest for c in one.tried} == {c.digest for c in other.tried}
    few = found(defaults=True, most=5)
    assert few.tried == one.tried[:5]
    assert few.left_out == len(one.tried) - 5


def test_of_a_huge_space_as_many_as_asked_for_are_drawn_by_the_seed() -> None:
    many: JsonObject = {f'parameters["p{n}"].string_value': "1:60:1" for n in range(6)}

    one, again, other = (found(many, seed=seed, most=10) for seed in (1, 1, 2))

    assert (one.choices, one.drawn, len(one.tried)) == (60**6, True, 10)
    assert one == again
    assert {c.digest for c in one.tried[1:]}.isdisjoint(c.digest for c in other.tried[1:])


@pytest.mark.parametrize("rows", [1, 9])
def test_a_search_may_ask_for_any_one(rows: int) -> None:
    space = spaced(defaults=True)
    wanted: dict[str, Json] = {"max_batch_size": 1, "instances": 2, "threads": 1, "queue_delay_us": 500}

    one = candidate(1, wanted, space, SUBJECT, CODEC, rows=rows)

    assert one.parameters == (("max_batch_size", 1), ("instances", 2), ("threads", 1))  # no delay for a batch of one
    assert isinstance(one, Candidate if rows == 1 else Refusal)
    base = candidate(1, {}, space, SUBJECT, CODEC)
    assert isinstance(base, Candidate)
    assert base.base
