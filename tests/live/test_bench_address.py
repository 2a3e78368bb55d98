# A bench by its address: nothing of it is touched but scratch models, candidates fail there alike, and it may come and go.
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clients.inference import InferenceClient
from controlplane.bench import scratch
from controlplane.bench.rounds import LocalBench, bench_at
from controlplane.domain.config_revision import revision_config
from controlplane.domain.sweep_rounds import SCRATCH, Requests, Verdict
from controlplane.errors import Conflict, ServerRefused, ServerUnreachable
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.side_load import Content, SideLoader
from tests.live.bench_models import CLOSED, ROWS, Done, Shelf, blocks, measured, open_shelf, order
from tests.live.scaling import config
from tests.live.servers import ADMIN_KEY, LiveTriton, MakeTriton, launch


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def live(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTriton]:
    launched = launch(runtime, tmp_path_factory.mktemp("elsewhere"))
    yield launched
    launched.process.stop(0)


@pytest.fixture
def bench(live: LiveTriton) -> Iterator[LocalBench]:
    with bench_at(live.grpc, key=ADMIN_KEY) as opened:
        yield opened


def names(live: LiveTriton) -> list[str]:
    with InferenceClient(live.grpc, metadata=tuple(live.headers.items())) as client:
        return SideLoader(client).loaded(SCRATCH)


def test_scratch_models_that_a_killed_bench_left_are_unloaded_at_the_start_and_its_own_at_the_end(
    live: LiveTriton, shelf: Shelf
) -> None:
    left = [shelf.scale("left over"), shelf.scale("left too")]
    with bench_at(live.grpc, key=ADMIN_KEY) as killed:
        for model in left:
            killed.scratch.load(model, shelf.store, seconds=30, go_on=lambda: None)
        assert names(live) == sorted(model.scratch_name for model in left)
        with bench_at(live.grpc, key=ADMIN_KEY) as bench:
            assert names(live) == []
            model = shelf.scale("one")
            ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED))
            result, _ = measured(bench, shelf, ordered)
            assert [row.failed for row in result.measurements] == [0]
            assert result.fingerprint.serving.triton_version == "2.51.0"
            assert result.fingerprint.local
            assert names(live) == [model.scratch_name]
    assert names(live) == []


def test_who_leaves_late_takes_nothing_from_who_came_after(live: LiveTriton, shelf: Shelf) -> None:
    """A sweep that is cancelled frees its bench before its worker has left it."""
    mine, theirs = shelf.scale("mine"), shelf.scale("theirs")
    with ExitStack() as late:
        old = late.enter_context(bench_at(live.grpc, key=ADMIN_KEY))
        old.scratch.load(mine, shelf.store, seconds=30, go_on=lambda: None)
        with bench_at(live.grpc, key=ADMIN_KEY) as new:
            new.scratch.load(theirs, shelf.store, seconds=30, go_on=lambda: None)
            late.close()
            assert names(live) == [theirs.scratch_name]
    assert names(live) == []


def test_a_server_that_serves_somebody_is_no_bench_unless_it_is_named_as_one(
    live: LiveTriton, shelf: Shelf, tmp_path: Path
) -> None:
    """Its address may be spelled otherwise than that of an environment's server."""
    serving = shelf.scale("serving")
    files = {f"1/{one.path}": b"".join(shelf.store.read(one.sha256)) for one in serving.manifest.files}
    content = Content(revision_config({**serving.config, "name": "somebody"}, [1]), files)
    with InferenceClient(live.grpc, metadata=tuple(live.headers.items())) as client:
        loader = SideLoader(client)
        loader.load("somebody", content=content, deadline_seconds=30, go_on=lambda: None)
        with pytest.raises(Conflict, match="serves 'somebody'"), bench_at(live.grpc, key=ADMIN_KEY, alone=True):
            pass
        with bench_at(live.grpc, key=ADMIN_KEY, home=tmp_path / "home"):
            assert loader.ready("somebody")
        loader.unload("somebody", go_on=lambda: None)
    with bench_at(live.grpc, key=ADMIN_KEY, alone=True) as alone:
        assert alone.scratch.alive()


@pytest.mark.parametrize("how", ["no graph", "dies", "hangs"])
def test_sweep_acceptance_6_by_address_too(bench: LocalBench, shelf: Shelf, how: str) -> None:
    bad, said = {
        "no graph": (shelf.candidate(how, config(), {"model.onnx": b"nothing"}), "Protobuf parsing failed"),
        "dies": (shelf.python(how, "os.kill(os.getpid(), signal.SIGKILL)"), "answered nothing"),
        "hangs": (shelf.python(how, "time.sleep(3600)"), "answered nothing"),
    }[how]
    models = [shelf.scale("good"), bad]
    ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED))
    result, _ = measured(bench, shelf, ordered)
    good, failed = result.measurements
    assert (good.failed, "throughput" in good.figures) == (0, True)
    assert failed.verdict is Verdict.NOT_MEASURED
    assert said in failed.reasons[0]
    assert [one.candidate for one in result.failed] == [bad.candidate]


def test_sweep_acceptance_5_a_server_that_somebody_starts_again_costs_no_candidate(
    make_triton: MakeTriton, shelf: Shelf
) -> None:
    live, done = make_triton(), Done()
    models = [shelf.scale("one"), shelf.scale("two")]
    ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=2, seconds=2.0))
    killed = threading.Event()

    def kill() -> None:
        while not done.rows:
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(live.process.state.pid or 0, signal.SIGKILL)
        killed.set()

    def go_on() -> None:
        """It dies with the thread that starts it, so that it is this one's."""
        if killed.is_set() and live.process.poll() is not None:
            killed.clear()
            live.process.clean()
            live.process.start()

    threading.Thread(target=kill).start()
    with bench_at(live.grpc, key=ADMIN_KEY) as bench:
        result = bench.measure(ordered, shelf.store, done=done, go_on=go_on)
    assert result.failed == ()
    assert [row.order for row in done.rows] == list(ordered.blocks)
    assert [row.failed for row in done.rows] == [0] * 4


def test_a_server_that_does_not_come_back_ends_the_round(
    make_triton: MakeTriton, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_COME_BACK_SECONDS", 1.0)
    live, model = make_triton(), shelf.scale("one")
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED))
    with bench_at(live.grpc, key=ADMIN_KEY) as bench:
        live.process.kill()
        with pytest.raises(ServerUnreachable, match="no bench server can be reached"):
            measured(bench, shelf, ordered)


def test_a_wrong_key_is_said_and_no_failure_of_the_candidate(live: LiveTriton, shelf: Shelf) -> None:
    model = shelf.scale("one")
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED))
    with bench_at(live.grpc, key="wrong") as bench, pytest.raises(ServerRefused, match="refused"):
        measured(bench, shelf, ordered)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ServerUnreachable, match="no bench server"), bench_at("127.0.0.1:1"):
        pass
