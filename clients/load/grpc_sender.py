# The general path: unary calls by grpcio, for what our own sender does not speak.
from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence

import grpc

from clients.inference import open_channel
from clients.load.calls import Call
from clients.load.grpc_status import CANCELLED, DEADLINE_EXCEEDED, SUCCESS, UNAVAILABLE, UNKNOWN, Status
from clients.load.transports import Via

PREFIX = 5
CONNECT_SECONDS = 5.0
FIRST_PAUSE_NS = 10_000_000
LONGEST_PAUSE_NS = 500_000_000
COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

_PERHAPS_OURS = (CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE)
"""What grpcio says itself when it lost the server, as servers do of a request that they have done with."""


class GrpcSender:
    """A `Transport`. Answers arrive on grpcio's threads, which note the time, and wait in a queue for `turn`."""

    def __init__(
        self,
        address: str,
        path: str,
        metadata: Sequence[tuple[str, str]],
        via: Via,
        *,
        connections: int,
        keep: bool,
        clock: Callable[[], int],
    ) -> None:
        self._channels = [open_channel(address, via.tls, own_connection=True) for _ in range(connections)]
        self._methods = [channel.unary_unary(path) for channel in self._channels]
        self._metadata = tuple(metadata)
        self._compression = COMPRESSIONS[via.compression]
        self._keep = keep
        self._clock = clock
        self._answers: queue.SimpleQueue[tuple[Call, grpc.Future, int]] = queue.SimpleQueue()
        self._open: dict[Call, grpc.Future] = {}
        self._turn = 0
        self._pause = FIRST_PAUSE_NS
        self.retry_at = 0
        self.reconnects = 0

    def connect(self) -> None:
        await_channels(self._channels)

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def issue(self, call: Call) -> None:
        self._turn = (self._turn + 1) % len(self._methods)
        future = self._methods[self._turn].future(
            call.message[PREFIX:], metadata=self._metadata, compression=self._compression
        )
        self._open[call] = future
        future.add_done_callback(lambda done: self._answers.put((call, done, self._clock())))

    def turn(self, seconds: float) -> list[Call]:
        ended: list[Call] = []
        wait = max(seconds, 0)
        try:
            while True:
                call, future, answered = self._answers.get(wait > 0, wait)
                wait = 0
                if self._open.pop(call, None) is not None:  # else it was given up before
                    call.answered = answered
                    self._end(call, future)
                    ended.append(call)
        except queue.Empty:
            self._pace(ended)
            return ended

    def expire(self, before: int) -> list[Call]:
        late = [call for call in self._open if call.sent < before]
        for call in late:
            self._open.pop(call).cancel()
            call.status, call.lost = Status(DEADLINE_EXCEEDED, "no answer in time"), True
        return late

    def close(self) -> list[Call]:
        left = list(self._open)
        for future in self._open.values():
            future.cancel()
        self._open.clear()
        for channel in self._channels:
            channel.close()
        return left

    def _end(self, call: Call, future: grpc.Future) -> None:
        code = future.code()
        if code is grpc.StatusCode.OK:
            call.status = SUCCESS
            if self._keep:
                body = future.result()
                call.body = bytearray(b"\0" + len(body).to_bytes(4, "big") + body)
        else:
            call.status = Status(code.value[0], future.details() or "")
            call.lost = call.status.code in _PERHAPS_OURS

    def _pace(self, ended: list[Call]) -> None:
        """grpcio does not tell a server that refuses calls from one that is not there: when nothing else comes back, wait."""
        if any(call.status is not None and call.status.code != UNAVAILABLE for call in ended):
            self.retry_at, self._pause = 0, FIRST_PAUSE_NS
        elif ended:
            self.retry_at = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_NS)


def await_channels(channels: Sequence[grpc.Channel]) -> None:
    """Until all are connected, or for a while: what is not connected then says so in its calls."""
    end = time.monotonic() + CONNECT_SECONDS
    for future in [grpc.channel_ready_future(channel) for channel in channels]:
        try:
            future.result(timeout=max(end - time.monotonic(), 0))
        except grpc.FutureTimeoutError:
            future.cancel()
