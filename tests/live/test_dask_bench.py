# Rounds on a local Dask cluster of two bench workers, each with a Triton of its own; one of them is killed.
from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest

from clients.inference import InferenceClient
from clients.load.server import settled, statistics
from controlplane.bench.dask import DaskBench
from controlplane.bench.rounds import embedded_bench
from controlplane.cli.app import main
from controlplane.domain.sweep_rounds import Measurement, Requests, RoundOrder, RoundResult, Verdict
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.processes import birth
from controlplane.triton.runtime.state import STATE
from tests.live.bench_models import CLOSED, ROWS, Shelf, blocks, open_shelf, order
from tests.live.scaling import config, open_site
from tests.live.servers import MakeTriton
from tests.store.dask_workers import Cluster, waited


class Hosts(Cluster):
    """Its workers are what `tritonctl bench worker` starts, each in a home of its own."""

    def __init__(self, directory: Path, runtime: TritonRuntime) -> None:
        super().__init__(directory)
        environment = runtime.environment
        assert environment is not None
        self._runtime = environment.directory.parent

    def _add(self, name: str, memory: int, *, slot: bool) -> None:
        home = self.directory / name
        home.mkdir(exist_ok=True)
        if not (home / "runtime").is_symlink():
            (home / "runtime").symlink_to(self._runtime)
        command = ("-m", "controlplane", "bench", "worker", "--scheduler", self.scheduler, "--name", name)
        self._start(name, *command, TRITONCTL_HOME=str(home))

    def memory(self, name: str) -> str:
        """How the names of its server's shared memory begin."""
        return str(json.loads((self.directory / name / "bench" / STATE).read_text())["shm_prefix"])


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def hosts(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    found = Hosts(tmp_path_factory.mktemp("hosts"), runtime)
    yield found
    found.close()


def ordered(shelf: Shelf, *, turns: int) -> RoundOrder:
    """One candidate that sleeps an eighth as long as the other, so that two hosts on one machine are in nobody's way, and
    what a busy machine adds to both leaves the answer as it is."""
    models = [shelf.python(f"{ms} ms", f"time.sleep({ms / 1000} * len(rows))") for ms in (20, 160)]
    return order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=turns, seconds=1.5))


def ratio(ordered: RoundOrder, result: RoundResult) -> float:
    """Of the fast one's throughput to the slow one's, within turns."""
    fast, slow = (model.candidate for model in ordered.models)
    turns: dict[int, dict[str, float]] = {}
    for one in result.measurements:
        assert one.verdict is not Verdict.NOT_MEASURED
        turns.setdefault(one.order.turn, {})[one.order.candidate] = one.figures["throughput"]
    return median(turn[fast] / turn[slow] for turn in turns.values())


def overlapping(rows: Mapping[str, list[Measurement]]) -> list[tuple[Measurement, Measurement]]:
    return [
        (one, other)
        for of_host in rows.values()
        for one, other in pairwise(sorted(of_host, key=lambda row: row.started_at))
        if one.finished_at > other.started_at
    ]


def test_two_hosts_give_the_answer_of_one_and_a_killed_one_is_done_without(
    hosts: Hosts, shelf: Shelf, runtime: TritonRuntime, tmp_path: Path
) -> None:
    """Sweep acceptance 8: same answers, exclusive slots, one worker killed in the middle, its round done again."""
    round_ = ordered(shelf, turns=4)
    with embedded_bench(tmp_path / "bench", runtime) as local:
        alone = local.measure(round_, shelf.store, done=lambda _: None, go_on=lambda: None)

    hosts.have("a", "b")
    told: list[Measurement] = []
    killed = threading.Event()

    def done(one: Measurement) -> None:
        told.append(one)
        if not killed.is_set() and one.order.turn in {0, 2}:
            killed.set()
            hosts.kill("b")

    with DaskBench(hosts.address) as bench:
        spread = bench.measure(round_, shelf.store, done=lambda _: None, go_on=lambda: None)
        servers = {name: triton(hosts.pid(name)) for name in "ab"}
        prefixes = {hosts.memory(name) for name in "ab"}
        again = bench.measure(round_, shelf.store, done=done, go_on=lambda: None)

    halves = {"first": spread.measurements[:4], "second": spread.measurements[4:]}
    assert [one.order for one in spread.measurements] == list(round_.blocks)
    assert max(min(one.started_at for one in half) for half in halves.values()) < min(
        max(one.finished_at for one in half) for half in halves.values()
    )  # both at once, each in order
    assert overlapping({name: list(rows) for name, rows in halves.items()}) == []
    assert killed.is_set()
    assert sorted(one.order.place for one in told) == [block.place for block in round_.blocks]
    assert [one.order for one in again.measurements] == list(round_.blocks)
    assert {one.fingerprint for one in again.measurements} == {one.digest for one in (again.fingerprint, *again.also)}
    for result in (alone, spread, again):
        assert result.failed == ()
        assert 2 < ratio(round_, result) < 20
    waited(lambda: birth(servers["b"]) is None, "the Triton of the killed worker lives on", 60)
    waited(lambda: birth(servers["a"]) is None, "the other one is not stopped when the sweep is over", 60)

    hosts.have("a", "b")
    with DaskBench(hosts.address) as bench:
        after = bench.measure(ordered(shelf, turns=2), shelf.store, done=lambda _: None, go_on=lambda: None)
        prefixes |= {hosts.memory(name) for name in "ab"}
    assert len(after.measurements) == 4
    assert len(prefixes) == 4
    waited(lambda: not [path for path in Path("/dev/shm").iterdir() if path.name.startswith(tuple(prefixes))],
           "shared memory is left", 60)  # fmt: skip


def test_every_call_of_a_load_from_two_hosts_is_in_the_result(
    hosts: Hosts, make_triton: MakeTriton, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What both sent is what the server counted."""
    hosts.have("a", "b")
    site = open_site(make_triton(), tmp_path)
    site.write("m", {1: 3}, config())
    site.load("m")
    raw = tmp_path / "calls.npz"
    load = ("m", "--url", site.live.grpc, "--rate", "200", "--seconds", "2", "-o", "json", "--raw", str(raw))

    with InferenceClient(site.live.grpc) as client:
        before = statistics(client, "m", version=1)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "load", "--scheduler", hosts.scheduler, "--hosts", "2", *load])
    point = json.loads(capfd.readouterr().out)["points"][0]
    with InferenceClient(site.live.grpc) as client, np.load(raw) as calls:
        counted = settled(
            lambda: statistics(client, "m", version=1) - before, lambda seen: seen.succeeded >= len(calls["due"])
        )
    site.server.close()

    assert ended.value.code in {0, 5, 6, 7}  # two seconds are short, and hosts may be busy
    assert point["failed"] == {}
    with np.load(raw) as calls:
        due, answered = np.sort(calls["due"]), calls["answered"]
        assert len(due) == counted.succeeded
        low, high = np.quantile(answered - calls["due"], [0.05, 0.95]) / 1e9  # a warm-up is cut, whose calls are here
        assert low <= point["latency"]["scheduled"]["p50"]["value"] <= high
    assert 1.7e9 < due[-1] < 2.6e9


def triton(worker: int) -> int:
    """The server that a worker started."""
    (found,) = (one.pid for one in psutil.Process(worker).children() if one.name() == "tritonserver")
    return found
