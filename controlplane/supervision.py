# Child processes of `tritonctl up`: started, kept running, stopped in order; none outlives this process.
from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from controlplane.errors import OperationTimedOut, RuntimeUnavailable
from controlplane.triton.runtime.paths import TETHER

_log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024


class Child:
    """One of our own processes. `start`, then `tick` a few times a second, then `stop`, all from the main thread: the
    child dies with the thread that started it, by SIGKILL."""

    def __init__(self, name: str, arguments: Sequence[str], *, home: Path) -> None:
        self.name = name
        self.log = home / "log" / f"{name}.log"
        self._arguments = list(arguments)
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._delay = FIRST_DELAY_SECONDS
        self._started = 0.0
        self._restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*tether, sys.executable, "-m", "controlplane", *self._arguments],
                env={**os.environ, "TRITONCTL_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for us, who stop the children in order
            )
        self._started = time.monotonic()
        self._restart_at = None

    def tick(self) -> None:
        """Look once, without waiting: a child that ended is started again, later each time."""
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self.start()
            return
        if self._process is None or (status := self._process.poll()) is None:
            return
        if now - self._started >= STEADY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        _log.warning("%s ended with status %d; starting it again in %.1f s", self.name, status, self._delay)
        self._restart_at = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)

    def wait_for(self, ready: Callable[[], bool], deadline_seconds: float) -> None:
        """Raises RuntimeUnavailable when it ended, and OperationTimedOut when it was not ready in time."""
        end = time.monotonic() + deadline_seconds
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeUnavailable(f"the {self.name} did not start", hint=f"look into {self.log}")
            if time.monotonic() > end:
                raise OperationTimedOut(
                    f"the {self.name} was not ready within {deadline_seconds:g} s", hint=f"look into {self.log}"
                )
            time.sleep(0.05)

    def stop(self, deadline_seconds: float) -> None:
        """SIGTERM, and SIGKILL past the deadline: whatever it was doing is taken up again at the next start."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
