# Canonical JSON (RFC 8785) and the digests made of it.
"""Digests are taken over RFC 8785 bytes of JSON without floats; integers beyond 2**53 are written as strings by whoever
makes the tree. Two equal trees therefore have one digest on every machine and in every version of Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from controlplane.errors import InvalidInput

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]
JsonObject = dict[str, Json]

_SAFE_INTEGER = 2**53 - 1


def canonical_bytes(value: Json) -> bytes:
    """RFC 8785 encoding of `value`; raises InvalidInput for floats, unsafe integers and lone surrogates."""
    try:
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text with a lone surrogate cannot be digested: {error}") from None


def digest(value: Json) -> str:
    """`sha256:<hex>` of the canonical bytes."""
    return digest_bytes(canonical_bytes(value))


def digest_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _ordered(value: Json) -> Json:
    """The same tree with its keys in order, and nothing in it that could be written in two ways."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise InvalidInput(f"the integer {value} is beyond 2**53; write it as a string")
        return value
    if isinstance(value, float):
        raise InvalidInput(f"a float ({value!r}) has no canonical form here; write it as a string")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"the key {key!r} is not a string")
        return {key: _ordered(value[key]) for key in sorted(value, key=_utf16)}
    return [_ordered(item) for item in value]


def _utf16(key: str) -> bytes:
    # RFC 8785 sorts by UTF-16 code units, which differs from code points beyond the basic plane.
    return key.encode("utf-16-be", "surrogatepass")
