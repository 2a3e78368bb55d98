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
    _refuse_ambiguous(value)
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text with a lone surrogate cannot be digested: {error}") from None


def digest(value: Json) -> str:
    """`sha256:<hex>` of the canonical bytes."""
    return digest_bytes(canonical_bytes(value))


def digest_bytes(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _refuse_ambiguous(value: Json) -> None:
    if isinstance(value, float):
        raise InvalidInput(f"a float ({value!r}) has no canonical form here; write it as a string")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE_INTEGER:
        raise InvalidInput(f"the integer {value} is beyond 2**53; write it as a string")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"the key {key!r} is not a string")
            _refuse_ambiguous(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_ambiguous(item)


def _encode(value: Json) -> str:
    if isinstance(value, Mapping):
        # RFC 8785 sorts by UTF-16 code units, which differs from code points beyond the basic plane.
        items = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_encode(key)}:{_encode(item)}" for key, item in items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_encode(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
