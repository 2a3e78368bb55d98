# A transport for calls whose outputs go to shared memory: each call in flight has a slot there, which no other call has.
from __future__ import annotations

from clients.load.calls import Call
from clients.load.grpc_status import OK, RESOURCE_EXHAUSTED, Status
from clients.load.shared_memory import Outputs, Slots
from clients.load.transports import Transport

_PREFIX = 5


class SlotSender:
    """A `Transport` over another one. A call that finds no slot fails: all are taken, or lost to calls that were given up."""

    def __init__(self, inner: Transport, slots: Slots, *, keep: bool) -> None:
        self._inner = inner
        self._tails = slots.tails
        self._free = list(range(len(slots.tails)))
        self._taken: dict[Call, int] = {}
        self._refused: list[Call] = []
        self._outputs = Outputs(slots) if keep else None

    @property
    def reconnects(self) -> int:
        return self._inner.reconnects

    @property
    def in_flight(self) -> int:
        return self._inner.in_flight + len(self._refused)

    @property
    def retry_at(self) -> int:
        return self._inner.retry_at

    def connect(self) -> None:
        self._inner.connect()

    def issue(self, call: Call) -> None:
        if not self._free:
            lost = len(self._tails) - len(self._taken)
            call.status = Status(RESOURCE_EXHAUSTED, f"no slot for outputs is free; {lost} are lost to given up calls")
            self._refused.append(call)
            return
        slot = self._free.pop()
        self._taken[call] = slot
        tail = self._tails[slot]
        size = len(call.message) - _PREFIX + len(tail)
        call.message = b"".join((b"\0", size.to_bytes(4, "big"), call.message[_PREFIX:], tail))
        self._inner.issue(call)

    def turn(self, seconds: float) -> list[Call]:
        ended, refused = self._released(self._inner.turn(seconds)), self._refused
        self._refused = []
        return ended + refused

    def expire(self, before: int) -> list[Call]:
        return self._released(self._inner.expire(before))

    def close(self) -> list[Call]:
        left, self._refused = self._inner.close() + self._refused, []
        if self._outputs is not None:
            self._outputs.close()
        return left

    def _released(self, ended: list[Call]) -> list[Call]:
        for call in ended:
            slot = self._taken.pop(call)
            if self._outputs is not None and call.body and call.status is not None and call.status.code == OK:
                call.body = self._outputs.whole(slot, bytes(call.body))
            if not call.lost:
                self._free.append(slot)
        return ended
