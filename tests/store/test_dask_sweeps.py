# Whole sweeps on a Dask cluster of real worker processes, on a bench that simulates: the answer is that of one bench.
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from controlplane.bench.dask import DaskBench
from controlplane.domain.canonical import JsonObject
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, RoundOrder, RoundResult
from controlplane.domain.sweeps import Sweep, SweepState
from controlplane.services.ports import ArtifactStore, Bench, BenchOpener
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from tests.simulated_bench import SimulatedBench
from tests.store.clock import SteppingClock
from tests.store.dask_workers import Cluster
from tests.store.sweeping import SweepHouse

SPEC: JsonObject = {"search": {"seconds": 600}}


@pytest.fixture
def house(storage: Storage, clock: SteppingClock) -> SweepHouse:
    return SweepHouse(storage, clock)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.close()


class Watched:
    """A Dask bench in whose second round a worker is killed."""

    def __init__(self, bench: DaskBench, kill: Callable[[], None]) -> None:
        self._bench = bench
        self._kill = kill
        self.rounds = 0

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint]:
        return self._bench.fingerprints

    def measure(
        self, order: RoundOrder, store: ArtifactStore, *, done: Callable[[Measurement], None], go_on: Callable[[], None]
    ) -> RoundResult:
        self.rounds += 1
        told = 0

        def heard(measurement: Measurement) -> None:
            nonlocal told
            done(measurement)
            told += 1
            if (self.rounds, told) == (2, 1):
                self._kill()

        return self._bench.measure(order, store, done=heard, go_on=go_on)


def served(
    house: SweepHouse, store: ObjectArtifactStore, opener: BenchOpener
) -> tuple[object, list[tuple[int, BlockOrder, Mapping[str, float]]]]:
    """The trial that the sweep chose, and its rows, but for when they were made."""
    sweep = house.start(**SPEC)
    runner = SweepRunner(
        house.storage, house.clock, opener, store, house.codec, name="w", lease_seconds=30, turns=Turns(), poll_seconds=0.01
    )  # fmt: skip
    assert runner.once()
    found = house.get(sweep)
    assert found.state is SweepState.FINISHED
    assert found.answer is not None
    rows = sorted(
        house.sweeps.measurements(house["vera"], sweep.id), key=lambda one: (one.round, one.order.place)
    )  # fmt: skip
    return str(found.answer["chosen"]).partition(".")[2], [(one.round, one.order, dict(one.figures)) for one in rows]


def test_a_sweep_on_two_hosts_of_which_one_is_killed_has_the_answer_of_one_host(
    house: SweepHouse, store: ObjectArtifactStore, cluster: Cluster
) -> None:
    """Sweep acceptance 8: same answers, also where a worker is killed in the middle of a round."""
    cluster.have(a=0, b=0)
    watched: list[Watched] = []

    @contextmanager
    def opened(sweep: Sweep) -> Iterator[Bench]:
        del sweep
        with DaskBench(cluster.address) as bench:
            watched.append(Watched(bench, lambda: cluster.kill("b")))
            yield watched[-1]

    alone = served(house, store, SimulatedBench().open)
    spread = served(house, store, opened)

    assert watched[0].rounds > 3
    assert len(alone[1]) > 30
    assert spread == alone
