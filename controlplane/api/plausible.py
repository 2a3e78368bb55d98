# What no field of ours may hold: refused before an endpoint, and so a database, meets it.
"""PostgreSQL takes no NUL in text and no integer beyond 64 bits, SQLite no lone surrogate; each would be an error of theirs
somewhere in the middle of the work."""

from __future__ import annotations

import json

from fastapi import Request

from controlplane.errors import InvalidInput

_DIGITS = 18
_NUMBERS = frozenset({"change", "number", "old", "new", "base", "sweep", "trial", "one", "other"})
"""Parameters that are numbers: a name may be made of digits alone."""


def check_parameters(request: Request) -> None:
    """Of path and query."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        _check(value, name)
        if name in _NUMBERS and len(value) > _DIGITS:
            raise InvalidInput(f"{name} has {len(value)} characters", hint=f"use at most {_DIGITS} digits")


def check_body(raw: bytes) -> None:
    """A body that is no JSON is left to whoever reads it, and says where it is not."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        return
    waiting = [("body", tree)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                _check(key, where)
                waiting.append((f"{where}.{key}", item))
        elif isinstance(value, list):
            waiting += [(f"{where}.{number}", item) for number, item in enumerate(value)]
        else:
            _check(value, where)


def _check(value: object, where: str) -> None:
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        raise InvalidInput(f"{where[:80]} holds a character that is none (NUL or half of a pair)", hint="leave it out")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidInput(f"{where[:80]} is beyond 64 bits", hint="use a smaller number")
