# HTTP/2's frames as bytes: their kinds, flags and settings.
from __future__ import annotations

from collections.abc import Iterator

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
TABLE_SIZE, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 3, 4, 5


class Broken(Exception):
    """The peer broke HTTP/2's rules, or ended the connection by an error of its own."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def setting(key: int, value: int) -> bytes:
    return key.to_bytes(2, "big") + value.to_bytes(4, "big")


def settings_of(payload: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(payload), 6):
        yield int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")


def block_of(flags: int, payload: bytes) -> bytes:
    """The header block in a HEADERS frame that is padded or has a priority."""
    if flags & PADDED:
        payload = unpadded(payload)
    if flags & PRIORITIZED:
        if len(payload) < 5:
            raise Broken("malformed HEADERS")
        payload = payload[5:]
    return payload


def unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Broken("padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
