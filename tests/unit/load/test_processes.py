# The sending processes when one of them hangs, and what is told while answers are awaited after the end.
from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from clients.load import processes
from clients.load.errors import LoadFailed
from clients.load.frames import frame
from clients.load.measure import Limits, Load, Target, measure
from clients.load.outcomes import SENT
from clients.load.processes import SenderPool
from tests.unit.load.hostile import Talk, hostile
from tests.unit.load.peers import prefixed

_WINDOW_UPDATE = 8
MESSAGE = prefixed(b"a request")


def prompt(talk: Talk) -> None:
    """With room for all requests of a test: without it the 4,681st would not be sent."""
    talk.send(frame(_WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
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
    assert time.monotonic() - begun < 60
    assert multiprocessing.active_children() == []


def test_progress_is_told_on_while_answers_are_awaited() -> None:
    def slow(talk: Talk) -> None:
        for stream in talk.streams():
            time.sleep(3.0)
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


def test_a_pool_keeps_its_process_from_one_measurement_to_the_next() -> None:
    seen: list[set[int | None]] = []

    def note(_seconds: float, _records: object) -> bool:
        seen.append({process.pid for process in multiprocessing.active_children()})
        return True

    limits = Limits(seconds=0.5, cap=0.5, warm_up=0)
    with SenderPool() as pool:
        for concurrency in (1, 4):
            with hostile(prompt) as server:
                target = Target("127.0.0.1", server.port)
                measured = measure(target, (MESSAGE,), Load(concurrency=concurrency), limits, progress=note, pool=pool)
            assert (measured.completed > 10, measured.failed) == (True, {})
    assert len({frozenset(pids) for pids in seen}) == 1
    assert len(seen[0]) == 1
    assert multiprocessing.active_children() == []


def test_a_pool_that_was_prepared_measures_with_the_process_that_waits() -> None:
    with SenderPool() as pool, hostile(prompt) as server:
        pool.prepare()
        pool.prepare()
        (waiting,) = multiprocessing.active_children()
        limits = Limits(seconds=0.5, cap=0.5, warm_up=0)
        assert measure(Target("127.0.0.1", server.port), (MESSAGE,), Load(concurrency=1), limits, pool=pool).completed
        assert multiprocessing.active_children() == [waiting]


def test_a_closed_loop_ends_when_it_was_to() -> None:
    limits = Limits(seconds=0.6, cap=0.6, warm_up=0.1)
    with hostile(prompt) as server:
        measured = measure(Target("127.0.0.1", server.port), (MESSAGE,), Load(concurrency=2), limits)
    # It listens only a few times a second, and is not to go on until it does. A busy host may hold up its last calls.
    assert 0.2 < (measured.records[:, SENT].max() - measured.start) / 1e9 < 0.8


def test_a_pool_forgets_a_process_that_was_killed_while_it_waited_and_one_that_was_interrupted() -> None:
    limits = Limits(seconds=0.5, cap=0.5, warm_up=0)

    def refuse(_seconds: float, _records: object) -> bool:
        raise KeyboardInterrupt

    with SenderPool() as pool, hostile(prompt) as server:
        target = Target("127.0.0.1", server.port)
        measure(target, (MESSAGE,), Load(concurrency=1), limits, pool=pool)
        (waiting,) = multiprocessing.active_children()
        os.kill(waiting.pid or 0, signal.SIGKILL)
        waiting.join()
        assert measure(target, (MESSAGE,), Load(concurrency=1), limits, pool=pool).completed > 10
        with pytest.raises(KeyboardInterrupt):
            measure(target, (MESSAGE,), Load(concurrency=1), limits, progress=refuse, pool=pool)
        assert multiprocessing.active_children() == []
        assert measure(target, (MESSAGE,), Load(concurrency=1), limits, pool=pool).completed > 10
