# JSON held against the table of SCHEMA.md: every value has its line with its type.
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clients import load

DOCUMENT = Path(load.__file__).with_name("SCHEMA.md")
_LINE = re.compile(r"^\| `([^`]+)` \| ([a-z, ]+) \|", re.MULTILINE)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def documented() -> dict[str, set[str]]:
    return {path: set(types.split(", ")) for path, types in _LINE.findall(DOCUMENT.read_text())}


def values(tree: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf's path, with `[]` for an element and real keys, and its type."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from values(value, f"{path}\0{key}")
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value, f"{path}[]")
    else:
        yield path[1:], _TYPES[type(tree)]


def match(tree: object) -> tuple[set[str], list[str]]:
    """The paths of the document that are there, and what is there without one."""
    lines = {path: re.compile(_pattern(path)) for path in documented()}
    types = documented()
    used, strange = set(), []
    for path, kind in values(tree):
        fitting = [
            line
            for line, pattern in lines.items()
            if pattern.fullmatch(path) and (kind in types[line] or (kind == "integer" and "number" in types[line]))
        ]
        used |= set(fitting)
        if not fitting:
            strange.append(f"{path.replace(chr(0), '.')}: {kind}")
    return used, strange


def _pattern(path: str) -> str:
    return "\0".join(re.escape(part).replace(r"\*", "[^\0]+?") for part in path.split("."))
