# Sequences for stateful models: whose turn it is, and correlation ids put into messages that were serialized before.
"""A stateful model keeps something between the requests of one sequence, so those go one after the other: the next only
when the one before was answered. `live` sequences are under way in a process; closed loop, each has one request in flight.
Open loop, a request that is due goes to the sequence that has waited longest; when all wait for answers it is sent late, and
its latency counts from when it was due, as always. So due times belong to the run, and no sequence is advanced too early.

A request that fails ends its sequence, for the model's state is unknown: a new one takes its place, and the server's slot of
the old one ends by its idle time (`max_sequence_idle_microseconds`). Those alive at the end of the run are ended by one more
request each, which counts as any other, also beyond a count that was asked for: else the next run would find their slots taken.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clients.load.calls import Call
from clients.load.errors import LoadInputError

Ids = Literal["int64", "int32", "string"]
"""What the model's CORRID control holds: `int64` is for 64 bits with a sign or without, `int32` for 32 bits. `string` is for
models that ask the request itself: Triton 2.51 refuses all requests to one whose control is of TYPE_STRING, from any client."""

_PREFIX = struct.Struct(">BI")
_FLAG = {False: b"\x00", True: b"\x01"}


def _entry(key: bytes, value: bytes) -> bytes:
    """An entry of the map `parameters`, field 4 of ModelInferRequest. All lengths are below 128."""
    entry = b"\x0a" + bytes((len(key),)) + key + b"\x12" + bytes((len(value),)) + value
    return b"\x22" + bytes((len(entry),)) + entry


def _tail(number: bytes, field: bytes, *, start: bool, end: bool) -> bytes:
    return (
        _entry(b"sequence_id", field + number)
        + _entry(b"sequence_start", b"\x08" + _FLAG[start])
        + _entry(b"sequence_end", b"\x08" + _FLAG[end])
    )


def identified(number: int, ids: Ids) -> dict[tuple[bool, bool], bytes]:
    """What follows the head of a request of this sequence, by (start, end). Its size does not depend on the number: text is
    16 hexadecimal digits; a number takes nine bytes, of which the last may add nothing, as protobuf's parsers accept."""
    if ids == "string":
        field, value = b"\x1a\x10", b"%016x" % number
    else:
        digits = [number >> shift & 0x7F for shift in range(0, 63, 7)]
        field, value = b"\x10", bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])
    both = (False, True)
    return {(start, end): _tail(value, field, start=start, end=end) for start in both for end in both}


def head(message: bytes, ids: Ids) -> bytes:
    """A message with its prefix, whose prefix counts the tail that will follow. A message's fields may come in any order,
    so nothing is serialized again."""
    size = len(message) - _PREFIX.size + len(identified(1, ids)[True, True])
    if size >= 2**31:
        raise LoadInputError(f"a request of {size} bytes is more than gRPC takes", "a smaller batch or shape")
    return _PREFIX.pack(0, size) + message[_PREFIX.size :]


@dataclass(frozen=True, slots=True)
class Stream:
    """What one model gets: messages with the tags from `first` on. With `lengths` (fewest, most) they are scripts of `most`
    steps each, and a sequence sends the first steps of the script whose turn it is; without, each is a request by itself."""

    first: int
    count: int
    weight: float
    lengths: tuple[int, int] | None = None
    ids: Ids = "int64"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process does. Its ids are `first_id` and each `stride`th after it."""

    streams: tuple[Stream, ...]
    live: int
    first_id: int
    stride: int
    seed: tuple[int, ...]


class _Live:
    """A sequence under way, or a request by itself."""

    __slots__ = ("left", "of_end", "tag", "tails")

    def __init__(self, tag: int, left: int, of_end: int, tails: dict[tuple[bool, bool], bytes] | None) -> None:
        self.tag = tag
        self.left = left
        self.of_end = of_end
        """The tag of its script's last step."""
        self.tails = tails


class Sequences:
    """Takes turns. A place is a live sequence's, or free for the next one; a place in flight has no turn."""

    def __init__(self, plan: Plan, messages: tuple[bytes, ...]) -> None:
        self._plan = plan
        self._messages = messages
        self._random = np.random.default_rng(plan.seed)
        self._places: deque[_Live | None] = deque([None] * plan.live)
        self._flying: dict[Call, _Live] = {}
        self._id = plan.first_id
        self._begun = [0] * len(plan.streams)
        self._given = [0.0] * len(plan.streams)
        self._scripts = [self._shuffled(stream) for stream in plan.streams]

    def next(self, scheduled: int, now: int) -> Call:
        """The next request of who has waited longest. There is one as long as fewer than `live` are in flight."""
        live = self._places.popleft()
        if live is None:
            live, start = self._begin(), True
        else:
            start = False
        return self._call(live, scheduled, now, start=start, last=live.left == 1)

    def cut(self, call: Call) -> bool:
        """Whether this request in flight ends its sequence before the script does: its answer may be another."""
        live = self._flying[call]
        return not live.left and call.tag != live.of_end

    def answered(self, calls: Iterable[Call]) -> None:
        for call in calls:
            live = self._flying.pop(call)
            failed = call.status is not None and call.status.code
            self._places.append(None if failed or not live.left else live)

    def closing(self, now: int) -> list[Call]:
        """The last requests of the sequences that are under way and wait for a turn; no new one begins afterwards."""
        lives = [live for live in self._places if live is not None]
        self._places.clear()
        return [self._call(live, now, now, start=False, last=True) for live in lives]

    def _call(self, live: _Live, scheduled: int, now: int, *, start: bool, last: bool) -> Call:
        message = self._messages[live.tag]
        if live.tails is not None:
            message += live.tails[start, last]
        call = Call(live.tag, scheduled, now, message)
        live.left = 0 if last else live.left - 1
        live.tag += 1
        self._flying[call] = live
        return call

    def _begin(self) -> _Live:
        """Of the stream that is most behind its weight, counted in requests."""
        given = self._given
        number = given.index(min(given))
        stream = self._plan.streams[number]
        fewest, most = stream.lengths or (1, 1)
        length = int(self._random.integers(fewest, most + 1)) if fewest < most else most
        given[number] += length / stream.weight
        scripts = self._scripts[number]
        script = scripts[self._begun[number] % len(scripts)]
        self._begun[number] += 1
        tails = None
        if stream.lengths is not None:
            tails = identified(self._id, stream.ids)
            self._id += self._plan.stride
        first = stream.first + script * most
        return _Live(first, length, first + most - 1, tails)

    def _shuffled(self, stream: Stream) -> list[int]:
        most = stream.lengths[1] if stream.lengths else 1
        return [int(script) for script in self._random.permutation(stream.count // most)]
