# The server's half of HTTP/2 for tests: good frames, and every kind of bad one.
from __future__ import annotations

import hpack

from clients.load.calls import Call
from clients.load.frames import frame
from clients.load.http2 import Http2

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
PATH = "/inference.GRPCInferenceService/ModelInfer"


def opened(*, keep: bool = True) -> Http2:
    """A connection whose preface is out and whose settings the peer has taken."""
    http = Http2("host:1", PATH, keep=keep)
    http.output.clear()
    assert http.receive(frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0)) == []
    http.output.clear()
    return http


def started(http: Http2, count: int, message: bytes = b"\0\0\0\0\x02hi") -> list[Call]:
    calls = [Call(tag, 0, 0, message) for tag in range(count)]
    for call in calls:
        http.start(call)
    return calls


class Peer:
    """Encodes header blocks as a server with a dynamic table and Huffman coding may; `plain` does without either."""

    def __init__(self, *, plain: bool = True) -> None:
        self.encoder = hpack.Encoder()
        self.huffman = not plain
        if plain:
            self.encoder.header_table_size = 0

    def block(self, *headers: tuple[str, str]) -> bytes:
        return self.encoder.encode(headers, huffman=self.huffman)

    def head(self, stream: int) -> bytes:
        block = self.block((":status", "200"), ("content-type", "application/grpc"))
        return frame(HEADERS, END_HEADERS, stream, block)

    def trailers(self, stream: int, status: str = "0", message: str = "") -> bytes:
        headers = [("grpc-status", status), *([("grpc-message", message)] if message else [])]
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, self.block(*headers))

    def answer(self, stream: int, body: bytes = b"yes") -> bytes:
        return self.head(stream) + frame(DATA, 0, stream, prefixed(body)) + self.trailers(stream)


def prefixed(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body
