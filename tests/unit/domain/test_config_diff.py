# Differences are semantic, their paths can be set, and their cost is Triton's.
from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_diff import (
    MAPS,
    NAMED_LISTS,
    FieldChange,
    Impact,
    ReloadClass,
    beside_diff,
    diff,
    impact,
)
from controlplane.domain.config_paths import parse_path
from controlplane.domain.environments import NOTHING, RevisionContent, VersionRef
from controlplane.triton.config_fields import ROOT, map_entry
from controlplane.triton.pbtxt import PbtxtCodec

BASE: JsonObject = {
    "name": "m",
    "max_batch_size": 8,
    "input": [
        {"name": "a", "data_type": "TYPE_FP32", "dims": ["28", "28"]},
        {"name": "b", "data_type": "TYPE_INT64", "dims": ["1"]},
    ],
    "output": [
        {"name": "y", "data_type": "TYPE_FP32", "dims": ["10"]},
        {"name": "z", "data_type": "TYPE_FP32", "dims": ["1"]},
    ],
    "instance_group": [{"name": "g0", "count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"max_queue_delay_microseconds": "100"},
    "parameters": {"threads": {"string_value": "1"}},
}


def test_the_tables_of_maps_and_named_lists_are_those_of_the_schema() -> None:
    def walk(message: Descriptor) -> Iterator[tuple[str, bool, bool]]:
        for field in message.fields:
            inner = field.message_type
            named = inner is not None and "name" in inner.fields_by_name
            yield field.name, map_entry(field) is not None, bool(field.is_repeated and named)
            if inner is not None:
                yield from walk(inner)

    fields = list(walk(ROOT))
    assert {name for name, is_map, _ in fields if is_map} == MAPS
    assert {name for name, _, named in fields if named} >= NAMED_LISTS


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({}, {}, []),
        ({"max_batch_size": 8}, {"max_batch_size": 4}, [("max_batch_size", 8, 4)]),
        ({}, {"dynamic_batching": {}}, [("dynamic_batching", None, {})]),
        ({"dynamic_batching": {"priority_levels": "2"}}, {"sequence_batching": {}}, [("dynamic_batching", {"priority_levels": "2"}, None), ("sequence_batching", None, {})]),
        ({"dynamic_batching": {"preferred_batch_size": [4]}}, {"dynamic_batching": {"preferred_batch_size": [4, 8]}}, [("dynamic_batching.preferred_batch_size", [4], [4, 8])]),
        ({"parameters": {"a.b": {"string_value": "1"}, "c": {}}}, {"parameters": {"c": {}, "a.b": {"string_value": "2"}}}, [('parameters["a.b"].string_value', "1", "2")]),
        ({"parameters": {"input": {"string_value": "1"}}}, {"parameters": {"input": {"string_value": "2"}}}, [('parameters["input"].string_value', "1", "2")]),
        ({"dynamic_batching": {"priority_queue_policy": {"1": {"max_queue_size": 1}}}}, {"dynamic_batching": {"priority_queue_policy": {"1": {"max_queue_size": 2}}}}, [('dynamic_batching.priority_queue_policy["1"].max_queue_size', 1, 2)]),
        ({"instance_group": [{"count": 1}]}, {"instance_group": [{"count": 2}, {"kind": "KIND_CPU"}]}, [("instance_group[0].count", 1, 2), ("instance_group[1]", None, {"kind": "KIND_CPU"})]),
        ({"instance_group": [{"name": "a", "count": 1}, {"name": "b"}]}, {"instance_group": [{"name": "a", "count": 2}]}, [('instance_group["a"].count', 1, 2), ('instance_group["b"]', {"name": "b"}, None)]),
        ({"input": [{"name": "a"}, {"name": "b", "dims": ["1"]}]}, {"input": [{"name": "b", "dims": ["2"]}, {"name": "a"}]}, [("input", ["a", "b"], ["b", "a"]), ('input["b"].dims', ["1"], ["2"])]),
        ({"model_warmup": [{"name": "w", "inputs": {"x": {"zero_data": True}}}]}, {"model_warmup": [{"name": "w", "inputs": {"x": {"random_data": True}}}]}, [('model_warmup["w"].inputs["x"].random_data', None, True), ('model_warmup["w"].inputs["x"].zero_data', True, None)]),
        ({"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}]}}}, {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"precision_mode": "FP32"}}]}}}, [('optimization.execution_accelerators.gpu_execution_accelerator[0].parameters["precision_mode"]', "FP16", "FP32")]),
        ({"instance_group": [{"name": "a"}]}, {}, [("instance_group", [{"name": "a"}], None)]),
    ],
)  # fmt: skip
def test_configs_differ_in_these_places(
    old: JsonObject, new: JsonObject, changes: list[tuple[str, Json, Json]]
) -> None:
    assert diff(old, new) == tuple(FieldChange(*change) for change in changes)
    assert diff(new, old) == tuple(FieldChange(path, b, a) for path, a, b in changes)
    for path, _, _ in changes:
        parse_path(path)


def test_the_path_of_a_difference_can_be_set() -> None:
    codec = PbtxtCodec()
    changed = codec.set(BASE, "input[1].dims", "[2]")
    (change,) = diff(BASE, changed)
    assert codec.set(BASE, change.path, "[2]") == changed


_trees = st.recursive(
    st.one_of(st.integers(0, 2), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 2), max_size=2)),
    lambda inner: (
        st.dictionaries(st.sampled_from(["name", "input", "x"]), inner, max_size=3)
        | st.lists(st.dictionaries(st.sampled_from(["name", "x"]), inner, max_size=2), max_size=3)
    ),
    max_leaves=12,
)


@given(
    old=st.dictionaries(st.sampled_from(["input", "x"]), _trees),
    new=st.dictionaries(st.sampled_from(["input", "x"]), _trees),
)
def test_only_equal_configs_have_no_difference(old: JsonObject, new: JsonObject) -> None:
    assert (diff(old, new) == ()) == (old == new)


def _revision(config: JsonObject | None, *numbers: int, artifact: str = "a") -> RevisionContent:
    return RevisionContent(tuple(VersionRef(n, f"sha256:{artifact}{n}") for n in numbers), config)


NONE, IN_PLACE, RELOAD, BREAKS = ReloadClass


def test_files_beside_the_config_are_part_of_the_content() -> None:
    labels = Manifest((FileEntry("labels.txt", 3, "sha256:" + "1" * 64),))
    without = _revision(BASE, 1)
    content = dataclasses.replace(without, beside=labels)
    assert content.digest != without.digest
    assert RevisionContent.from_json(content.to_json()) == content
    assert "beside" not in without.to_json()
    assert beside_diff(without, content) == (FieldChange('beside["labels.txt"]', None, "sha256:" + "1" * 64),)
    assert impact(without, content, {}) == Impact(
        RELOAD, ("files beside the config change (labels.txt): all versions are loaded anew",)
    )


@pytest.mark.parametrize(
    ("old", "new", "cost", "reasons"),
    [
        (NOTHING, NOTHING, NONE, []),
        (_revision(BASE, 1), _revision(BASE, 1), NONE, []),
        (NOTHING, _revision(BASE, 1), RELOAD, ["nothing of the model is served yet: it is loaded"]),
        (_revision(BASE, 1), NOTHING, BREAKS, ["the model is no longer served"]),
        (_revision(BASE, 1), _revision(BASE, 2), IN_PLACE, ["version 1 is dropped: requests that name it are refused", "version 2 is loaded"]),
        (_revision(BASE, 1), _revision(BASE, 1, artifact="b"), RELOAD, ["version 1 has other bytes"]),
        (_revision(BASE, 1), _revision({**BASE, "instance_group": [{"count": 3}]}, 1), IN_PLACE, ["only instance_group changes: what serves goes on serving"]),
        (_revision(BASE, 1), _revision({**BASE, "instance_group": [{"count": 3}]}, 1, 2), IN_PLACE, ["version 2 is loaded", "only instance_group changes: what serves goes on serving"]),
        (_revision(BASE, 1), _revision({**BASE, "dynamic_batching": {}}, 1), RELOAD, ["dynamic_batching changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "dynamic_batching": {}, "instance_group": []}, 1), RELOAD, ["dynamic_batching changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "max_batch_size": 16}, 1), RELOAD, ["max_batch_size changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "max_batch_size": 4}, 1), BREAKS, ["max_batch_size falls from 8 to 4: requests with more rows are refused", "max_batch_size changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({k: v for k, v in BASE.items() if k != "max_batch_size"}, 1), BREAKS, ["max_batch_size goes from 8 to 0: every shape gains or loses the batch dimension", "input a was TYPE_FP32 [-1, 28, 28], becomes TYPE_FP32 [28, 28]", "input b was TYPE_INT64 [-1, 1], becomes TYPE_INT64 [1]", "output y was TYPE_FP32 [-1, 10], becomes TYPE_FP32 [10]", "output z was TYPE_FP32 [-1, 1], becomes TYPE_FP32 [1]", "max_batch_size changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "input": [{"name": "a", "data_type": "TYPE_FP32", "dims": ["-1", "28"]}, {"name": "b", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}}, {"name": "c", "data_type": "TYPE_BOOL", "optional": True}]}, 1), RELOAD, ["input changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "input": [{"name": "a", "data_type": "TYPE_FP16", "dims": ["28", "28"]}, {"name": "c", "data_type": "TYPE_BOOL", "dims": ["1"]}]}, 1), BREAKS, ["input a was TYPE_FP32 [-1, 28, 28], becomes TYPE_FP16 [-1, 28, 28]", "input b is gone", "input c (TYPE_BOOL [-1, 1]) is new and must be sent", "input changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["-1"]}]}, 1), BREAKS, ["output y was TYPE_FP32 [-1, 10], becomes TYPE_FP32 [-1, -1]", "output z is gone", "output changes: all versions are loaded anew"]),
        (_revision(BASE, 1), _revision({**BASE, "model_transaction_policy": {"decoupled": True}}, 1), BREAKS, ["model_transaction_policy.decoupled changes: clients must send in another way", "model_transaction_policy changes: all versions are loaded anew"]),
        (_revision({"name": "m", "dynamic_batching": {}}, 1), _revision({"name": "m", "sequence_batching": {}}, 1), BREAKS, ["sequence_batching comes or goes: requests must have, or lose, a sequence id", "dynamic_batching, sequence_batching changes: all versions are loaded anew"]),
        (_revision({"name": "m"}, 1), _revision({"name": "m"}, 2), BREAKS, ["output y was TYPE_FP32 [10], becomes TYPE_FP32 [12]", "version 1 is dropped: requests that name it are refused", "version 2 is loaded"]),
        (_revision({"name": "m"}, 2), _revision({"name": "m"}, 1, 2), IN_PLACE, ["version 1 is loaded"]),
        (_revision({"name": "m"}, 3), _revision({"name": "m"}, 4), IN_PLACE, ["version 3 is dropped: requests that name it are refused", "version 4 is loaded"]),
    ],
)  # fmt: skip
def test_a_change_costs(old: RevisionContent, new: RevisionContent, cost: ReloadClass, reasons: list[str]) -> None:
    def interface(width: int) -> JsonObject:
        return {
            "inputs": [{"name": "x", "datatype": "TYPE_FP32", "dims": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "TYPE_FP32", "dims": [width]}],
        }

    assert impact(old, new, {1: interface(10), 2: interface(12)}) == Impact(cost, tuple(reasons))
