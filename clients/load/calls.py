# One call of a run, from when it was due to how it ended.
from __future__ import annotations

from array import array
from dataclasses import dataclass

from clients.load.grpc_status import Status


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way. `tag` is the caller's; `body` collects the answer's messages, each with its prefix, where they are
    wanted; of several responses the first. `answered` is when, or 0 for now, and `times` is when each response of a stream came.
    `lost`: the server may still be at work on it."""

    tag: int
    scheduled: int
    sent: int
    message: bytes
    stream: int = 0
    unsent: memoryview | None = None
    window: int = 0
    opened: bool = False
    size: int = 0
    prefix: bytes = b""
    body: bytearray | None = None
    status: Status | None = None
    answered: int = 0
    lost: bool = False
    times: array[int] | None = None
