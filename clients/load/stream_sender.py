# Requests over ModelStreamInfer, by grpcio: one stream for each connection, any number of responses to a request.
"""Triton tells of each response whether it is its request's last, once the request asks for that by a parameter; a decoupled
model may end by an empty response, which is no answer. What fails before the model has an error and no such word, and has
ended too. Responses find their calls by the request's id, which is a number of our own.

Triton 2.51 itself often aborts, or loses the answer, when a request that fails before the model (unknown name, wrong type) is
answered soon after another one of its stream: an assertion in its gRPC on two writes at once.
"""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import service_pb2

from clients.inference import open_channel
from clients.load.calls import Call
from clients.load.grpc_sender import (
    COMPRESSIONS,
    FIRST_PAUSE_NS,
    LONGEST_PAUSE_NS,
    PREFIX,
    await_channels,
)
from clients.load.grpc_status import DEADLINE_EXCEEDED, OK, SUCCESS, UNAVAILABLE, UNKNOWN, Status
from clients.load.transports import Via

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
FINAL = "triton_final_response"
_ASKING = service_pb2.ModelInferRequest()
_ASKING.parameters["triton_enable_empty_final_response"].bool_param = True
_ASK = _ASKING.SerializeToString()
_JOIN_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Stream:
    """The requests on their way out, ended by None, and the calls that await responses, by id."""

    requests: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    calls: dict[str, Call] = field(default_factory=dict)
    answered: bool = False
    reader: threading.Thread | None = None
    rpc: grpc.Call | None = None


class StreamSender:
    """A `Transport`. Threads read the streams and note the time of each response in `Call.times`; `turn` judges them."""

    def __init__(
        self,
        address: str,
        metadata: Sequence[tuple[str, str]],
        via: Via,
        *,
        connections: int,
        keep: bool,
        clock: Callable[[], int],
    ) -> None:
        self._channels = [open_channel(address, via.tls, own_connection=True) for _ in range(connections)]
        self._metadata = tuple(metadata)
        self._compression = COMPRESSIONS[via.compression]
        self._keep = keep
        self._clock = clock
        self._slots: list[_Stream | None] = [None] * connections
        self._heard: queue.SimpleQueue[tuple[_Stream, service_pb2.ModelStreamInferResponse | Status, int]]
        self._heard = queue.SimpleQueue()
        self._refused: list[Call] = []
        self._reason = Status(UNAVAILABLE)
        self._turn = self._next = self._retry_at = 0
        self._pause = FIRST_PAUSE_NS
        self.reconnects = -connections

    def connect(self) -> None:
        await_channels(self._channels)
        for number in range(len(self._slots)):
            self._stream(number)

    @property
    def in_flight(self) -> int:
        return sum(len(stream.calls) for stream in self._slots if stream is not None) + len(self._refused)

    @property
    def retry_at(self) -> int:
        return self._retry_at if None in self._slots else 0

    def issue(self, call: Call) -> None:
        self._turn = (self._turn + 1) % len(self._slots)
        stream = self._stream(self._turn)
        if stream is None:
            call.status = self._reason
            self._refused.append(call)
            return
        self._next += 1
        name = str(self._next)
        call.times = array("q")
        stream.calls[name] = call
        # Of a field that comes twice the last counts, and maps are joined: the request itself is serialized but once.
        stream.requests.put(call.message[PREFIX:] + _ASK + _identity(name))

    def turn(self, seconds: float) -> list[Call]:
        ended, self._refused = self._refused, []
        end = self._clock() + int(seconds * 1e9) * (not ended)
        while True:
            left = 0 if ended else max(end - self._clock(), 0) / 1e9
            try:
                stream, said, at = self._heard.get(left > 0, left)
            except queue.Empty:
                if ended or self._clock() >= end:
                    return ended
                continue
            if isinstance(said, Status):
                ended += self._fall(stream, said, at)
            else:
                ended += self._response(stream, said, at)

    def expire(self, before: int) -> list[Call]:
        """A request cannot be taken back from a stream: what it still brings is not looked at."""
        late = []
        for stream in self._slots:
            for name, call in [] if stream is None else list(stream.calls.items()):
                if stream is not None and call.sent < before:
                    del stream.calls[name]
                    call.status, call.lost = Status(DEADLINE_EXCEEDED, "no answer in time"), True
                    late.append(call)
        return late

    def close(self) -> list[Call]:
        streams = [stream for stream in self._slots if stream is not None]
        left = [call for stream in streams for call in stream.calls.values()] + self._refused
        self._slots, self._refused = [None] * len(self._slots), []
        for stream in streams:
            stream.requests.put(None)
            if stream.rpc is not None:
                stream.rpc.cancel()
        for stream in streams:
            if stream.reader is not None:
                stream.reader.join(_JOIN_SECONDS)
        for channel in self._channels:
            channel.close()
        return left

    def _stream(self, number: int) -> _Stream | None:
        stream = self._slots[number]
        if stream is not None:
            return stream
        if self._clock() < self._retry_at:
            return None
        stream = self._slots[number] = _Stream()
        method = self._channels[number].stream_stream(
            STREAM, response_deserializer=service_pb2.ModelStreamInferResponse.FromString
        )
        requests: Iterator[bytes | None] = iter(stream.requests.get, None)
        stream.rpc = method(requests, metadata=self._metadata, compression=self._compression)
        stream.reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        stream.reader.start()
        self.reconnects += 1
        return stream

    def _read(self, stream: _Stream) -> None:
        """The body of a stream's thread."""
        put, clock = self._heard.put, self._clock
        assert stream.rpc is not None
        try:
            for response in stream.rpc:
                put((stream, response, clock()))
        except grpc.RpcError as error:
            put((stream, Status(error.code().value[0], error.details() or ""), clock()))
        else:
            put((stream, Status(UNAVAILABLE, "the server ended the stream"), clock()))

    def _response(self, stream: _Stream, said: service_pb2.ModelStreamInferResponse, at: int) -> list[Call]:
        answer = said.infer_response
        call = stream.calls.get(answer.id)
        if call is None:  # it was given up before
            return []
        stream.answered = True
        self._pause = FIRST_PAUSE_NS
        if said.error_message:
            call.status = call.status or Status(UNKNOWN, said.error_message)  # a stream's errors have no code
        elif answer.outputs:
            if self._keep and not call.times:
                body = answer.SerializeToString()
                call.body = bytearray(b"\0" + len(body).to_bytes(4, "big") + body)
            if call.times is not None:
                call.times.append(at)
        told = FINAL in answer.parameters
        if not (answer.parameters[FINAL].bool_param if told else said.error_message):
            return []
        del stream.calls[answer.id]
        call.answered = at
        call.status = call.status or SUCCESS
        return [call]

    def _fall(self, stream: _Stream, status: Status, at: int) -> list[Call]:
        """Of a whole stream, with all its calls."""
        if stream in self._slots:
            self._slots[self._slots.index(stream)] = None
        stream.requests.put(None)
        if not stream.answered:
            self._retry_at = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_NS)
        if status.code == OK:
            status = Status(UNAVAILABLE, "the server ended the stream")
        self._reason = status
        left = list(stream.calls.values())
        stream.calls.clear()
        for call in left:
            call.status, call.answered, call.lost = call.status or status, at, True
        return left


def _identity(name: str) -> bytes:
    """Field 3 of ModelInferRequest, the id."""
    return b"\x1a" + bytes((len(name),)) + name.encode()
