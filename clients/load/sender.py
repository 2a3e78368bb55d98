# Sockets under the HTTP/2 calls: several connections, made again when they end; nothing here ever blocks for long.
from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from clients.load.calls import Call
from clients.load.frames import Broken
from clients.load.grpc_status import DEADLINE_EXCEEDED, UNAVAILABLE, Status
from clients.load.http2 import Http2

_RECEIVE = 1 << 18
_CONNECT_SECONDS = 5.0
_FIRST_PAUSE_NS = 10_000_000
_LONGEST_PAUSE_NS = 500_000_000


class Channel:
    """One connection and the calls on it. After `failed` is set it holds no calls and is of no more use."""

    def __init__(self, address: tuple[str, int], http: Http2) -> None:
        self.http = http
        self.failed: Status | None = None
        self.answered = False
        """Whether the server ever ended a call on it otherwise than by being unavailable."""
        self.socket = socket.create_connection(address, timeout=_CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self) -> None:
        """As much as the socket takes; the rest stays in the output."""
        output = self.http.output
        if not output:
            return
        try:
            sent = self.socket.send(output)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed = Status(UNAVAILABLE, f"sending failed: {error.strerror or error}")
            return
        if sent == len(output):
            output.clear()
        else:
            del output[:sent]

    def receive(self) -> list[Call]:
        try:
            data = self.socket.recv(_RECEIVE)
        except BlockingIOError:
            return []
        except OSError as error:
            self.failed = Status(UNAVAILABLE, f"receiving failed: {error.strerror or error}")
            return []
        if not data:
            self.failed = Status(UNAVAILABLE, "the server closed the connection")
            return []
        try:
            return self.http.receive(data)
        except Broken as error:
            self.failed = Status(UNAVAILABLE, f"broken HTTP/2: {error}")
            return self.http.ended()

    def close(self) -> list[Call]:
        """The calls that were in flight."""
        self.socket.close()
        return self.http.abandon()


class Sender:
    """Spreads calls over its connections. `issue` and `turn` answer every call once, with a status."""

    def __init__(
        self, address: tuple[str, int], connections: int, make: Callable[[], Http2], *, clock: Callable[[], int]
    ) -> None:
        self._address = address
        self._make = make
        self._clock = clock
        self._slots: list[Channel | None] = [None] * connections
        self._leaving: list[Channel] = []
        self._turn = 0
        self._refused: list[Call] = []
        self._retry_at = 0
        self._pause = _FIRST_PAUSE_NS
        self._reason = Status(UNAVAILABLE)
        self.reconnects = -connections

    def connect(self) -> None:
        """All connections, before the clock starts; one that cannot be made is tried again when it is needed."""
        for number in range(len(self._slots)):
            self._channel(number)

    @property
    def in_flight(self) -> int:
        channels = [channel for channel in self._slots if channel is not None] + self._leaving
        return sum(channel.http.in_flight for channel in channels) + len(self._refused)

    @property
    def retry_at(self) -> int:
        """When a connection is tried again after one failed, by the clock; 0 when none is missing."""
        return self._retry_at if None in self._slots else 0

    def issue(self, call: Call) -> None:
        """A call that finds no connection is answered by the next `turn`."""
        self._turn = (self._turn + 1) % len(self._slots)
        channel = self._channel(self._turn)
        if channel is None:
            call.status = self._reason
            self._refused.append(call)
        else:
            channel.http.start(call)

    def turn(self, seconds: float) -> list[Call]:
        """Send what there is, wait at most so long for answers, and return the calls that ended."""
        channels = [channel for channel in self._slots if channel is not None]
        if self._leaving:
            channels += self._leaving
        for channel in channels:
            channel.send()
        ended: list[Call] = []
        if self._refused:
            ended, self._refused = self._refused, []
            seconds = 0
        if channels:
            unsent = [channel.socket for channel in channels if channel.http.output]
            sockets = [channel.socket for channel in channels]
            readable, _, _ = select.select(sockets, unsent, [], max(seconds, 0))
            for channel in channels:
                if channel.socket in readable:
                    came = channel.receive()
                    if came:
                        ended += came
                        if not channel.answered:
                            channel.answered = any(call.status and call.status.code != UNAVAILABLE for call in came)
                if channel.failed is not None:
                    ended += self._drop(channel)
        elif seconds > 0:
            time.sleep(seconds)
        if self._leaving:
            self._end_leaving()
        return ended

    def expire(self, before: int) -> list[Call]:
        """Give up the calls that were sent before that time."""
        ended = []
        for channel in [channel for channel in self._slots if channel is not None] + self._leaving:
            for call in channel.http.older(before):
                channel.http.cancel(call)
                call.status, call.lost = Status(DEADLINE_EXCEEDED, "no answer in time"), True
                ended.append(call)
        return ended

    def close(self) -> list[Call]:
        """Hang up; the calls that have no answer."""
        channels = [channel for channel in self._slots if channel is not None] + self._leaving
        left = [call for channel in channels for call in channel.close()]
        self._slots, self._leaving = [None] * len(self._slots), []
        refused, self._refused = self._refused, []
        return left + refused

    def _channel(self, number: int) -> Channel | None:
        channel = self._slots[number]
        if channel is not None:
            if channel.http.open:
                return channel
            self._pace(channel)
            self._leaving.append(channel)  # what is in flight there is still answered
            self._slots[number] = None
        now = self._clock()
        if now < self._retry_at:
            return None
        try:
            channel = Channel(self._address, self._make())
        except OSError as error:
            host, port = self._address
            self._reason = Status(UNAVAILABLE, f"no connection to {host}:{port}: {error.strerror or error}")
            self._wait_from(now)
            return None
        self._slots[number] = channel
        self.reconnects += 1
        return channel

    def _drop(self, channel: Channel) -> list[Call]:
        if channel in self._leaving:
            self._leaving.remove(channel)
        else:
            self._slots[self._slots.index(channel)] = None
        self._pace(channel)
        left = channel.close()
        for call in left:
            call.status, call.lost = call.status or channel.failed, True
        return left

    def _pace(self, channel: Channel) -> None:
        """A server that takes connections and answers nothing is not asked at full speed: that would only use up ports."""
        if channel.answered:
            self._pause = _FIRST_PAUSE_NS
        else:
            self._reason = channel.failed or Status(UNAVAILABLE, "the server went away without an answer")
            self._wait_from(self._clock())

    def _wait_from(self, now: int) -> None:
        self._retry_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_NS)

    def _end_leaving(self) -> None:
        for channel in [channel for channel in self._leaving if not channel.http.in_flight]:
            self._leaving.remove(channel)
            channel.close()
