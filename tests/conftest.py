# What every tier needs of the process that runs it, and how the tests are spread over several.
from __future__ import annotations

import signal

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "tests/live/runtime/test_backend_config.py",
    "tests/live/test_infer.py",
    "tests/live/test_sweep.py",
    "tests/live/test_tour.py",
    "tests/live/test_up.py",
)
"""Files whose tests share what takes long to make: one process runs all tests of such a file, and begins with them."""


def pytest_configure() -> None:
    """Whoever starts the tests in the background may have SIGINT ignored, and children inherit that: the tests that
    interrupt them would wait for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _OneByOne(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Each test goes to the process that is free first, so that none is left with a long file at the end."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return _OneByOne(config, log) if config.getoption("dist") == "loadscope" else None
