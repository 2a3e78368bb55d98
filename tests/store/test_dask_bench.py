# Rounds on a Dask cluster of real worker processes with simulated benches: spread, exclusive, done again, ended, refused.
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import controlplane
from clients.load.errors import LoadFailed
from clients.load.jobs import Load, due_times
from clients.load.outcomes import DUE
from clients.load.schedule import Curve
from clients.load.traffic import Traffic
from clients.load.verdicts import Limits
from controlplane.bench import cluster as cluster_module
from controlplane.bench import dask, slot
from controlplane.bench.cluster import connect, scheduler_address
from controlplane.bench.dask import DaskBench
from controlplane.bench.dask_load import SeveralHosts
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_rounds import BenchModel, BlockOrder, Measurement, Requests, RoundOrder, Stage, Step
from controlplane.domain.sweep_spec import Shape
from controlplane.errors import ArtifactCorrupt, RuntimeUnavailable, ServerUnreachable
from controlplane.storage.artifacts import ObjectArtifactStore
from tests.store.dask_workers import Cluster, SimulatedBench, waited
from tests.unit.load.echo import echoing
from tests.unit.load.peers import prefixed

LARGE = b"x" * 9_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> ObjectArtifactStore:
    return ObjectArtifactStore.local(tmp_path / "store")


def ordered(
    store: ObjectArtifactStore, *, turns: int = 4, seconds: float = 0.1, content: bytes = b"weights", sweep: int = 1
) -> RoundOrder:
    sha256, size = store.add_stream([content])
    golden, _ = store.add_stream([b"golden"])
    manifest = Manifest((FileEntry("model.onnx", size, sha256),))
    models = tuple(BenchModel(f"sha256:{name * 64}", 1, {"max_batch_size": 8}, manifest) for name in "abc")
    step = Step(Shape.CONCURRENCY, "4")
    blocks = [(turn, model.candidate) for turn in range(turns) for model in models]
    return RoundOrder(
        sweep, 1, Stage.RACE, models, {1: Requests(golden)},
        tuple(BlockOrder(at, turn, name, step, seconds, 100 + at) for at, (turn, name) in enumerate(blocks)),
    )  # fmt: skip


def nothing() -> None:
    pass


def spans(cluster: Cluster, name: str) -> list[tuple[float, float, JsonObject]]:
    begun, ended = cluster.journal(name, "begins"), cluster.journal(name, "ends")
    return [
        (float(str(one["at"])), float(str(other["at"])), one) for one, other in zip(begun, ended, strict=False)
    ]  # fmt: skip


def test_turns_are_spread_and_the_answer_is_that_of_one_bench(
    cluster: Cluster, store: ObjectArtifactStore, tmp_path: Path
) -> None:
    """Sweep acceptance 8: the same answers."""
    cluster.have("a", "b")
    order, told = ordered(store, content=LARGE), list[Measurement]()

    with DaskBench(cluster.address) as bench:
        result = bench.measure(order, store, done=told.append, go_on=nothing)
        again = bench.measure(replace(order, number=2), store, done=lambda _: None, go_on=nothing)

    alone = SimulatedBench(tmp_path / "journal", 8 << 30).measure(order, store, done=lambda _: None, go_on=nothing)
    for one in (result, again):
        assert [m.order for m in one.measurements] == list(order.blocks)
        assert [m.figures for m in one.measurements] == [m.figures for m in alone.measurements]
        assert (one.failed, one.fingerprint, one.also) == (alone.failed, alone.fingerprint, ())
    assert sorted(m.order.place for m in told) == list(range(12))
    for name in "ab":
        assert len(cluster.journal(name, "opens")) == 1  # kept from round to round
        assert len(cluster.journal(name, "closes")) == 1
        assert all(len(one["turns"]) == 2 for one in cluster.journal(name, "begins"))  # type: ignore[arg-type]


def test_a_slot_is_taken_by_one_sweep_at_a_time(cluster: Cluster, store: ObjectArtifactStore) -> None:
    """Sweep acceptance 8: exclusive slots."""
    cluster.have("a", "b")

    def sweep(number: int) -> int:
        with DaskBench(cluster.address) as bench:
            order = ordered(store, sweep=number)
            return sum(
                len(bench.measure(order, store, done=lambda _: None, go_on=nothing).measurements) for _ in range(2)
            )

    with ThreadPoolExecutor(3) as together:
        assert list(together.map(sweep, (11, 12, 13))) == [24, 24, 24]

    for name in "ab":
        taken = sorted((begin, end) for begin, end, _ in spans(cluster, name))
        assert len(taken) >= 3
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(taken))


def test_what_a_killed_worker_had_begun_is_done_again_and_nothing_twice(
    cluster: Cluster, store: ObjectArtifactStore
) -> None:
    """Sweep acceptance 8: one worker killed in the middle, its round done again."""
    cluster.have("a", "b")
    order, told = ordered(store, turns=6, seconds=0.3), list[Measurement]()
    killed = threading.Event()

    def done(one: Measurement) -> None:
        told.append(one)
        if one.order.turn == 3 and not killed.is_set():  # the first of the second half, on the other worker
            killed.set()
            victim = next(name for name in "ab" if 3 in cluster.journal(name, "begins")[-1]["turns"])  # type: ignore[operator]
            cluster.kill(victim)

    with DaskBench(cluster.address) as bench:
        result = bench.measure(order, store, done=done, go_on=nothing)

    assert killed.is_set()
    assert sorted(one.order.place for one in told) == list(range(18))
    assert [one.order for one in result.measurements] == list(order.blocks)
    assert sorted(told, key=lambda one: one.order.place) == list(result.measurements)
    survivor = next(name for name in "ab" if len(cluster.journal(name, "ends")) == 2)
    assert [one["turns"] for one in cluster.journal(survivor, "begins")] == [[0, 1, 2], [4, 5]]
    assert [one.order.turn for one in told[-6:]] == [4, 4, 4, 5, 5, 5]


def test_a_worker_that_ends_in_order_is_done_without_too(cluster: Cluster, store: ObjectArtifactStore) -> None:
    cluster.have("a", "b")
    order, told = ordered(store, seconds=0.3), list[Measurement]()
    ended = threading.Event()

    def done(one: Measurement) -> None:
        told.append(one)
        if not ended.is_set():
            ended.set()
            threading.Thread(target=cluster.kill, args=("b", 15)).start()

    with DaskBench(cluster.address) as bench:
        bench.measure(order, store, done=done, go_on=nothing)

    assert sorted(one.order.place for one in told) == list(range(12))


def test_a_round_that_is_not_wanted_any_more_ends_everywhere(cluster: Cluster, store: ObjectArtifactStore) -> None:
    cluster.have("a", "b")
    order, began = ordered(store, seconds=300.0), time.monotonic()

    class Cancelled(Exception):
        pass

    def go_on() -> None:
        if cluster.journal("a", "begins") and cluster.journal("b", "begins"):
            raise Cancelled

    with DaskBench(cluster.address) as bench, pytest.raises(Cancelled):
        bench.measure(order, store, done=lambda _: None, go_on=go_on)

    waited(lambda: all(cluster.journal(name, "ends") for name in "ab"), "the workers go on measuring", 90)
    assert time.monotonic() - began < 200


def test_a_round_whose_owner_is_gone_ends(cluster: Cluster, store: ObjectArtifactStore) -> None:
    cluster.have("a")
    order = ordered(store, seconds=300.0, content=b"")
    with connect(scheduler_address(cluster.address)) as client:
        worker = next(iter(client.scheduler_info()["workers"]))
        more = {"workers": [worker], "resources": {"bench": 1}, "pure": False}
        for model in order.models:
            for entry in model.manifest.files:
                client.submit(slot.keep_here, "0" * 32, entry.sha256, **more).result()
        answer = client.submit(slot.measure_here, order.to_json(), "t", **more)
        waited(lambda: cluster.journal("a", "begins"), "it does not begin")
        assert not answer.done()

    waited(lambda: cluster.journal("a", "ends"), "the worker goes on measuring", 90)


def test_altered_bytes_are_not_measured(cluster: Cluster, store: ObjectArtifactStore, tmp_path: Path) -> None:
    cluster.have("a")
    order = ordered(store, content=b"never seen before")

    class Altered(ObjectArtifactStore):
        def read(self, sha256: str) -> Iterator[bytes]:
            yield b"something else"

    with DaskBench(cluster.address) as bench, pytest.raises(ArtifactCorrupt):
        bench.measure(order, Altered.local(tmp_path / "altered"), done=lambda _: None, go_on=nothing)


def test_hosts_of_another_class_are_left_alone(
    cluster: Cluster, store: ObjectArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that tells other bytes of the same GiB is of the class, and both fingerprints are kept."""
    cluster.have("a", like=(8 << 30) + 4096, large=64 << 30)

    with DaskBench(cluster.address) as bench:
        first = bench.measure(ordered(store, turns=1), store, done=lambda _: None, go_on=nothing)
        result = bench.measure(ordered(store, turns=6), store, done=lambda _: None, go_on=nothing)

    measured = {one.fingerprint for one in result.measurements}
    sizes = {one.host.memory_bytes for one in (result.fingerprint, *result.also) if one.host is not None}
    assert {one.digest for one in (result.fingerprint, *result.also)} == measured
    assert {one.fingerprint for one in first.measurements} <= measured
    assert sizes in ({8 << 30, (8 << 30) + 4096}, {64 << 30})  # whichever told first


def test_a_cluster_that_cannot_measure_says_why(
    cluster: Cluster, store: ObjectArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_WAIT_SECONDS", 0.5)
    cluster.have("a")

    def refusal(order: RoundOrder, kind: type[Exception]) -> Exception:
        with DaskBench(cluster.address) as bench, pytest.raises(kind) as caught:
            bench.measure(order, store, done=lambda _: None, go_on=nothing)
        return caught.value

    no_runtime = refusal(ordered(store, content=b"no runtime"), RuntimeUnavailable)
    assert (str(no_runtime), no_runtime.hint) == ("there is no Triton here", "install one")  # type: ignore[attr-defined]
    with monkeypatch.context() as other:
        other.setattr(controlplane, "__version__", "9.9")
        assert "and this is 9.9" in str(refusal(ordered(store), RuntimeUnavailable))
    deadly = refusal(ordered(store, content=b"deadly"), ServerUnreachable)  # its one worker dies of it
    assert "has no bench worker" in str(deadly)
    cluster.have()
    none = refusal(ordered(store), ServerUnreachable)
    assert none.hint == f"start one: tritonctl bench worker --scheduler {cluster.scheduler}"  # type: ignore[attr-defined]


def test_a_worker_without_a_slot_is_told_apart(tmp_path: Path) -> None:
    """Any worker can say that it has the resource."""
    other = Cluster(tmp_path)
    try:
        other.have("plain", slot=False)
        with DaskBench(other.address) as bench, pytest.raises(RuntimeUnavailable, match="has no bench"):
            bench.measure(ordered(ObjectArtifactStore.local(tmp_path)), ObjectArtifactStore.local(tmp_path),
                          done=lambda _: None, go_on=nothing)  # fmt: skip
    finally:
        other.close()


def test_a_round_whose_scheduler_is_lost_ends_with_the_next_step_and_its_hosts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)
    store, other = ObjectArtifactStore.local(tmp_path / "store"), Cluster(tmp_path)
    told: list[Measurement] = []

    def done(one: Measurement) -> None:
        told.append(one)
        if len(told) == 1:
            other.kill("scheduler")

    try:
        other.have("a", "b")
        with DaskBench(other.address) as bench, pytest.raises(ServerUnreachable) as caught:
            bench.measure(ordered(store, seconds=0.5), store, done=done, go_on=nothing)
        assert caught.value.hint == "start it again, then: tritonctl sweep resume"
        assert len({one.order.place for one in told}) == len(told) < 12
        waited(lambda: all(other.journal(name, "closes") for name in "ab"), "the hosts go on without a scheduler", 90)
    finally:
        other.close()


def test_a_load_from_several_hosts_is_one_load(cluster: Cluster) -> None:
    cluster.have("a", "b")
    limits = Limits(seconds=1.5, cap=30.0, warm_up=0.3, precision=1.0)
    told: list[float] = []

    def progress(seconds: float, _records: object) -> bool:
        told.append(seconds)
        return True

    with echoing() as (server, target), SeveralHosts(cluster.scheduler) as several:
        load = Load(curve=Curve.flat(200))
        found = several(target, Traffic.of((prefixed(b"one"),)), load, limits, seed=3, progress=progress)
        closed = several(target, Traffic.of((prefixed(b"one"),)), Load(concurrency=4), limits)
        with pytest.raises(LoadFailed, match="it was stopped"):
            several(target, Traffic.of((prefixed(b"one"),)), load, limits, progress=lambda *_: False)
        before = server.count

        due = due_times(load, replace(limits, cap=1.5), 3)
        assert due is not None
        assert sorted(found.records[:, DUE].tolist()) == due.tolist()
        assert (found.failed, found.reconnects) == ({}, 0)
        assert 1.2 < found.seconds < 15  # not the cap
        assert closed.completed > 20
        assert before >= len(found.records) + len(closed.records)
        assert told == sorted(told)
    with (
        pytest.raises(ServerUnreachable, match="3 bench workers are wanted, and 2 are"),
        SeveralHosts(cluster.scheduler, 3) as more,
    ):
        more(target, Traffic.of((prefixed(b"one"),)), load, limits)
