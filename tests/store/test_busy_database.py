# A database file that another process holds: what is measured meanwhile is kept, and nobody is blamed.
from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweeps import SweepState
from controlplane.errors import DatabaseBusy
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.storage import database as databases
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock
from tests.store.sweeping import SMALL, SimulatedBench, SweepHouse

PATIENCE = 0.2


@pytest.fixture
def dialect(monkeypatch: pytest.MonkeyPatch) -> str:
    """PostgreSQL has no lock on the whole."""
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_SECONDS", PATIENCE)
    return "sqlite"


@pytest.fixture
def other(storage: Storage, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Of a process that wants the file for itself, as VACUUM does."""
    del storage
    with closing(sqlite3.connect(tmp_path / "db.sqlite", isolation_level=None, check_same_thread=False)) as connection:
        yield connection


def test_who_waits_too_long_is_told_that_the_database_is_busy(storage: Storage, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy, match=f"busy for {PATIENCE} seconds"), storage.write():
        pass


def test_a_block_that_was_measured_meanwhile_is_kept_and_the_sweep_goes_on(
    storage: Storage, clock: SteppingClock, store: ObjectArtifactStore, other: sqlite3.Connection
) -> None:
    house, bench = SweepHouse(storage, clock), SimulatedBench()
    sweep, held = house.start(space=SMALL), list[threading.Timer]()

    def hold(_: Measurement) -> None:
        if bench.measured == 3:
            other.execute("BEGIN IMMEDIATE")
            held.append(threading.Timer(4 * PATIENCE, lambda: other.execute("ROLLBACK")))
            held[0].start()

    bench.between = hold
    bench.time.instant = clock.now()
    SweepRunner(
        storage, clock, bench.open, store, house.codec,
        name="one", lease_seconds=30, turns=Turns(), poll_seconds=0.01,
    ).once()  # fmt: skip

    held[0].join()
    found = house.get(sweep)
    assert (found.state, found.message[:6]) == (SweepState.FINISHED, "trial ")
    with storage.read() as unit:
        assert len(unit.sweeps.measurements(sweep.id)) == bench.measured
