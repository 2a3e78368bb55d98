# A server that dies in the middle of a load and is started again: progress that ends the load when answers came again.
from __future__ import annotations

import time

from clients.load.outcomes import ANSWERED, STATUS
from clients.load.processes import Records
from controlplane.triton.runtime.launch import TritonProcess


class Restarted:
    """The `progress` of a measurement. It kills the server after a second and starts it again at once, and ends the load when
    answers come again: however long this host takes to start a server."""

    def __init__(self, process: TritonProcess) -> None:
        self._process = process
        self._killed_at: int | None = None
        self.seconds = 0.0
        """How long the load went on."""

    def __call__(self, seconds: float, records: Records) -> bool:
        self.seconds = seconds
        if self._killed_at is not None:  # what is read late is none of the new server, which takes longer to start
            return not ((records[:, STATUS] == 0) & (records[:, ANSWERED] > self._killed_at + 1_000_000_000)).any()
        if seconds > 1:
            self._process.kill()
            self._killed_at = time.monotonic_ns()
            self._process.start()  # by the thread of the test: a server dies with the one that started it
        return True
