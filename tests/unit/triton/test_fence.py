# The fence between workers, with real processes that are stopped and killed.
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from controlplane.errors import IntegrityError, LeaseLost, OperationTimedOut
from controlplane.triton.fence import fence

spawn = multiprocessing.get_context("spawn")


def worker(path: Path, token: int, pipe: Connection) -> None:
    """Says `ready`, waits to be told, and then says how its effect went; inside the fence it waits once more."""
    pipe.send("ready")
    pipe.recv()
    try:
        with fence(path, token, wait_seconds=5):
            pipe.send("inside")
            pipe.recv()
    except LeaseLost as error:
        pipe.send(("lost", error.details))
    else:
        pipe.send("done")


def start(path: Path, token: int) -> tuple[BaseProcess, Connection]:
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=worker, args=(path, token, theirs))
    process.start()
    assert ours.recv() == "ready"
    return process, ours


def wait_stopped(process: BaseProcess) -> None:
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.005)


def pause(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    wait_stopped(process)


def wake(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "m.lock"


def test_a_worker_that_was_suspended_does_nothing_when_another_has_been_there(path: Path) -> None:
    sleeper, pipe = start(path, 1)
    pause(sleeper)
    pipe.send("go")
    with fence(path, 2, wait_seconds=0):
        pass
    wake(sleeper)
    assert pipe.recv() == ("lost", {"token": "1", "seen": "2"})
    sleeper.join()


def test_a_worker_that_waits_for_the_lock_while_another_takes_a_greater_token_loses(path: Path) -> None:
    waiter, pipe = start(path, 1)
    with fence(path, 2, wait_seconds=0):
        pipe.send("go")
        assert not pipe.poll(0.3)
    assert pipe.recv() == ("lost", {"token": "1", "seen": "2"})
    waiter.join()


def test_a_worker_suspended_inside_keeps_others_out_for_as_long_as_they_wait(path: Path) -> None:
    sleeper, pipe = start(path, 1)
    pipe.send("go")
    assert pipe.recv() == "inside"
    pause(sleeper)
    begun = time.monotonic()
    with pytest.raises(OperationTimedOut) as caught, fence(path, 2, wait_seconds=0.3):
        pytest.fail("two were inside")
    assert 0.3 <= time.monotonic() - begun < 30
    assert f"process {sleeper.pid} on " in (caught.value.hint or "")
    wake(sleeper)
    pipe.send("leave")
    assert pipe.recv() == "done"
    with fence(path, 2, wait_seconds=60):
        sleeper.join()


def test_a_killed_worker_leaves_no_lock_but_its_token(path: Path) -> None:
    victim, pipe = start(path, 7)
    pipe.send("go")
    assert pipe.recv() == "inside"
    victim.kill()
    victim.join()
    with pytest.raises(LeaseLost), fence(path, 6, wait_seconds=0):
        pytest.fail("a lesser token was let in")
    with fence(path, 7, wait_seconds=0):
        pass


def test_the_same_token_enters_again_and_an_error_inside_leaves_the_fence_open(path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), fence(path, 3, wait_seconds=0):
            raise ValueError
    with fence(path, 3, wait_seconds=0):
        pass


def test_of_many_threads_only_one_is_inside_at_a_time(path: Path) -> None:
    inside: list[int] = []
    greatest: list[int] = []

    def enter() -> None:
        with fence(path, 1, wait_seconds=90):
            inside.append(1)
            greatest.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert greatest == [1] * 12


def test_a_lock_file_deleted_while_it_was_waited_for_lets_no_second_one_in(path: Path) -> None:
    waiter, pipe = start(path, 1)
    with fence(path, 1, wait_seconds=0):
        pipe.send("go")
        time.sleep(1)  # it waits for the lock
        path.unlink()
        with fence(
            path, 1, wait_seconds=0
        ):  # the file of this name is a new one: this is whom the waiter must wait for
            pass
        assert not pipe.poll(0.2)
    assert pipe.recv() == "inside"
    with pytest.raises(OperationTimedOut), fence(path, 1, wait_seconds=0.05):
        pytest.fail("two were inside")
    pipe.send("leave")
    assert pipe.recv() == "done"
    waiter.join()


def test_a_file_that_is_not_ours_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(IntegrityError), fence(path, 1, wait_seconds=0):
        pytest.fail("it was taken for a lock file")
    assert path.read_bytes() == b"something else"
