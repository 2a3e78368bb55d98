# Keeps one embedded server running: after a death it cleans up, waits a little longer each time, and starts it again.
from __future__ import annotations

import logging
import threading
import time

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.keeper import HOLD
from controlplane.triton.runtime.launch import LaunchOptions, TritonProcess

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A server that lived this long did not die of its start: the next delay is the first one again."""

_TICK_SECONDS = 0.05


class Supervisor:
    """`start`, then `tick` a few times a second (or `run`), then `stop`: all from one thread, with which the server
    dies. Every start has the ports of the first, so that clients reconnect by themselves."""

    def __init__(self, options: LaunchOptions) -> None:
        self.server = TritonProcess(options)
        self._hold = options.home / HOLD
        self._delay = FIRST_DELAY_SECONDS
        self._started = 0.0
        self._restart_at: float | None = None

    def start(self, deadline_seconds: float) -> None:
        """The first start, waited for. Raises RuntimeUnavailable, and then nothing is left running.

        Nobody holds down a server that was not there: what holds it is left from a worker that died.
        """
        self._hold.unlink(missing_ok=True)
        try:
            self.server.start()
            self.server.wait_ready(deadline_seconds)
        except BaseException:
            self.server.stop(0)
            raise
        self._started = time.monotonic()

    def tick(self) -> bool:
        """Look once, without waiting; True when a new server was started just now (it is not ready yet)."""
        now = time.monotonic()
        if self._restart_at is None:
            status = self.server.poll()
            if status is None:
                return False
            self.server.clean()
            if now - self._started >= STEADY_SECONDS:
                self._delay = FIRST_DELAY_SECONDS
            self._postpone(now, f"tritonserver ended with status {status}")
            return False
        if now < self._restart_at or self._hold.exists():
            return False
        try:
            self.server.start()
        except (RuntimeUnavailable, OSError) as error:
            self._postpone(now, f"tritonserver could not be started: {error}")
            return False
        self._started = now
        self._restart_at = None
        return True

    def run(self, stopping: threading.Event) -> None:
        """Tick until `stopping` is set, then stop the server."""
        while not stopping.wait(_TICK_SECONDS):
            self.tick()
        self.stop()

    def stop(self, deadline_seconds: float = 40.0) -> None:
        self.server.stop(deadline_seconds)

    def _postpone(self, now: float, why: str) -> None:
        log.warning("%s; starting it again in %.1f s", why, self._delay)
        self._restart_at = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
