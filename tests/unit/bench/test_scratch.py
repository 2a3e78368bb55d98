# The embedded bench's home is held by one process at a time, and waited for as long as another may need to leave it.
from __future__ import annotations

import threading
from pathlib import Path

import pytest

from controlplane.bench import scratch
from controlplane.bench.scratch import only_one
from controlplane.errors import RuntimeUnavailable


def test_a_bench_that_is_being_left_is_waited_for(tmp_path: Path) -> None:
    """A sweep that is cancelled frees its bench in the database before its worker has taken it down."""
    left = threading.Event()

    def leave() -> None:
        with only_one(tmp_path):
            held.set()
            left.wait(0.3)

    held, first = threading.Event(), threading.Thread(target=leave)
    first.start()
    held.wait()
    with only_one(tmp_path):
        pass
    first.join()


def test_a_bench_that_is_not_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_TAKEN_SECONDS", 0.1)
    with (
        only_one(tmp_path),
        pytest.raises(RuntimeUnavailable, match="another process measures"),
        only_one(tmp_path),
    ):
        pass
