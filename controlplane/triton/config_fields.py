# ModelConfig messages to JSON trees and back, walking the protobuf descriptors.
"""The tree's normal form: proto field names; 64-bit integers and floats as strings, so that a tree has a digest; enums
by name; what has its default left out, unless its presence means something (`dynamic_batching {}`, a member of a oneof)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

from controlplane.domain.canonical import Json, JsonObject
from controlplane.errors import ConfigInvalid

Scalar = str | int | float | bool

ROOT: Descriptor = model_config_pb2.ModelConfig.DESCRIPTOR

_WIDE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_INTEGER = re.compile(r"-?[0-9]{1,20}")


def map_entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """The fields of a map's key and value; None when the field is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of `known`, one that `name` begins first, upper and lower case alike, or None when nothing is similar."""
    wanted, lowered = name[:100].lower(), {item.lower(): item for item in sorted(known)}
    begun = [item for item in lowered if item.startswith(wanted)]
    return next((lowered[item] for item in begun + difflib.get_close_matches(wanted, list(lowered), n=1)), None)


def unknown_field_hint(name: str, beside: Sequence[str] = ()) -> str:
    """What was probably meant by `name`: its places elsewhere, one of the fields `beside` it, or a similar one."""
    if name in PLACES:
        return "it belongs here: " + ", ".join(PLACES[name][:3])
    if similar := nearest(name, beside):
        return f"did you mean {similar}?"
    if similar := nearest(name, [*PLACES, *_ENUM_NAMES]):
        return "did you mean " + " or ".join(PLACES.get(similar, [similar])[:3]) + "?"
    return "known here: " + ", ".join(sorted(beside or ROOT.fields_by_name))


def _places(message: Descriptor, prefix: str) -> Iterator[tuple[FieldDescriptor, str]]:
    for field in message.fields:
        path = prefix + field.name
        yield field, path
        if entry := map_entry(field):
            inner = entry[1].message_type
            path += '["…"]'
        else:
            inner = field.message_type
            path += "[0]" if field.is_repeated else ""
        if inner is not None:
            yield from _places(inner, path + ".")


PLACES: dict[str, list[str]] = {}
"""The paths at which the schema knows each field name, shortest first."""
_ENUM_NAMES: set[str] = set()
for _field, _path in sorted(_places(ROOT, ""), key=lambda item: (item[1].count("."), len(item[1]), item[1])):
    PLACES.setdefault(_field.name, []).append(_path)
    _ENUM_NAMES.update(value.name for value in (_field.enum_type.values if _field.enum_type else ()))


def tree_of(message: Message) -> JsonObject:
    """The normal form of `message`. An enum number that this schema does not know stays a number."""
    tree: JsonObject = {}
    for field, value in message.ListFields():
        if entry := map_entry(field):
            tree[field.name] = {str(key): _leaf(entry[1], value[key]) for key in sorted(value)}
        elif field.is_repeated:
            tree[field.name] = [_leaf(field, item) for item in value]
        else:
            tree[field.name] = _leaf(field, value)
    return tree


def _leaf(field: FieldDescriptor, value: Message | Scalar) -> Json:
    if isinstance(value, Message):
        return tree_of(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(cast("int", value))
        return known.name if known else value
    if field.cpp_type in _WIDE:
        return str(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return str(np.float32(value))  # the shortest text that reads back as the same 32 bits
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return repr(value)
    return value


def message_of(tree: Mapping[str, Json]) -> model_config_pb2.ModelConfig:
    """The message that `tree` says. Raises ConfigInvalid, naming the path, for what the schema does not allow."""
    config = model_config_pb2.ModelConfig()
    fill(config, tree, "")
    return config


def fill(message: Message, tree: Json, path: str) -> None:
    """Set in the empty `message` what `tree` says; `path` is where it lies, for the error's text."""
    if not isinstance(tree, Mapping):
        raise _wrong(path or "the config", "an object of fields", tree)
    schema = cast("Descriptor", message.DESCRIPTOR)
    chosen: dict[str, str] = {}
    for name, value in tree.items():
        here = f"{path}.{name}" if path else name
        field = schema.fields_by_name.get(name)
        if field is None:
            raise ConfigInvalid(
                f"{here[:300]} is not a field of Triton's model configuration",
                hint=unknown_field_hint(name, list(schema.fields_by_name)),
                details={"path": here[:300]},
            )
        if field.containing_oneof is not None:
            other = chosen.setdefault(field.containing_oneof.name, name)
            if other != name:
                raise ConfigInvalid(
                    f"{here} cannot stand beside {other}", hint="unset one of them", details={"path": here}
                )
        _fill_field(message, field, value, here)


def _fill_field(message: Message, field: FieldDescriptor, value: Json, path: str) -> None:
    if entry := map_entry(field):
        if not isinstance(value, Mapping):
            raise _wrong(path, "an object", value)
        entries = getattr(message, field.name)
        for text, item in value.items():
            here = f"{path}[{json.dumps(text, ensure_ascii=False)}]"
            key = scalar(entry[0], text, here)
            if entry[1].message_type is not None:
                fill(entries[key], item, here)
            else:
                entries[key] = scalar(entry[1], item, here)
    elif field.is_repeated:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _wrong(path, "a list", value)
        if field.message_type is not None:
            for index, item in enumerate(value):
                fill(getattr(message, field.name).add(), item, f"{path}[{index}]")
        else:
            for index, item in enumerate(value):
                getattr(message, field.name).append(scalar(field, item, f"{path}[{index}]"))
    elif field.message_type is not None:
        child: Message = getattr(message, field.name)
        child.SetInParent()
        fill(child, value, path)
    else:
        setattr(message, field.name, scalar(field, value, path))


def scalar(field: FieldDescriptor, value: Json, path: str) -> Scalar:
    """`value` as the field's Python type; numbers may be written as text. Raises ConfigInvalid."""
    if field.enum_type is not None:
        return _enum_number(field.enum_type, value, path)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if isinstance(value, bool):
            return value
        raise _wrong(path, "true or false", value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if isinstance(value, str):
            return _text(value, path)
        raise _wrong(path, "text", value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(path, "a number", value)
    if field.cpp_type in _RANGES:
        if isinstance(value, float) or (isinstance(value, str) and not _INTEGER.fullmatch(value)):
            raise _wrong(path, "a whole number", value)
        low, high = _RANGES[field.cpp_type]
        number = int(value)
        if not low <= number <= high:
            raise _wrong(path, f"a whole number from {low} to {high}", value)
        return number
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise _wrong(path, "a number", value) from None


def _enum_number(enum: EnumDescriptor, value: Json, path: str) -> int:
    names = [item.name for item in enum.values]
    if isinstance(value, str) and value in names:
        return int(enum.values_by_name[value].number)
    error = _wrong(path, "one of " + ", ".join(names), value)
    similar = nearest(str(value)[:100], names)
    error.hint = f"did you mean {similar}?" if similar else None
    raise error


def _text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(path, "text without lone surrogates", value) from None
    return value


def _wrong(path: str, wanted: str, value: Json) -> ConfigInvalid:
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return ConfigInvalid(
        f"{path[:300]} must be {wanted}, not {shown[:100]}", details={"path": path[:300], "wanted": wanted}
    )
