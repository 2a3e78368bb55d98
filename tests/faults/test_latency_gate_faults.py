# A worker that is killed, stopped or failed at both sides of a latency gate's measurement, or killed in the middle of it.
from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.domain.changes import ChangeState
from controlplane.domain.latency_gates import MEASURE
from controlplane.storage.database import Database
from tests.faults.walks import Step, Walk, check_rest, rest, url_of, walked
from tests.faults.workers import Wound, started
from tests.live.installation import ENV, Installation
from tests.live.servers import LiveTriton

_names = itertools.count()
MODES = {"postgresql": ("kill", "stop"), "sqlite": ("fail",)}


@pytest.fixture
def at(tmp_path: Path, database: Database, triton: LiveTriton) -> Iterator[Installation]:
    yield from walked(tmp_path, database, triton)


@pytest.fixture
def model(at: Installation) -> str:
    """Revision 1 serves version 1 (factor 2), and whatever comes is measured."""
    name = f"gate{next(_names)}"
    at.register(name, 2.0)
    assert at.deploy(name, versions=(1,), config=at.config(name)).request.state is ChangeState.APPLIED
    gate = f"fast={name}:p50<=4900ms@20/s,seconds=1,most_seconds=20"
    at.environments.set_policy(at["admin"], ENV, {"latency_gates": [gate]}, expected_number=None)
    return name


def change(at: Installation, model: str) -> Step:
    """A reload, another one each time."""
    delay = ("dynamic_batching.max_queue_delay_microseconds", str(100 + next(_names)))
    return Step(model, at.start(at.propose(model, sets=(delay,))), ChangeState.APPLIED, 2.0, 2.0)


def sending(children: list[psutil.Process]) -> bool:
    """Whether one of them is a process of the load generator."""
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                return True
    return False


@pytest.mark.timeout(600)
def test_both_sides_of_a_measurement_survive(
    at: Installation, database: Database, dialect: str, model: str, tmp_path: Path
) -> None:
    walk = Walk(at, url_of(database), tmp_path, lambda: change(at, model))
    found = [(number, name) for number, name in enumerate(walk.boundaries()) if MEASURE in name]
    assert [name for _, name in found] == ["before forward measure", "after forward measure"]
    for mode, (number, name) in itertools.product(MODES[dialect], found):
        walk.step(mode, number, name)


@pytest.mark.timeout(300)
def test_a_worker_killed_in_the_middle_of_a_measurement_leaves_no_process_and_another_measures_again(
    at: Installation, database: Database, model: str, tmp_path: Path
) -> None:
    gate = f"slow={model}:p50<=4900ms@20/s,seconds=8,most_seconds=20"
    at.environments.set_policy(at["admin"], ENV, {"latency_gates": [gate]}, expected_number=None)
    step = change(at, model)
    record = Wound("record")
    with started(
        at.settings, url_of(database), record, change=step.view.request.id, names=tmp_path / "names"
    ) as worker:
        assert worker.pid is not None
        own = psutil.Process(worker.pid)
        while not sending(children := own.children(recursive=True)):
            assert worker.is_alive()
            time.sleep(0.05)
        worker.kill()
        worker.join(60)
        _, alive = psutil.wait_procs(children, timeout=12)  # of the 20 s that they would send
        assert alive == []
    ended = rest(at, step.view)
    assert ended.request.state is ChangeState.APPLIED
    measurements = [entry for entry in ended.journal if entry.effect == MEASURE]
    assert [entry.finished_at is not None for entry in measurements] == [False, True]
    assert len(ended.latency) == 1
    check_rest(at, step)
