# The client's half of HTTP/2 for unary gRPC calls: bytes in, finished calls out. It opens no socket and reads no clock.
"""RFC 9113 and gRPC over HTTP/2, cut down to what one POST path needs, so that a call costs few Python operations.

The header table is declared empty, so header blocks without state can be compared as bytes. Whatever the peer sends that
breaks the rules ends the connection by `Broken`; every call in flight is then answered by `abandon`, none twice.
"""

from __future__ import annotations

from collections import deque

import hpack

from clients.load.calls import Call
from clients.load.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_STREAMS,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    TABLE_SIZE,
    UPDATE,
    Broken,
    block_of,
    frame,
    setting,
    settings_of,
    unpadded,
)
from clients.load.grpc_status import INTERNAL, OF_RESET, OK, REFUSED, UNAVAILABLE, UNKNOWN, Status, of_headers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_MESSAGE = 2**31 - 1
_WINDOW = 2**31 - 1
_OUR_MAX_FRAME = 2**20
_MAX_HEADER_BLOCK = 2**16
_MAX_ID = 2**31 - 1
_CACHED_BLOCKS = 64
_MOST_OWED = 10_000


class Http2:
    """One connection. `output` is what has to be sent; whoever sends it clears it.

    `start` begins a call, `receive` takes what came and returns the calls that it ended, in order. Calls over the peer's
    limit of streams wait inside; what exceeds a flow-control window is sent when the peer opens it.
    """

    def __init__(
        self, authority: str, path: str, metadata: tuple[tuple[str, str], ...] = (), *, keep: bool = False
    ) -> None:
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        self._block = encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in head], huffman=False)
        self._head = len(self._block).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS))
        self._keep = keep
        self._decoder = hpack.Decoder(max_header_list_size=_MAX_HEADER_BLOCK)
        self._known: dict[bytes, Status | None] = {}
        self._acknowledged = False
        self._calls: dict[int, Call] = {}
        self._waiting: deque[Call] = deque()
        self._partial: deque[Call] = deque()
        self._rest = b""
        self._next = 1
        self._their_streams = 2**31
        self._their_window = 65535
        self._their_frame = 16384
        self._send_window = 65535
        self._consumed = 0
        self._owed = 0
        self._block_of: tuple[Call | None, int, bytearray] | None = None
        self._ended: list[Call] = []
        self.last: int | None = None
        """From GOAWAY: the last stream that the peer answers. No call may be started any more."""
        settings = setting(TABLE_SIZE, 0) + setting(2, 0) + setting(INITIAL_WINDOW, _WINDOW)
        settings += setting(MAX_FRAME, _OUR_MAX_FRAME)
        self.output = bytearray(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.output += frame(UPDATE, 0, 0, (_WINDOW - 65535).to_bytes(4, "big"))

    @property
    def in_flight(self) -> int:
        return len(self._calls) + len(self._waiting)

    @property
    def open(self) -> bool:
        """Whether calls may be started: no GOAWAY came and stream ids are left."""
        return self.last is None and self._next <= _MAX_ID

    def start(self, call: Call) -> None:
        """`call.message` is a gRPC message with its prefix of five bytes."""
        if len(self._calls) >= self._their_streams:
            self._waiting.append(call)
        else:
            self._begin(call)

    def ended(self) -> list[Call]:
        """The calls that ended in the `receive` that was broken off."""
        return self._ended

    def older(self, sent: int) -> list[Call]:
        """Calls that were sent before that time."""
        return [call for call in (*self._calls.values(), *self._waiting) if call.sent < sent]

    def cancel(self, call: Call) -> None:
        """Forget a call; the peer is told when it knows of it."""
        if call.stream in self._calls:
            del self._calls[call.stream]
            call.unsent = None
            self.output += frame(RST, 0, call.stream, (8).to_bytes(4, "big"))
            self._admit()
        elif call in self._waiting:
            self._waiting.remove(call)

    def abandon(self) -> list[Call]:
        """Every call that has no end yet; the connection holds none afterwards."""
        left = [*self._calls.values(), *self._waiting]
        self._calls.clear()
        self._waiting.clear()
        self._partial.clear()
        return left

    def _begin(self, call: Call) -> None:
        stream = self._next
        self._next += 2
        call.stream = stream
        self._calls[stream] = call
        if self._keep:
            call.body = bytearray()
        message = call.message
        size = len(message)
        name = stream.to_bytes(4, "big")
        out = self.output
        out += self._head
        out += name
        out += self._block
        if size <= self._send_window and size <= self._their_window and size <= self._their_frame:
            self._send_window -= size
            out += size.to_bytes(3, "big")
            out += b"\x00\x01"
            out += name
            out += message
            return
        call.unsent = memoryview(message)
        call.window = self._their_window
        self._send_on(call)

    def _push(self) -> None:
        """Send on what was too large, in turn, as far as the windows let it."""
        for _ in range(len(self._partial)):
            if not self._send_window:
                return
            self._send_on(self._partial.popleft())

    def _send_on(self, call: Call) -> None:
        while call.unsent is not None:
            size = min(len(call.unsent), self._send_window, call.window, self._their_frame)
            if size <= 0 < len(call.unsent):
                self._partial.append(call)
                return
            self._send_window -= size
            call.window -= size
            flags = END_STREAM if size == len(call.unsent) else 0
            self.output += frame(DATA, flags, call.stream, bytes(call.unsent[:size]))
            call.unsent = None if flags else call.unsent[size:]

    def _admit(self) -> None:
        while self._waiting and len(self._calls) < self._their_streams and self.open:
            self._begin(self._waiting.popleft())

    def receive(self, data: bytes) -> list[Call]:
        """Raises Broken. Calls that ended before the breach are in `ended`."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        ended = self._ended = []
        while end - at >= 9:
            size = int.from_bytes(data[at : at + 3], "big")
            stop = at + 9 + size
            if size > _OUR_MAX_FRAME:
                raise Broken(f"a frame of {size} bytes, {_OUR_MAX_FRAME} are the limit")
            if stop > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & _MAX_ID
            self._frame(data[at + 3], data[at + 4], stream, data[at + 9 : stop])
            at = stop
        self._rest = data[at:]
        if ended and self._waiting:
            self._admit()
        return ended

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block_of is not None and kind != CONTINUATION:
            raise Broken("a header block was interrupted by another frame")
        if kind == DATA:
            self._data(flags, stream, payload)
        elif kind == HEADERS:
            self._headers(flags, stream, payload)
        elif kind == CONTINUATION:
            self._continuation(flags, stream, payload)
        elif kind == UPDATE:
            self._update(stream, payload)
        elif kind == PING:
            if len(payload) != 8 or stream:
                raise Broken("a malformed PING")
            if not flags & ACK:
                self._acknowledge(frame(PING, ACK, 0, payload))
        elif kind == SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == RST:
            self._reset(stream, payload)
        elif kind == GOAWAY:
            self._goaway(stream, payload)
        elif kind == PUSH:
            raise Broken("a PUSH_PROMISE, which was not allowed")
        elif kind == PRIORITY and (len(payload) != 5 or not stream):
            raise Broken("a malformed PRIORITY")

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= 2**30:
            self.output += frame(UPDATE, 0, 0, self._consumed.to_bytes(4, "big"))
            self._consumed = 0
        call = self._calls.get(stream)
        if call is None:
            self._known_stream(stream)
            return
        if not call.opened:
            raise Broken(f"data before headers on stream {stream}")
        if flags & PADDED:
            payload = unpadded(payload)
        if call.size < 5:
            call.prefix += payload[: 5 - call.size]
        call.size += len(payload)
        if call.body is not None:
            call.body += payload
        if flags & END_STREAM:
            self._end(call, call.status or Status(UNKNOWN, "the answer ended without trailers"))

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & (PADDED | PRIORITIZED):
            payload = block_of(flags, payload)
        call = self._calls.get(stream)
        if call is None:
            self._known_stream(stream)
        if flags & END_HEADERS:
            self._decoded(call, flags, payload)
        else:
            self._block_of = (call, (stream << 8) | flags, bytearray(payload))

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block_of is None or self._block_of[1] >> 8 != stream:
            raise Broken("a CONTINUATION of nothing")
        call, known, block = self._block_of
        block += payload
        if len(block) > _MAX_HEADER_BLOCK:
            raise Broken(f"a header block of more than {_MAX_HEADER_BLOCK} bytes")
        if flags & END_HEADERS:
            self._block_of = None
            self._decoded(call, known & 0xFF, bytes(block))

    def _decoded(self, call: Call | None, flags: int, block: bytes) -> None:
        """A whole header block. Every one is decoded or known, also of calls that were given up: the decoder has state."""
        end = bool(flags & END_STREAM)
        known = self._known
        if block in known:
            status = known[block]
        else:
            try:
                headers = self._decoder.decode(block)
            except (hpack.HPACKError, UnicodeDecodeError, ValueError) as error:
                raise Broken(f"a header block that cannot be decoded: {error}") from None
            status = of_headers((str(name), str(value)) for name, value in headers)
            if self._acknowledged and self._decoder.header_table_size == 0 and len(known) < _CACHED_BLOCKS:
                known[block] = status
        if call is None:
            return
        if not end:
            if call.opened:
                raise Broken(f"headers twice on stream {call.stream}")
            if status is not None and status.code:
                call.status = status  # not a gRPC answer; the reason is told when the call ends
            call.opened = True
            return
        self._end(call, call.status or status or Status(UNKNOWN, "the trailers have no grpc-status"))

    def _end(self, call: Call, status: Status) -> None:
        if status.code == OK:
            prefix = call.prefix
            if len(prefix) < 5 or prefix[0] or call.size != 5 + int.from_bytes(prefix[1:], "big"):
                status = Status(INTERNAL, "the answer is not one whole, uncompressed message")
        call.status = status
        del self._calls[call.stream]
        if call.unsent is not None:
            call.unsent = None
            self.output += frame(RST, 0, call.stream, (0).to_bytes(4, "big"))
        self._ended.append(call)

    def _known_stream(self, stream: int) -> None:
        if stream == 0 or stream % 2 == 0 or stream >= self._next:
            raise Broken(f"a frame on stream {stream}, which was never opened")

    def _update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken("a malformed WINDOW_UPDATE")
        more = int.from_bytes(payload, "big") & _MAX_ID
        if more == 0:
            raise Broken("a WINDOW_UPDATE of nothing")
        if stream == 0:
            self._send_window += more
            if self._send_window > _WINDOW:
                raise Broken("the connection's window grew beyond its limit")
        else:
            call = self._calls.get(stream)
            if call is None:
                self._known_stream(stream)
                return
            if call.unsent is None:
                return
            call.window += more
            if call.window > _WINDOW:
                raise Broken(f"the window of stream {stream} grew beyond its limit")
        if self._partial:
            self._push()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % 6 or (flags & ACK and payload):
            raise Broken("malformed SETTINGS")
        if flags & ACK:
            self._acknowledged = True
            self._decoder.max_allowed_table_size = 0
            return
        for key, value in settings_of(payload):
            if key == MAX_STREAMS:
                self._their_streams = value
            elif key == INITIAL_WINDOW:
                if value > _WINDOW:
                    raise Broken(f"an initial window of {value}")
                for call in self._partial:
                    call.window += value - self._their_window
                self._their_window = value
            elif key == MAX_FRAME:
                if not 16384 <= value < 2**24:
                    raise Broken(f"a maximum frame size of {value}")
                self._their_frame = value
        self._acknowledge(frame(SETTINGS, ACK, 0))
        self._admit()
        self._push()

    def _acknowledge(self, answer: bytes) -> None:
        self._owed = self._owed + 1 if self.output else 1
        if self._owed > _MOST_OWED:
            raise Broken("a flood of frames whose answers are not taken")
        self.output += answer

    def _reset(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken("a malformed RST_STREAM")
        call = self._calls.get(stream)
        if call is None:
            self._known_stream(stream)
            return
        code = int.from_bytes(payload, "big")
        call.unsent = None
        call.lost = code != REFUSED
        self._end(call, call.status or OF_RESET.get(code, Status(UNKNOWN, f"the stream was reset with code {code}")))

    def _goaway(self, stream: int, payload: bytes) -> None:
        if stream or len(payload) < 8:
            raise Broken("a malformed GOAWAY")
        last, code = int.from_bytes(payload[:4], "big") & _MAX_ID, int.from_bytes(payload[4:8], "big")
        self.last = last if self.last is None else min(last, self.last)
        reason = payload[8:200].decode("utf-8", "replace")
        status = Status(UNAVAILABLE, f"the server goes away (code {code}) {reason}".rstrip())
        for call in [call for number, call in self._calls.items() if number > self.last]:
            self._end(call, status)
        while self._waiting:
            call = self._waiting.popleft()
            call.status = status
            self._ended.append(call)
