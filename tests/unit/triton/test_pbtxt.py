# config.pbtxt and trees say the same, and what the schema refuses is refused with its place.
from __future__ import annotations

import contextlib
import time

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from controlplane.domain.canonical import JsonObject, canonical_bytes
from controlplane.errors import ConfigInvalid
from controlplane.services.ports import ConfigCodec
from controlplane.triton.config_fields import map_entry, tree_of
from controlplane.triton.pbtxt import MAX_TEXT, PbtxtCodec

codec: ConfigCodec = PbtxtCodec()

QUEUE_DELAY_HINT = (
    "did you mean dynamic_batching.max_queue_delay_microseconds"
    " or sequence_batching.direct.max_queue_delay_microseconds"
    " or sequence_batching.oldest.max_queue_delay_microseconds?"
)

FULL_TEXT = """
name: "digits"
backend: "onnxruntime"   # a comment
max_batch_size: 32
input [
  { name: "image" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 1, -1, 28 ] reshape: { shape: [] } },
  { name: "schlüssel" data_type: TYPE_STRING dims: 1 }
]
output { name: "label" data_type: TYPE_INT64 dims: [ 1 ] label_filename: "labels.txt" }
instance_group { name: "g" kind: KIND_CPU count: 2 rate_limiter { resources { name: "R1" count: 4 global: true } priority: 2 } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 9007199254740993
  priority_queue_policy { key: 2 value { timeout_action: DELAY default_timeout_microseconds: 5 } }
  priority_queue_policy { key: 1 value { } }
}
optimization { cuda { graphs: true } input_pinned_memory { enable: false } }
parameters { key: "session.x" value { string_value: "a b" } }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
model_warmup { name: "w" inputs { key: "image" value { data_type: TYPE_FP32 dims: 28 zero_data: false } } }
response_cache { enable: true }
"""

FULL_TREE: JsonObject = {
    "name": "digits",
    "max_batch_size": 32,
    "input": [
        {
            "name": "image",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NCHW",
            "dims": ["1", "-1", "28"],
            "reshape": {},
        },
        {"name": "schlüssel", "data_type": "TYPE_STRING", "dims": ["1"]},
    ],
    "output": [{"name": "label", "data_type": "TYPE_INT64", "dims": ["1"], "label_filename": "labels.txt"}],
    "instance_group": [
        {
            "name": "g",
            "count": 2,
            "kind": "KIND_CPU",
            "rate_limiter": {"resources": [{"name": "R1", "global": True, "count": 4}], "priority": 2},
        }
    ],
    "dynamic_batching": {
        "preferred_batch_size": [4, 8],
        "max_queue_delay_microseconds": "9007199254740993",
        "priority_queue_policy": {"1": {}, "2": {"timeout_action": "DELAY", "default_timeout_microseconds": "5"}},
    },
    "optimization": {"cuda": {"graphs": True}, "input_pinned_memory": {}},
    "parameters": {"intra_op_thread_count": {"string_value": "1"}, "session.x": {"string_value": "a b"}},
    "model_warmup": [
        {"name": "w", "inputs": {"image": {"data_type": "TYPE_FP32", "dims": ["28"], "zero_data": False}}}
    ],
    "backend": "onnxruntime",
    "response_cache": {"enable": True},
}


def test_a_config_text_becomes_its_tree() -> None:
    assert codec.parse(FULL_TEXT) == FULL_TREE


def test_a_tree_becomes_text_that_google_reads_and_that_reads_back() -> None:
    text = codec.render(FULL_TREE)
    assert tree_of(text_format.Parse(text, model_config_pb2.ModelConfig())) == FULL_TREE
    assert codec.parse(text) == FULL_TREE
    assert codec.render(codec.parse(text)) == text


def test_a_rendered_config_looks_like_this() -> None:
    tree: JsonObject = {"name": "m", "max_batch_size": 4, "dynamic_batching": {}, "backend": "onnxruntime"}
    assert codec.render(tree) == 'name: "m"\nmax_batch_size: 4\ndynamic_batching {\n}\nbackend: "onnxruntime"\n'


def test_an_empty_message_is_kept_and_defaults_and_empty_lists_are_left_out() -> None:
    spoken: JsonObject = {
        "name": "",
        "max_batch_size": 0,
        "input": [],
        "parameters": {},
        "dynamic_batching": {"preserve_ordering": False, "max_queue_delay_microseconds": "0"},
    }
    assert codec.check(spoken) == {"dynamic_batching": {}}


def test_numbers_may_be_written_as_numbers_or_text() -> None:
    spoken: JsonObject = {"max_batch_size": "8", "dynamic_batching": {"max_queue_delay_microseconds": 500}}
    assert codec.check(spoken) == {
        "max_batch_size": 8,
        "dynamic_batching": {"max_queue_delay_microseconds": "500"},
    }


@pytest.mark.parametrize(
    ("text", "message", "hint", "line", "column"),
    [
        (
            'name: "m"\nmax_batchsize: 3',
            'Message type "inference.ModelConfig" has no field named "max_batchsize".',
            "did you mean max_batch_size?",
            2,
            1,
        ),
        (
            "dynamic_batching { max_queue_delay: 3 }",
            'Message type "inference.ModelDynamicBatching" has no field named "max_queue_delay".',
            QUEUE_DELAY_HINT,
            1,
            20,
        ),
        (
            "preferred_batch_size: 3",
            'Message type "inference.ModelConfig" has no field named "preferred_batch_size".',
            "it belongs here: dynamic_batching.preferred_batch_size, sequence_batching.oldest.preferred_batch_size",
            1,
            1,
        ),
        ('max_batch_size: "a"', 'Couldn\'t parse integer: "a"', None, 1, 17),
        ("max_batch_size: 99999999999", "Value out of range: 99999999999", None, 1, 17),
        ('name: "a', "String missing ending quote: '\"a'", None, 1, 7),
        ('input { name: "a"', 'Expected "}".', None, 1, 15),
        (
            "instance_group [ { kind: KIND_TPU } ]",
            'Enum type "inference.ModelInstanceGroup.Kind" has no value named KIND_TPU.',
            "did you mean KIND_GPU?",
            1,
            26,
        ),
        (
            "[foo.name] { a: 1 }",
            'Message type "inference.ModelConfig" does not have extensions.',
            "it belongs here: name, input[0].name, output[0].name",
            1,
            6,
        ),
    ],
)
def test_an_error_in_the_text_names_its_line_column_and_cure(
    text: str, message: str, hint: str | None, line: int, column: int
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        codec.parse(text)
    assert caught.value.message == f"config.pbtxt, line {line}, column {column}: {message}"
    assert caught.value.hint == hint
    assert caught.value.details == {"line": line, "column": column}


def test_two_schedulers_at_once_are_refused_in_text_and_tree() -> None:
    with pytest.raises(ConfigInvalid, match="another member of oneof"):
        codec.parse("dynamic_batching {} sequence_batching {}")
    with pytest.raises(ConfigInvalid) as caught:
        codec.check({"dynamic_batching": {}, "sequence_batching": {}})
    assert caught.value.message == "sequence_batching cannot stand beside dynamic_batching"


@pytest.mark.parametrize(
    ("tree", "message", "hint"),
    [
        ({"max_batch_sizes": 1}, "max_batch_sizes is not a field of Triton's model configuration", "did you mean max_batch_size?"),
        (
            {"instance_group": [{"knd": "KIND_CPU"}]},
            "instance_group[0].knd is not a field of Triton's model configuration",
            "did you mean kind?",
        ),
        (
            {"instance_group": [{"kind": "kind_cpu"}]},
            "instance_group[0].kind must be one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL, not 'kind_cpu'",
            "did you mean KIND_CPU?",
        ),
        ({"instance_group": [{"kind": 7}]}, "instance_group[0].kind must be one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL, not 7", None),
        ({"max_batch_size": True}, "max_batch_size must be a number, not True", None),
        ({"max_batch_size": 1.0}, "max_batch_size must be a whole number, not 1.0", None),
        ({"max_batch_size": None}, "max_batch_size must be a number, not None", None),
        ({"max_batch_size": 2**31}, "max_batch_size must be a whole number from -2147483648 to 2147483647, not 2147483648", None),
        ({"name": 3}, "name must be text, not 3", None),
        ({"name": "\ud800"}, "name must be text without lone surrogates, not '\\ud800'", None),
        ({"input": {"name": "x"}}, "input must be a list, not a dict", None),
        ({"input": "x"}, "input must be a list, not 'x'", None),
        ({"input": [[[[]]]]}, "input[0] must be an object of fields, not a list", None),
        ({"parameters": []}, "parameters must be an object, not a list", None),
        ({"parameters": {"k": "v"}}, 'parameters["k"] must be an object of fields, not \'v\'', None),
        ({"response_cache": {"enable": "true"}}, "response_cache.enable must be true or false, not 'true'", None),
    ],
)  # fmt: skip
def test_a_tree_that_the_schema_does_not_allow_is_refused_with_its_path(
    tree: JsonObject, message: str, hint: str | None
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        codec.check(tree)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    "text",
    [
        "input{" * (MAX_TEXT // 6),
        "[" * MAX_TEXT,
        'input{name:"a"}' * (MAX_TEXT // 15),
        "input{dims:[" + "1," * (MAX_TEXT // 2 - 10) + "1]}",
        'name: "' + "x" * (MAX_TEXT - 10),
        "input" * (MAX_TEXT // 5),
        "#" * MAX_TEXT,
        "\n" * MAX_TEXT,
    ],
)
def test_the_worst_text_that_is_read_is_read_or_refused_within_seconds(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(ConfigInvalid):
        codec.parse(text)
    assert time.process_time() - start < 10


def test_a_text_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(ConfigInvalid, match="262145 characters is too large"):
        codec.parse(" " * (MAX_TEXT + 1))


def test_a_tree_whose_text_could_not_be_read_again_is_refused() -> None:
    tree: JsonObject = {"input": [{"name": "x" * 100}] * 3000}
    for refuse in (codec.check, codec.render):
        with pytest.raises(ConfigInvalid, match="is too large"):
            refuse(tree)


def _value(field: FieldDescriptor) -> st.SearchStrategy[object]:
    kinds: dict[int, st.SearchStrategy[object]] = {
        FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
        FieldDescriptor.CPPTYPE_STRING: st.text(st.characters(codec="utf-8"), max_size=8),
    }
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return kinds[field.cpp_type]


@st.composite
def messages(draw: st.DrawFn, message: Message, budget: int = 6) -> Message:
    """Fill `message` with up to `budget` fields of its schema, all the way down."""
    schema = message.DESCRIPTOR
    assert isinstance(schema, Descriptor)
    for field in draw(st.lists(st.sampled_from(list(schema.fields)), max_size=budget)) if schema.fields else []:
        current = getattr(message, field.name)
        if entry := map_entry(field):
            key = draw(_value(entry[0]))
            if entry[1].message_type is None:
                current[key] = draw(_value(entry[1]))
            else:
                draw(messages(current[key], budget - 2))
        elif field.message_type is not None:
            child = current.add() if field.is_repeated else current
            child.SetInParent()
            draw(messages(child, budget - 2))
        elif field.is_repeated:
            current.extend(draw(st.lists(_value(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_value(field)))
    return message


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_round_trips_lose_nothing(data: st.DataObject) -> None:
    message = data.draw(messages(model_config_pb2.ModelConfig()))
    tree = tree_of(message)
    assert codec.check(tree) == tree
    assert codec.parse(codec.render(tree)) == tree
    assert text_format.Parse(codec.render(tree), model_config_pb2.ModelConfig()) == message
    canonical_bytes(tree)  # no floats, no unsafe integers: it has a digest
