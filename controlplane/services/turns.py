# Who measures in this process: one at a time, in the order in which they asked.
from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is fair: whoever gives it back and wants it again at once goes behind those that wait."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()

    def acquire(self, timeout: float | None = None) -> bool:
        """False when it was not given in time; who asks again is the last then."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            if self._condition.wait_for(lambda: self._queue[0] is ticket, timeout):
                return True
            self._queue.remove(ticket)
            self._condition.notify_all()
            return False

    def release(self) -> None:
        with self._condition:
            self._queue.popleft()
            self._condition.notify_all()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        with self._condition:
            return len(self._queue) > 1
