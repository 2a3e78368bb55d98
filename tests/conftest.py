# What every tier needs of the process that runs it.
from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Whoever starts the tests in the background may have SIGINT ignored, and children inherit that: the tests that
    interrupt them would wait for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
