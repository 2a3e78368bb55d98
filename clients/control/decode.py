# JSON trees to the dataclasses of `types`, by their annotations.
from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def decode(kind: type[T], tree: object) -> T:
    """`tree` as a `kind`. Fields that the class does not have are ignored, so that an older client reads a newer API.

    Raises KeyError or TypeError when a field is missing or is something else: that is a bug on one of the two sides.
    """
    value: T = _value(kind, tree)
    return value


@cache
def _hints(kind: type[object]) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, tree: Any) -> Any:
    origin = get_origin(kind)
    if origin is UnionType:
        if tree is None:
            return None
        options = [option for option in get_args(kind) if option is not NoneType]
        return _value(options[0], tree) if len(options) == 1 else tree  # several: scalars, which need no reading
    if origin is tuple:
        return tuple(_value(get_args(kind)[0], item) for item in tree)
    if is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]  # a dataclass type is hashable; mypy sees an instance too
        return kind(**{f.name: _value(hints[f.name], tree[f.name]) for f in fields(kind)})  # type: ignore[operator]
    if origin is dict or kind in (dict, object):
        return tree
    if not isinstance(tree, kind):
        raise TypeError(f"{tree!r} is not a {kind.__name__}")
    return tree
