# Every field can be set and unset by its path.
from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from controlplane.domain.canonical import Json, JsonObject
from controlplane.errors import ConfigInvalid, ConfigPathInvalid
from controlplane.triton.config_fields import ROOT, map_entry
from controlplane.triton.pbtxt import PbtxtCodec

codec = PbtxtCodec()

BASE: JsonObject = {
    "name": "m",
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "3"]}],
    "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
    "backend": "onnxruntime",
}


@pytest.mark.parametrize(
    "path",
    [
        "instance_group[7].count",
        'parameters["x"].string_value',
        'input["none"].dims',
        "max_batch_size",
        "dynamic_batching",
    ],
)
def test_a_path_is_checked_without_a_config(path: str) -> None:
    codec.check_path(path)
    for wrong in (f"{path}.nothing", f"{path}[0].nothing"):
        with pytest.raises(ConfigPathInvalid, match="leads nowhere"):
            codec.check_path(wrong)


@pytest.mark.parametrize(
    ("path", "text", "field", "value"),
    [
        ("max_batch_size", " 8 ", "max_batch_size", 8),
        ("max_batch_size", "0", "max_batch_size", None),
        ("default_model_filename", "model v2.onnx", "default_model_filename", "model v2.onnx"),
        (
            "dynamic_batching.max_queue_delay_microseconds",
            "500",
            "dynamic_batching",
            {"max_queue_delay_microseconds": "500"},
        ),
        ("dynamic_batching", "{}", "dynamic_batching", {}),
        ("dynamic_batching", "", "dynamic_batching", {}),
        (
            "dynamic_batching",
            '{"preferred_batch_size": [4], "max_queue_delay_microseconds": 7}',
            "dynamic_batching",
            {"preferred_batch_size": [4], "max_queue_delay_microseconds": "7"},
        ),
        (
            "dynamic_batching",
            "preferred_batch_size: [4, 8] priority_levels: 2",
            "dynamic_batching",
            {"preferred_batch_size": [4, 8], "priority_levels": "2"},
        ),
        ("dynamic_batching", "{ priority_levels: 2 }", "dynamic_batching", {"priority_levels": "2"}),
        ("dynamic_batching.preferred_batch_size", "4, 8", "dynamic_batching", {"preferred_batch_size": [4, 8]}),
        ("dynamic_batching.preferred_batch_size[+]", "4", "dynamic_batching", {"preferred_batch_size": [4]}),
        (
            'dynamic_batching.priority_queue_policy["1"].max_queue_size',
            "9",
            "dynamic_batching",
            {"priority_queue_policy": {"1": {"max_queue_size": 9}}},
        ),
        (
            "dynamic_batching.priority_queue_policy[1].timeout_action",
            "DELAY",
            "dynamic_batching",
            {"priority_queue_policy": {"1": {"timeout_action": "DELAY"}}},
        ),
        ("instance_group[0].count", "4", "instance_group", [{"count": 4, "kind": "KIND_CPU"}]),
        (
            "instance_group[+]",
            "count: 1 kind: KIND_GPU gpus: [0, 1]",
            "instance_group",
            [{"count": 2, "kind": "KIND_CPU"}, {"count": 1, "gpus": [0, 1], "kind": "KIND_GPU"}],
        ),
        ("instance_group", '[{"count": 1}]', "instance_group", [{"count": 1}]),
        ("instance_group", "[{ count: 1 }]", "instance_group", [{"count": 1}]),
        (
            'input["x"].dims',
            "[3, 224]",
            "input",
            [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "224"]}],
        ),
        ("input[0].dims[1]", "5", "input", [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "5"]}]),
        ('parameters["session.x"].string_value', "a b", "parameters", {"session.x": {"string_value": "a b"}}),
        ("parameters.threads.string_value", "1", "parameters", {"threads": {"string_value": "1"}}),
        ("parameters", '{"a": {"string_value": "1"}}', "parameters", {"a": {"string_value": "1"}}),
        ('metric_tags["a"]', "b", "metric_tags", {"a": "b"}),
        ("optimization.cuda.graphs", "True", "optimization", {"cuda": {"graphs": True}}),
        (
            "sequence_batching.direct.minimum_slot_utilization",
            "0.1",
            "sequence_batching",
            {"direct": {"minimum_slot_utilization": "0.1"}},
        ),
        ("model_operations.op_library_filename", '["a.so"]', "model_operations", {"op_library_filename": ["a.so"]}),
    ],
)
def test_a_value_is_set_by_its_path(path: str, text: str, field: str, value: Json) -> None:
    expected = {**BASE, field: value}
    if value is None:
        del expected[field]
    assert codec.set(BASE, path, text) == expected


def test_setting_one_member_of_a_oneof_removes_the_other() -> None:
    config = codec.set(BASE, "dynamic_batching.max_queue_delay_microseconds", "5")
    assert codec.set(config, "sequence_batching.oldest.max_candidate_sequences", "4") == {
        **BASE,
        "sequence_batching": {"oldest": {"max_candidate_sequences": 4}},
    }
    warm: JsonObject = {"model_warmup": [{"inputs": {"x": {"zero_data": True}}}]}
    assert codec.set(warm, "model_warmup[0].inputs.x.random_data", "true") == {
        "model_warmup": [{"inputs": {"x": {"random_data": True}}}]
    }


@pytest.mark.parametrize(
    ("path", "text", "error", "message", "hint"),
    [
        ("max_batch", "3", ConfigPathInvalid, "config path max_batch leads nowhere: the config has no such field", "did you mean max_batch_size?"),
        ("name.x", "3", ConfigPathInvalid, "config path name.x leads nowhere: name is a single value; nothing lies below it", "end the path there"),
        ("instance_group.count", "3", ConfigPathInvalid, "config path instance_group.count leads nowhere: instance_group is a list", "write instance_group[0].count for its first element, instance_group[+] to add one"),
        ("instance_group[1].count", "3", ConfigPathInvalid, "config path instance_group[1] leads nowhere: instance_group has 1 elements", "instance_group[+] adds one"),
        ('input["y"].dims', "3", ConfigPathInvalid, "config path input[\"y\"] leads nowhere: input has no element named 'y'", "input[+] adds one"),
        ("parameters.session.x.string_value", "3", ConfigPathInvalid, 'config path parameters["session"].x leads nowhere: parameters["session"] has no such field', "known here: string_value"),
        ("parameters[+].string_value", "3", ConfigPathInvalid, "config path parameters[+] leads nowhere: parameters is a map", 'go on with ["key"]'),
        ("instance_group[0].kind", "kind_gpu", ConfigInvalid, "instance_group[0].kind must be one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL, not 'kind_gpu'", "did you mean KIND_GPU?"),
        ("max_batch_size", "x", ConfigInvalid, "max_batch_size must be a whole number, not 'x'", None),
        ("optimization.cuda.graphs", "yes", ConfigInvalid, "optimization.cuda.graphs must be true or false, not 'yes'", None),
        ("parameters", "null", ConfigInvalid, "parameters is a map: its value is a JSON object", 'or set one entry, parameters["key"]'),
        ("dynamic_batching", "max_queue_dely_microseconds: 3", ConfigInvalid, 'the value for dynamic_batching is neither JSON nor pbtxt, line 1, column 1: Message type "inference.ModelDynamicBatching" has no field named "max_queue_dely_microseconds".', "did you mean dynamic_batching.max_queue_delay_microseconds or sequence_batching.direct.max_queue_delay_microseconds or sequence_batching.oldest.max_queue_delay_microseconds?"),
        ("input", "[null]", ConfigInvalid, "input[0] must be an object of fields, not None", None),
    ],
)  # fmt: skip
def test_a_path_or_value_that_does_not_fit_is_refused_with_the_cure(
    path: str, text: str, error: type[Exception], message: str, hint: str | None
) -> None:
    with pytest.raises(error) as caught:
        codec.set(BASE, path, text)
    assert (getattr(caught.value, "message"), getattr(caught.value, "hint")) == (message, hint)  # noqa: B009


@pytest.mark.parametrize("text", ["[" * 60_000, '{"a":' * 10_000, "{" * 60_000, "9" * 60_000])
@pytest.mark.parametrize("path", ["dynamic_batching", "input", "parameters", "max_batch_size"])
def test_a_hostile_value_is_refused_in_few_words(path: str, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        codec.set(BASE, path, text)
    assert len(caught.value.message) < 500


def test_a_huge_value_is_refused_unread() -> None:
    with pytest.raises(ConfigInvalid, match="65537 characters is too large"):
        codec.set(BASE, "name", "x" * 65_537)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("backend", {k: v for k, v in BASE.items() if k != "backend"}),
        ("instance_group[0]", {k: v for k, v in BASE.items() if k != "instance_group"}),
        ("instance_group", {k: v for k, v in BASE.items() if k != "instance_group"}),
        ("instance_group[0].count", {**BASE, "instance_group": [{"kind": "KIND_CPU"}]}),
        ('input["x"].dims[0]', {**BASE, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]}),
    ],
)
def test_what_is_unset_is_gone(path: str, expected: JsonObject) -> None:
    assert codec.unset(BASE, path) == expected


def test_unsetting_the_last_entry_of_a_map_removes_the_map_but_a_message_stays() -> None:
    config: JsonObject = {"parameters": {"a": {"string_value": "1"}}, "dynamic_batching": {"priority_levels": "2"}}
    assert codec.unset(config, "parameters.a") == {"dynamic_batching": {"priority_levels": "2"}}
    assert codec.unset(config, "dynamic_batching.priority_levels") == {
        "parameters": {"a": {"string_value": "1"}},
        "dynamic_batching": {},
    }


@pytest.mark.parametrize(
    "path", ["max_batch_size", "dynamic_batching.priority_levels", "parameters.a", "instance_group[+]"]
)
def test_unsetting_what_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(ConfigPathInvalid, match="there is nothing at"):
        codec.unset(BASE, path)


def _sample(field: FieldDescriptor) -> str:
    """A text for one value of the field that is not its default."""
    if field.message_type is not None:
        return "{}"
    if field.enum_type is not None:
        return field.enum_type.values[-1].name
    return {FieldDescriptor.CPPTYPE_BOOL: "true", FieldDescriptor.CPPTYPE_STRING: '"x"'}.get(field.cpp_type, "1")


def _fields(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every path of the schema, with a text to set there."""
    for field in message.fields:
        path = prefix + field.name
        if field.enum_type is not None and len(field.enum_type.values) == 1:
            continue  # it has only its default
        if entry := map_entry(field):
            yield path, '{"1": ' + _sample(entry[1]) + "}"
            yield path + '["1"]', _sample(entry[1]).strip('"')
            inner, path = entry[1].message_type, path + '["1"]'
        elif field.is_repeated:
            yield path, f"[{_sample(field)}]"
            yield path + "[+]", _sample(field).strip('"')
            inner, path = field.message_type, path + "[+]"
        else:
            yield path, _sample(field).strip('"')
            inner = field.message_type
        if inner is not None:
            yield from _fields(inner, path + ".")


@pytest.mark.parametrize(("path", "text"), list(_fields(ROOT)))
def test_every_field_of_the_schema_can_be_set_and_unset(path: str, text: str) -> None:
    config = codec.set({}, path, text)
    assert config != {}
    assert codec.parse(codec.render(config)) == config
    assert codec.unset(config, path.replace("[+]", "[0]")) != config
