# HdrHistogram's V2 encoding, which its libraries in every language read: counts by value, three digits exact, in little room.
"""Values below 2048 are counted one by one; above, each doubling has 1024 equal buckets. The counts, with runs of zeros as
one negative number, are ZigZag LEB128 numbers behind a head, deflated and written as base64.
https://github.com/HdrHistogram/HdrHistogram/blob/master/src/main/java/org/HdrHistogram/AbstractHistogram.java
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.int64]

HIGHEST = 3_600_000_000_000
"""An hour in ns; what is longer counts as that."""
_DIGITS = 3
_HALF_BITS = 10
_HALF = 1 << _HALF_BITS
_HEAD = struct.Struct(">iiiiqqd")
_OUTER = struct.Struct(">ii")
_COOKIE, _DEFLATED_COOKIE = 0x1C849313, 0x1C849314
_MOST_BYTES = 1 << 20
"""Of all buckets, each with a count as large as can be."""
_HIGHEST_PLACE = 64 << _HALF_BITS


def encode(values: Values) -> str:
    """Whole numbers, here nanoseconds, in any order."""
    bounded = np.clip(values, 0, HIGHEST)
    places, counts = np.unique(_place(bounded), return_counts=True)
    payload = bytearray()
    following = 0
    for place, count in zip(places.tolist(), counts.tolist(), strict=True):
        if place > following:
            _append(payload, following - place)
        _append(payload, count)
        following = place + 1
    head = _HEAD.pack(_COOKIE, len(payload), 0, _DIGITS, 1, HIGHEST, 1.0)
    deflated = zlib.compress(head + bytes(payload))
    return base64.b64encode(_OUTER.pack(_DEFLATED_COOKIE, len(deflated)) + deflated).decode()


def decode(text: str) -> tuple[Values, Values]:
    """The lowest value of each bucket that is not empty, and its count, of what `encode` wrote. Raises ValueError for anything else,
    whoever wrote it: nothing unpacks to more than a histogram can have."""
    try:
        raw = base64.b64decode(text, validate=True)
        cookie, length = _OUTER.unpack_from(raw)
        data = zlib.decompressobj().decompress(raw[_OUTER.size : _OUTER.size + length], _MOST_BYTES)
        inner, size, _, digits, *_ = _HEAD.unpack_from(data)
        if (cookie, inner, digits) != (_DEFLATED_COOKIE, _COOKIE, _DIGITS):
            raise ValueError("no HdrHistogram of three digits")
        places, counts, place, at = [], [], 0, _HEAD.size
        while at < _HEAD.size + size:
            number, at = _read(data, at)
            if place > _HIGHEST_PLACE:
                raise ValueError("a HdrHistogram with buckets beyond its highest value")
            if number < 0:
                place -= number
                continue
            if number:
                places.append(place)
                counts.append(number)
            place += 1
        return _lowest(np.array(places, np.int64)), np.array(counts, np.int64)
    except (struct.error, zlib.error, IndexError, OverflowError) as error:
        raise ValueError(f"no HdrHistogram: {error}") from None


def _place(values: Values) -> Values:
    """The index of a value's bucket. frexp's exponent of a whole number below 2**53 is how many bits it has."""
    bits = np.frexp(np.maximum(values, 2 * _HALF - 1).astype(float))[1].astype(np.int64)
    bucket = bits - (_HALF_BITS + 1)
    return np.asarray((bucket << _HALF_BITS) + (values >> bucket))


def _lowest(places: Values) -> Values:
    bucket = np.maximum((places >> _HALF_BITS) - 1, 0)
    return np.asarray((places - (bucket << _HALF_BITS)) << bucket)


def _append(out: bytearray, number: int) -> None:
    """ZigZag LEB128, whose ninth byte, were it needed, would hold eight bits: no count here is that large."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    raise ValueError("a HdrHistogram with a count that has no end")
