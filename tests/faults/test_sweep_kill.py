# A worker that is killed while it measures a sweep on a real Triton: the next one goes on, and nothing is left behind.
from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from controlplane.domain.access import Principal
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.audit import AuditEntry
from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.domain.sweeps import Sweep, SweepState
from controlplane.services.catalog import Registration
from controlplane.services.rooms import Services
from controlplane.settings import Settings, load_settings
from controlplane.storage.database import Database, create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.processes import shared_memory
from controlplane.triton.runtime.state import read_state
from controlplane.wiring import SystemClock, build_services, build_worker, open_artifacts
from tests.store.registrations import graph

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["controlplane.wiring"])


SPEC: JsonObject = {
    "model": "relu",
    "space": {"instances": [1, 2]},
    "defaults": False,
    "load": {"concurrency": 2},
    "search": {"seconds": 60},
}


@dataclass
class House:
    settings: Settings
    database: Database
    url: str
    services: Services
    admin: Principal

    def rows(self, sweep: Sweep) -> tuple[Measurement, ...]:
        return self.services.sweeps.measurements(self.admin, sweep.id)

    def get(self, sweep: Sweep) -> Sweep:
        return self.services.sweeps.get(self.admin, sweep.id)

    def has(self, sweep: Sweep, count: int) -> bool:
        return len(self.rows(sweep)) >= count

    @contextmanager
    def worker(self) -> Iterator[BaseProcess]:
        process = _PROCESSES.Process(target=_work, args=(self.settings, self.url), daemon=False)
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join(10)

    def prefix(self) -> str:
        """Of what the bench's server keeps in shared memory."""
        state = read_state(self.settings.bench_home)
        return "" if state is None else state.shm_prefix


def _work(settings: Settings, url: str) -> None:
    storage = Storage(create_database(url), SystemClock().now)
    build_worker(settings, storage, name="worker").run(threading.Event())


@pytest.fixture
def house(database: Database, runtime: TritonRuntime, tmp_path: Path) -> House:
    home = tmp_path / "home"
    home.mkdir()
    assert runtime.environment is not None
    url = database.engine.url.render_as_string(hide_password=False)
    settings = load_settings(home=home, database={"url": url}, worker={"lease_seconds": 2.0}, tritonserver=None)
    (home / "runtime").symlink_to(runtime.environment.directory.parent)
    storage = Storage(database, SystemClock().now)
    services = build_services(settings, storage)
    admin, _ = services.access.bootstrap("admin", None)
    file = tmp_path / "model.onnx"
    file.write_bytes(graph())
    entry: FileEntry = open_artifacts(settings).add_file(file, "model.onnx")
    services.catalog.register_version(admin, Registration("relu", Manifest((entry,))))
    return House(settings, database, url, services, admin)


def wait(that: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not that():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def test_a_worker_that_is_killed_three_times_loses_no_measurement_and_leaves_nothing(house: House) -> None:
    """Sweep acceptance 5, for the worker, on a live server: killed while it loads, races and confirms."""
    sweep = house.services.sweeps.start(house.admin, spec_from_json(SPEC))
    kept: list[Measurement] = []
    prefixes: set[str] = set()
    processes: list[psutil.Process] = []
    for count in (0, 2, 7):
        with house.worker() as worker:
            wait(lambda: house.get(sweep).state is SweepState.RUNNING, 90, "it was claimed")
            wait(partial(house.has, sweep, count), 120, f"{count} blocks")
            time.sleep(0.3)
            processes += psutil.Process(worker.pid).children(recursive=True)
            prefixes.add(house.prefix())
        now = house.rows(sweep)
        assert all(one in now for one in kept)
        kept = list(now)
    with house.worker() as worker:
        wait(lambda: house.get(sweep).state in {SweepState.FINISHED, SweepState.FAILED}, 180, "the answer")
        prefixes.add(house.prefix())
        wait(lambda: not (bench_processes(worker) or memory(prefixes)), 90, "the bench was taken down")
    found, rows = house.get(sweep), house.rows(sweep)
    assert (found.state, found.answer is not None) == (SweepState.FINISHED, True), found.message
    assert all(one in rows for one in kept)
    rounds = {one.round for one in rows}
    assert [sorted(one.order.place for one in rows if one.round == number) for number in sorted(rounds)] == [
        list(range(sum(one.round == number for one in rows))) for number in sorted(rounds)
    ]
    wait(
        lambda: not any(map(alive, processes)), 60, "nothing is left"
    )  # a backend may outlive its server; the next bench ends it
    assert [entry.action for entry in entries(house, sweep)] == ["sweep.started", "sweep.finished"]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.is_running()
    except psutil.NoSuchProcess:
        return False


def memory(prefixes: set[str]) -> list[Path]:
    """What these servers left in shared memory."""
    return [path for prefix in prefixes - {""} for path in shared_memory(prefix)]


def bench_processes(worker: BaseProcess) -> list[str]:
    found = []
    for one in psutil.Process(worker.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found.append(one.name())
    return [name for name in found if "triton" in name]


def entries(house: House, sweep: Sweep) -> list[AuditEntry]:
    with Storage(house.database).read() as unit:
        return list(reversed(unit.audit.entries(subject=("sweep", str(sweep.id)))))
