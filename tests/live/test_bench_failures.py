# Candidates that cannot be measured on a bench, and benches that are killed: a row with its reason, and the rest goes on.
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.bench.rounds import LocalBench, embedded_bench
from controlplane.bench.scratch import EmbeddedScratch
from controlplane.domain.sweep_rounds import BenchModel, CandidateFailure, Measurement, Requests, RoundResult, Verdict
from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.processes import SHARED_MEMORY, shared_memory, stubs
from controlplane.triton.runtime.state import ServerState, read_state
from tests.live.bench_models import CLOSED, PYTHON, ROWS, Done, Shelf, blocks, measured, open_shelf, order
from tests.live.scaling import config, graph


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def bench(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBench]:
    with embedded_bench(tmp_path_factory.mktemp("bench"), runtime) as scratch_bench:
        yield scratch_bench


MAKERS = {
    "no such backend": lambda shelf: shelf.candidate(
        "no such backend", config().replace("onnxruntime", "nothing"), {"model.onnx": graph(3)}
    ),
    "no graph": lambda shelf: shelf.candidate("no graph", config(), {"model.onnx": b"nothing"}),
    "no GPU": lambda shelf: shelf.candidate(
        "no GPU", config().replace("KIND_CPU", "KIND_GPU"), {"model.onnx": graph(3)}
    ),
    "no memory": lambda shelf: shelf.python(
        "no memory",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\nnp.ones((1 << 30,), np.float64)",
    ),
}


def others(result: RoundResult, model: BenchModel) -> list[Measurement]:
    return [row for row in result.measurements if row.order.candidate != model.candidate]


def failed(bench: LocalBench, shelf: Shelf, model: BenchModel) -> CandidateFailure:
    """Of a round in which a good candidate's blocks stand before and after those of this one."""
    good = shelf.scale("good")
    ordered = order([good, model], Requests(shelf.golden(ROWS)), blocks([good, model], CLOSED, turns=2, seconds=0.6))
    result, done = measured(bench, shelf, ordered)
    assert [row.order for row in done.rows] == list(ordered.blocks)
    assert [row.failed for row in others(result, model)] == [0, 0]
    assert all("throughput" in row.figures for row in others(result, model))
    (failure,) = result.failed
    assert failure.candidate == model.candidate
    rows = [row for row in result.measurements if row.order.candidate == model.candidate]
    assert rows[-1].verdict is Verdict.NOT_MEASURED
    assert rows[-1].reasons == (failure.reason,)
    return failure


@pytest.mark.parametrize(
    ("name", "said", "logged"),
    [
        ("no such backend", "unable to find backend library for backend 'nothing'", "nothing"),
        ("no graph", "Protobuf parsing failed", "Protobuf parsing failed"),
        ("no GPU", "no GPUs are available", "no GPUs are available"),
    ],
)
def test_sweep_acceptance_6_a_candidate_that_cannot_load_is_a_row_with_reason_and_log(
    bench: LocalBench, shelf: Shelf, name: str, said: str, logged: str
) -> None:
    failure = failed(bench, shelf, MAKERS[name](shelf))
    assert said in failure.reason
    assert logged in failure.log


def test_sweep_acceptance_6_a_candidate_that_answers_nothing_says_why(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.candidate("other input", config().replace('"X"', '"Z"'), {"model.onnx": graph(3).replace(b"X", b"Z")})
    assert "it was loaded and answered nothing: INVALID_ARGUMENT" in failed(bench, shelf, model).reason


def test_sweep_acceptance_6_a_candidate_that_runs_out_of_memory_says_so(bench: LocalBench, shelf: Shelf) -> None:
    assert "MemoryError" in failed(bench, shelf, MAKERS["no memory"](shelf)).reason


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dies at once", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("dies later", "self.count > 60 and os.kill(os.getpid(), signal.SIGKILL)"),
    ],
)
def test_sweep_acceptance_6_a_candidate_whose_backend_dies_is_a_row_and_the_round_goes_on(
    bench: LocalBench, shelf: Shelf, name: str, code: str
) -> None:
    failure = failed(bench, shelf, shelf.python(name, code))
    assert "1 of its 1 backend processes ended" in failure.reason
    assert failure.log != ""


def test_sweep_acceptance_6_a_candidate_that_kills_the_server_is_a_row_and_the_round_goes_on(
    bench: LocalBench, shelf: Shelf
) -> None:
    failure = failed(bench, shelf, shelf.python("kills the server", "os.kill(os.getppid(), signal.SIGKILL)"))
    assert "the server ended (signal 9)" in failure.reason


def test_sweep_acceptance_6_a_candidate_that_hangs_is_a_row_and_the_round_goes_on(
    bench: LocalBench, shelf: Shelf
) -> None:
    failure = failed(bench, shelf, shelf.python("hangs", "time.sleep(3600)"))
    assert "answered nothing" in failure.reason


def test_sweep_acceptance_6_a_candidate_that_hangs_in_the_middle_of_a_block_is_a_row_and_the_round_goes_on(
    bench: LocalBench, shelf: Shelf
) -> None:
    """As a server does whose memory is damaged: it says that it is alive, and executes nothing."""
    code = "self.born = getattr(self, 'born', time.time())\ntime.sleep(3600 if time.time() - self.born > 1 else 0)"
    good, late = shelf.scale("good"), shelf.python("hangs later", code)
    ordered = order([good, late], Requests(shelf.golden(ROWS)), blocks([late, good], CLOSED, seconds=3.0))
    result = measured(bench, shelf, ordered)[0]
    assert [row.verdict is Verdict.NOT_MEASURED for row in result.measurements] == [True, False]
    (failure,) = result.failed
    assert failure.candidate == late.candidate
    assert "nothing any more" in failure.reason


def test_sweep_acceptance_6_a_load_that_never_ends_is_a_row_and_the_round_goes_on(
    runtime: TritonRuntime, shelf: Shelf, tmp_path: Path
) -> None:
    source = b"import time\nclass TritonPythonModel:\n    def initialize(self, args): time.sleep(3600)\n"
    model = shelf.candidate("never loads", PYTHON, {"model.py": source})
    with EmbeddedScratch(tmp_path, runtime) as scratch, LocalBench(scratch, load_seconds=12) as bench:
        assert "did not load" in failed(bench, shelf, model).reason


def test_sweep_acceptance_5_a_server_that_is_killed_in_a_block_costs_no_candidate(
    bench: LocalBench, shelf: Shelf
) -> None:
    models = [shelf.scale("one"), shelf.scale("two")]
    ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=2, seconds=2.0))
    scratch = bench.scratch
    assert isinstance(scratch, EmbeddedScratch)
    state = read_state(scratch.home)
    assert state is not None
    done = Done()

    def kill() -> None:
        while len(done.rows) < 1:
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(state.pid or 0, signal.SIGKILL)

    threading.Thread(target=kill).start()
    result = bench.measure(ordered, shelf.store, done=done, go_on=lambda: None)
    assert result.failed == ()
    assert [row.order for row in done.rows] == list(ordered.blocks)
    assert [row.failed for row in done.rows] == [0] * 4
    assert shared_memory(state.shm_prefix) == []


def test_sweep_acceptance_5_a_backend_that_is_killed_between_blocks_costs_nothing(
    bench: LocalBench, shelf: Shelf
) -> None:
    models = [shelf.scale("one"), shelf.scale("two")]
    ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=2))
    scratch = bench.scratch
    assert isinstance(scratch, EmbeddedScratch)
    victims: list[int] = []

    def done(row: Measurement) -> None:
        if row.order.place == 0:  # the next block is the other one's
            victims.extend(one.pid for one in scratch.backends(models[0].scratch_name))
            for pid in victims:
                os.kill(pid, signal.SIGKILL)

    result = bench.measure(ordered, shelf.store, done=done, go_on=lambda: None)
    assert len(victims) == 1
    assert result.failed == ()
    assert [row.failed for row in result.measurements] == [0] * 4


def test_sweep_acceptance_5_a_load_process_that_is_killed_costs_no_block(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.scale("one")
    ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED, turns=2, seconds=2.0))
    done = Done()

    def kill() -> None:
        while len(done.rows) < 1:
            time.sleep(0.05)
        time.sleep(1.0)
        for child in psutil.Process().children():
            if "multiprocessing.spawn" in " ".join(child.cmdline()):
                child.kill()

    threading.Thread(target=kill).start()
    result = bench.measure(ordered, shelf.store, done=done, go_on=lambda: None)
    assert result.failed == ()
    assert [row.failed for row in result.measurements] == [0, 0]


ALONE = """
import sys
from pathlib import Path
from controlplane.bench.rounds import embedded_bench
from controlplane.domain.sweep_rounds import Requests
from controlplane.triton.runtime.find import find
from tests.live.bench_models import CLOSED, ROWS, blocks, open_shelf, order

shelf = open_shelf(Path(sys.argv[1]) / "shelf")
models = [shelf.scale("one"), shelf.python("hung", "time.sleep(3600) if self.count > 300 else None")]
ordered = order(models, Requests(shelf.golden(ROWS)), blocks(models, CLOSED, turns=50))
with embedded_bench(Path(sys.argv[1]), find(Path(sys.argv[2]))) as bench:
    print("open", flush=True)
    bench.measure(ordered, shelf.store, done=lambda row: print("row", flush=True), go_on=lambda: None)
"""


@pytest.mark.parametrize("moment", ["open", "row", "later"])
def test_sweep_acceptance_5_nothing_is_left_of_a_bench_that_was_killed_after_the_next_start(
    runtime: TritonRuntime, shelf: Shelf, tmp_path: Path, moment: str
) -> None:
    assert runtime.environment is not None
    directory = runtime.environment.directory.parent
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, str(tmp_path), str(directory)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        while (line := child.stdout.readline().strip()) != ("row" if moment == "later" else moment):
            assert line
        time.sleep(2 if moment == "later" else 0)
        state = read_state(tmp_path)
        started = psutil.Process(child.pid).children(recursive=True)
        child.kill()
    assert state is not None
    with embedded_bench(tmp_path, runtime) as bench:
        assert_nothing_left(state, started)
        assert list((tmp_path / "models").iterdir()) == []
        model = shelf.scale("one")
        ordered = order([model], Requests(shelf.golden(ROWS)), blocks([model], CLOSED))
        assert [row.failed for row in measured(bench, shelf, ordered)[0].measurements] == [0]
        now = read_state(tmp_path)
    assert now is not None
    assert_nothing_left(now, [])
    assert not (tmp_path / "models").exists()


def assert_nothing_left(state: ServerState, processes: list[psutil.Process]) -> None:
    psutil.wait_procs(processes, timeout=60)
    assert [process for process in processes if process.is_running()] == []
    assert not state.alive()
    assert list(stubs(state.shm_prefix)) == []
    assert [path for path in SHARED_MEMORY.iterdir() if path.name.startswith(state.shm_prefix)] == []


def test_a_bench_is_held_by_one_at_a_time(
    runtime: TritonRuntime, bench: LocalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.bench.scratch._TAKEN_SECONDS", 0.1)
    scratch = bench.scratch
    assert isinstance(scratch, EmbeddedScratch)
    with pytest.raises(RuntimeUnavailable, match="another process measures"), embedded_bench(scratch.home, runtime):
        pass
    assert scratch.alive()
