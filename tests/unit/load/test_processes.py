# The sending processes when one of them hangs, and what is told while answers are awaited after the end.
from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from clients.load import processes
from clients.load.errors import LoadFailed
from clients.load.measure import Limits, Load, Target, measure
from tests.unit.load.hostile import Talk, hostile
from tests.unit.load.peers import prefixed

MESSAGE = prefixed(b"a request")


def prompt(talk: Talk) -> None:
    for stream in talk.streams():
        talk.answer(stream)


def test_a_sending_process_that_hangs_is_an_error_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SILENT_SECONDS", 1.0)

    def stop(_seconds: float, _records: object) -> bool:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGSTOP)
        return True

    limits = Limits(seconds=5, cap=5, warm_up=0)
    begun = time.monotonic()
    with hostile(prompt) as server, pytest.raises(LoadFailed, match="said nothing for 1 s"):
        measure(Target("127.0.0.1", server.port), (MESSAGE,), Load(concurrency=1), limits, progress=stop)
    assert time.monotonic() - begun < 20
    assert multiprocessing.active_children() == []


def test_progress_is_told_on_while_answers_are_awaited() -> None:
    def slow(talk: Talk) -> None:
        for stream in talk.streams():
            time.sleep(2.0)
            talk.answer(stream)

    told: list[float] = []

    def note(seconds: float, _records: object) -> bool:
        told.append(seconds)
        return seconds < 0.5

    with hostile(slow) as server:
        limits = Limits(seconds=9, cap=9, warm_up=0, timeout=9)
        measured = measure(Target("127.0.0.1", server.port), (MESSAGE,), Load(concurrency=1), limits, progress=note)
    assert measured.completed == 1
    assert max(told) > 1.2
