# Config paths: the one notation in which a place in a config is named, read and written.
"""`dynamic_batching.max_queue_delay_microseconds`, `instance_group[0].count`, `instance_group[+].kind` (append),
`parameters["session.x"].string_value` (map key), `input["image"].dims` (element of a list by its name)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from controlplane.errors import ConfigPathInvalid

_MAX_LENGTH = 1000
_TOKEN = re.compile(
    r"""(?P<dot>\.)?(?P<field>[A-Za-z_][A-Za-z0-9_]*)|\[(?:(?P<index>[0-9]{1,6})|(?P<append>\+)|(?P<key>"(?:[^"\\]|\\.)*"))\]"""
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message; after a map, also the key, when it looks like a field's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    number: int


@dataclass(frozen=True, slots=True)
class Append:
    """One more element at the end of a list."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a map, or the `name` of an element in a list."""

    text: str


Step = Field | Index | Append | Key


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps from the top of the config. Raises ConfigPathInvalid and says at which character."""
    if len(text) > _MAX_LENGTH:
        raise ConfigPathInvalid(
            f"a config path of {len(text)} characters is too long", hint=f"at most {_MAX_LENGTH} are read"
        )
    steps: list[Step] = []
    position = 0
    while position < len(text) or not steps:
        match = _TOKEN.match(text, position)
        step = _step(match, first=not steps) if match else None
        if match is None or step is None:
            raise ConfigPathInvalid(
                f"config path {text!r} cannot be read at character {position + 1}",
                hint='write it like dynamic_batching.max_queue_delay_microseconds, instance_group[0].count or parameters["key"].string_value',
                details={"path": text, "position": position + 1},
            )
        steps.append(step)
        position = match.end()
    return tuple(steps)


def _step(match: re.Match[str], *, first: bool) -> Step | None:
    if match["field"] is not None:
        return Field(match["field"]) if first == (match["dot"] is None) else None
    if first:
        return None
    if match["index"] is not None:
        return Index(int(match["index"]))
    if match["append"] is not None:
        return Append()
    try:
        return Key(json.loads(match["key"]))
    except ValueError:  # an escape that JSON does not have
        return None


def path_text(steps: tuple[Step, ...]) -> str:
    """The path's text; `parse_path` gives the same steps back."""
    parts: list[str] = []
    for step in steps:
        match step:
            case Field(name):
                parts.append(f".{name}" if parts else name)
            case Index(number):
                parts.append(f"[{number}]")
            case Append():
                parts.append("[+]")
            case Key(text):
                parts.append(f"[{json.dumps(text, ensure_ascii=False)}]")
    return "".join(parts)


def meet(one: str, other: str) -> bool:
    """Whether one of the paths leads to the other or into it. An element named by number and one named by key may be the
    same, so they are taken for it."""
    return all(_same(a, b) for a, b in zip(parse_path(one), parse_path(other), strict=False))


def _same(one: Step, other: Step) -> bool:
    match one, other:
        case ((Field(a) | Key(a)), (Field(b) | Key(b))):
            return a == b
        case Index(a), Index(b):
            return a == b
        case _:
            return True
