# Who measures next: in the order in which they asked, and nobody twice in a row while others wait.
from __future__ import annotations

import threading
import time

from controlplane.services.turns import Turns


def test_whoever_gives_it_back_and_wants_it_again_goes_behind_those_that_wait() -> None:
    turns, order = Turns(), list[str]()
    assert turns.acquire()

    def wait(name: str) -> None:
        assert turns.acquire(60)
        order.append(name)
        turns.release()

    threads = [threading.Thread(target=wait, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
        time.sleep(0.5)  # it asks before the next one
    assert turns.wanted
    turns.release()
    assert turns.acquire(60)
    order.append("again")
    turns.release()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second", "again"]


def test_who_does_not_get_it_in_time_waits_no_longer() -> None:
    turns = Turns()
    assert turns.acquire()
    assert not turns.acquire(0.02)
    assert not turns.wanted
    turns.release()
    assert turns.acquire(0.02)
