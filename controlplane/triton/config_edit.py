# Setting and unsetting by path: the schema decides how a path goes on and how a value's text is read.
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_paths import Append, Field, Index, Key, Step, parse_path, path_text
from controlplane.errors import ConfigInvalid, ConfigPathInvalid
from controlplane.triton.config_fields import ROOT, Scalar, map_entry, nearest, scalar, tree_of, unknown_field_hint
from controlplane.triton.config_text import parse_into

MAX_VALUE = 64 * 1024
"""Characters of one value that are read."""

_Edit = Callable[["_Place", Json], Json]
"""The new value (None: gone) of a place from the one that it has (None: nothing)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path has come to: `field` as a whole, one `element` of it, or, without field, the whole config."""

    field: FieldDescriptor | None
    element: bool
    path: tuple[Step, ...]

    @property
    def message(self) -> Descriptor | None:
        """The message type of the value here, when it is one message."""
        if self.field is None:
            return ROOT
        if self.field.is_repeated and not self.element:
            return None
        return self.field.message_type

    @property
    def entry(self) -> tuple[FieldDescriptor, FieldDescriptor] | None:
        return map_entry(self.field) if self.field is not None and not self.element else None

    def child(self, field: FieldDescriptor, step: Step, *, element: bool) -> _Place:
        return _Place(field, element, (*self.path, step))


def set_value(config: JsonObject, path: str, text: str) -> JsonObject:
    if len(text) > MAX_VALUE:
        raise ConfigInvalid(f"a value of {len(text)} characters is too large", hint=f"at most {MAX_VALUE} are read")
    steps = parse_path(path)
    return _at(_Place(None, False, ()), config, steps, lambda place, _: _read(place, text))


def check_path(path: str) -> None:
    """Raises ConfigPathInvalid for a place that no config has, whatever is set in it."""
    place = _Place(None, False, ())

    def come(to: _Place, _: Json) -> Json:
        nonlocal place
        place = to
        return None

    for step in parse_path(path):
        at, listed = place, place.field is not None and place.field.is_repeated and not place.element
        any_element = listed and place.entry is None and not isinstance(step, Field)
        _walk(place, None, (Append() if any_element else step,), come)
        place = replace(place, path=(*at.path, step))


def unset_value(config: JsonObject, path: str) -> JsonObject:
    def remove(place: _Place, value: Json) -> Json:
        if value is None:
            raise ConfigPathInvalid(
                f"there is nothing at {path_text(place.path)}", hint="see `config show` for what is set"
            )
        return None

    return _at(_Place(None, False, ()), config, parse_path(path), remove)


def _at(place: _Place, config: JsonObject, steps: tuple[Step, ...], edit: _Edit) -> JsonObject:
    return cast("JsonObject", _walk(place, config, steps, edit))


def _walk(place: _Place, value: Json, steps: tuple[Step, ...], edit: _Edit) -> Json:
    if not steps:
        return edit(place, value)
    if place.entry is not None:
        return _walk_map(place, cast("JsonObject | None", value) or {}, steps, edit)
    if place.field is not None and place.field.is_repeated and not place.element:
        return _walk_list(place, cast("list[Json] | None", value) or [], steps, edit)
    if place.message is None:
        raise _lost(place, steps[0], "is a single value; nothing lies below it", hint="end the path there")
    return _walk_message(place, place.message, cast("JsonObject | None", value), steps, edit)


def _walk_message(
    place: _Place, message: Descriptor, value: JsonObject | None, steps: tuple[Step, ...], edit: _Edit
) -> Json:
    step = steps[0]
    if not isinstance(step, Field):
        raise _lost(
            place, step, "is a message", hint="go on with .field; known here: " + ", ".join(message.fields_by_name)
        )
    field = message.fields_by_name.get(step.name)
    if field is None:
        raise _lost(place, step, "has no such field", hint=unknown_field_hint(step.name, list(message.fields_by_name)))
    old = (value or {}).get(step.name)
    new = _walk(place.child(field, step, element=False), old, steps[1:], edit)
    kept = {name: item for name, item in (value or {}).items() if name != step.name}
    if new is None or new == []:
        return kept
    if field.containing_oneof is not None:
        rivals = {rival.name for rival in field.containing_oneof.fields}
        kept = {name: item for name, item in kept.items() if name not in rivals}
    return {**kept, step.name: new}


def _walk_map(place: _Place, value: JsonObject, steps: tuple[Step, ...], edit: _Edit) -> Json:
    step, entry = steps[0], place.entry
    key = (
        step.text
        if isinstance(step, Key)
        else step.name
        if isinstance(step, Field)
        else str(getattr(step, "number", ""))
    )
    if entry is None or not key:
        raise _lost(place, step, "is a map", hint='go on with ["key"]')
    new = _walk(place.child(entry[1], Key(key), element=True), value.get(key), steps[1:], edit)
    kept = {name: item for name, item in value.items() if name != key}
    return (kept or None) if new is None else {**kept, key: new}


def _walk_list(place: _Place, value: list[Json], steps: tuple[Step, ...], edit: _Edit) -> Json:
    step, field = steps[0], cast("FieldDescriptor", place.field)
    at = _position(place, value, step)
    old = value[at] if at < len(value) else None
    new = _walk(place.child(field, step, element=True), old, steps[1:], edit)
    return [*value[:at], *([] if new is None else [new]), *value[at + 1 :]]


def _position(place: _Place, value: list[Json], step: Step) -> int:
    where = path_text(place.path)
    match step:
        case Append():
            return len(value)
        case Index(number) if number < len(value):
            return number
        case Index():
            raise _lost(place, step, f"has {len(value)} elements", hint=f"{where}[+] adds one")
        case Key(name):
            names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in value]
            if name in names:
                return names.index(name)
            similar = nearest(name, names)
            hint = f"did you mean {similar}?" if similar else f"{where}[+] adds one"
            raise _lost(place, step, f"has no element named {name!r}", hint=hint)
        case Field(name):
            raise _lost(
                place, step, "is a list", hint=f"write {where}[0].{name} for its first element, {where}[+] to add one"
            )


def _lost(place: _Place, step: Step, why: str, *, hint: str) -> ConfigPathInvalid:
    path = path_text((*place.path, step))
    return ConfigPathInvalid(
        f"config path {path} leads nowhere: {path_text(place.path) or 'the config'} {why}",
        hint=hint,
        details={"path": path},
    )


def _read(place: _Place, text: str) -> Json:
    """The value that `text` says here: a message, list or map as JSON or pbtxt, a scalar as its plain text."""
    field, path = place.field, path_text(place.path)
    if field is None:
        raise ConfigPathInvalid("the empty path names the whole config", hint="name a field")
    if place.message is None and place.entry is None and (place.element or not field.is_repeated):
        return _scalar_text(field, text, path)
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return cast("Json", json.loads(text))
        except (ValueError, RecursionError):
            pass  # it may be pbtxt, which has braces and brackets too
    if place.entry is not None:
        raise ConfigInvalid(f"{path} is a map: its value is a JSON object", hint=f'or set one entry, {path}["key"]')
    return _read_pbtxt(place, field, text, path)


def _read_pbtxt(place: _Place, field: FieldDescriptor, text: str, path: str) -> Json:
    body = text.strip()
    if place.message is None:
        message = GetMessageClass(cast("Descriptor", field.containing_type))()
        body = f"{field.name}: {body}" if body.startswith("[") else f"{field.name}: [{body}]"
    else:
        message = GetMessageClass(place.message)()
        body = body[1:-1] if body.startswith("{") and body.endswith("}") else body
    what = f"the value for {path} is neither JSON nor pbtxt"
    parse_into(message, body, what, hint="for example " + _example(place, field))
    tree = tree_of(message)
    return tree.get(field.name, []) if place.message is None else tree


def _example(place: _Place, field: FieldDescriptor) -> str:
    if place.message is not None:
        names = [inner.name for inner in place.message.fields]
        return f'{{"{names[0]}": …}} or {names[0]}: …' if names else "{}"
    return '["a", "b"]' if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else "[1, 2]"


def _scalar_text(field: FieldDescriptor, text: str, path: str) -> Scalar:
    plain = text if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else text.strip()
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return scalar(field, {"true": True, "false": False}.get(plain.lower(), plain), path)
    scalar(field, plain, path)
    return plain
