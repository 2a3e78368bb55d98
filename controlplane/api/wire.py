# Domain objects to wire types: fields of the same name are copied, in their form on the wire.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from controlplane.domain.canonical import JsonObject
from controlplane.domain.times import format_instant
from controlplane.errors import InvalidInput

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


def of(kind: type[T], source: object, /, **given: object) -> T:
    """A `kind` whose fields are `given`, or else the attributes of `source`. Times become text, enums their values, sets
    sorted tuples, pairs a dict, and dataclasses the wire type that the field is annotated with."""
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    values = {
        field.name: given[field.name] if field.name in given else _value(hints[field.name], getattr(source, field.name))
        for field in fields(kind)  # type: ignore[arg-type]  # every wire type is a dataclass
    }
    return kind(**values)


def json_object(tree: Mapping[str, object] | None) -> JsonObject:
    """A tree that came as JSON, for the domain; nothing is the empty tree."""
    return cast("JsonObject", dict(tree or {}))


def member(kind: type[E], text: str, what: str) -> E:
    """The member of an enumeration whose value is `text`. Raises InvalidInput, naming them all."""
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(str(each.value) for each in kind)
        raise InvalidInput(f"there is no {what} {text[:80]!r}", hint=f"use one of {known}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(kind) is UnionType:
        options = [option for option in get_args(kind) if option is not NoneType]
        return _value(options[0], value) if len(options) == 1 else value
    if get_origin(kind) is tuple:
        items: Iterable[Any] = sorted(value) if isinstance(value, (set, frozenset)) else value
        return tuple(_value(get_args(kind)[0], item) for item in items)
    if get_origin(kind) is dict:
        return dict(value) if isinstance(value, (Mapping, tuple)) else value.to_json()
    if is_dataclass(kind):
        return of(kind, value)  # type: ignore[arg-type]  # a class, not an instance
    if isinstance(value, datetime):
        return format_instant(value)
    return value.value if isinstance(value, Enum) else value
