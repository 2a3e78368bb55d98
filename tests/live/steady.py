# A client of its own process that asks at a steady rate, whatever happens to the server, and counts what it lost.
from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from clients.inference import InferenceClient, InferenceError

_PROCESSES = multiprocessing.get_context("forkserver")


@dataclass
class Tally:
    """`answers` counts replies by their first value; `slowest` is in seconds, from the moment that was scheduled."""

    seconds: float = 0.0
    sent: int = 0
    answers: dict[float, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def answered(self) -> int:
        return sum(self.answers.values())


@contextmanager
def steady_client(address: str, model: str, *, rate: float) -> Iterator[Tally]:
    """Unversioned requests at `rate` a second for as long as the block runs; the tally is full when it has ended."""
    tally = Tally()
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_ask, args=(address, model, rate, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(90), "the client did not start"
        ours.recv()
        yield tally
        ours.send("stop")
        assert ours.poll(90), "the client did not end"
        tally.__dict__.update(ours.recv().__dict__)
    finally:
        process.kill()
        process.join(10)


def _ask(address: str, model: str, rate: float, pipe: Connection) -> None:
    tally = Tally()
    x = np.ones((1, 4), np.float32)

    def ask(due: float) -> tuple[float, float | str]:
        try:
            answer = client.infer(model, {"x": x}, deadline_seconds=60)
        except InferenceError as error:
            return time.monotonic() - due, str(error)
        return time.monotonic() - due, float(answer.outputs["y"].flat[0].item())

    with InferenceClient(address) as client, ThreadPoolExecutor(16) as pool:
        client.infer(model, {"x": x}, deadline_seconds=60)
        pipe.send("started")
        started, pending = time.monotonic(), []
        while not pipe.poll():
            due = started + tally.sent / rate
            time.sleep(max(0.0, due - time.monotonic()))
            pending.append(pool.submit(ask, due))
            tally.sent += 1
        tally.seconds = time.monotonic() - started
        for future in pending:
            took, answer = future.result()
            tally.slowest = max(tally.slowest, took)
            if isinstance(answer, str):
                tally.errors.append(answer)
            else:
                tally.answers[answer] = tally.answers.get(answer, 0) + 1
    pipe.send(tally)
