# Models that are awkward to measure, on an embedded bench and on one by its address.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper

from controlplane.bench.rounds import LocalBench, bench_at, embedded_bench
from controlplane.domain.catalog import Batching, Signature
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_rounds import BenchModel, Requests, Verdict
from controlplane.triton.generate import generate
from controlplane.triton.golden import has_dynamic_lead
from controlplane.triton.inspect_graph import open_session, specs
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.bench_models import CLOSED, ROWS, Shelf, blocks, measured, open_shelf, order
from tests.live.onnx_graphs import Graph, graph, parse, write
from tests.live.python_models import ACCUMULATOR, accumulator
from tests.live.servers import ADMIN_KEY, LiveTriton, launch

HOST = HostFacts(cpu_cores=2, gpus=0, memory_bytes=4 << 30)
SEVEN = Graph(
    "seven_inputs",
    parse(
        "g (float[n,2] a, double[n,2] b, int64[n,2] c, int32[n,1] d, bool[n,1] e, string[n,1] f, uint8[n,3] h)"
        " => (float[n,2] y, string[n,1] s, uint8[n,3] k)"
        " { bf = Cast<to = 1>(b) cf = Cast<to = 1>(c) df = Cast<to = 1>(d) one = Add(a, bf) two = Add(cf, df)"
        " y = Where(e, one, two) s = Identity(f) k = Identity(h) }"
    ),
    {
        "a": np.ones((3, 2), np.float32),
        "b": np.ones((3, 2), np.float64),
        "c": np.ones((3, 2), np.int64),
        "d": np.ones((3, 1), np.int32),
        "e": np.array([[True], [False], [True]]),
        "f": np.array([["one"], [""], ["drei €"]], np.object_),
        "h": np.ones((3, 3), np.uint8),
    },
    batchable=True,
)


def heavy() -> Graph:
    model = parse("g (float[n,4096] x) => (float[n,4300] y) { y = MatMul(x, w) }")
    weights: npt.NDArray[np.float32] = np.zeros((4096, 4300), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return Graph("heavy", model, {"x": np.ones((1, 4096), np.float32)}, batchable=True, external=True)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def server(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTriton]:
    """One that is not the bench's own."""
    live = launch(runtime, tmp_path_factory.mktemp("elsewhere"))
    yield live
    live.process.stop(0)


@pytest.fixture(scope="module", params=["embedded", "by address"])
def bench(
    request: pytest.FixtureRequest, runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalBench]:
    if request.param == "embedded":
        with embedded_bench(tmp_path_factory.mktemp("bench"), runtime) as opened:
            yield opened
    else:
        live: LiveTriton = request.getfixturevalue("server")
        with bench_at(live.grpc, key=ADMIN_KEY) as opened:
            yield opened


def candidate(shelf: Shelf, graph: Graph, directory: Path) -> BenchModel:
    """With the config that is generated for it."""
    write(graph, directory)
    inputs, outputs = specs(open_session(directory, optimized=True))
    dynamic = all(has_dynamic_lead(spec) for spec in (*inputs, *outputs))
    batching = Batching.BATCHABLE if graph.batchable else Batching.MIXES_ROWS if dynamic else Batching.FIXED
    shapes = {name: value.shape for name, value in graph.inputs.items()}
    signature = Signature(inputs, outputs, batching, 17, 8, "test")
    asked = GenerateRequest(graph.name, signature, HOST, embedded=True, golden_shapes=shapes)
    text = PbtxtCodec().render(generate(asked).config)
    return shelf.candidate(graph.name, text, {path.name: path.read_bytes() for path in directory.iterdir()})


@pytest.mark.parametrize(
    "name",
    [
        "fixed_batch_of_four",
        "fixed_batch_of_one",
        "rows_against_rows",
        "sizes_as_values",
        "scalar",
        "scalar_state",
        "strings",
        "seven_inputs",
        "dynamic_inner_dims",
        "echo",
        "vector_of_rows",
        "weights_in_another_file",
    ],
)
def test_sweep_acceptance_7_awkward_models_are_measured(
    bench: LocalBench, shelf: Shelf, tmp_path: Path, name: str
) -> None:
    what = SEVEN if name == SEVEN.name else graph(name)
    model = candidate(shelf, what, tmp_path / "model")
    inputs = {
        key: np.array([str(one).encode() for one in value.ravel()], np.object_).reshape(value.shape)
        if value.dtype == np.object_
        else value
        for key, value in what.inputs.items()
    }
    ordered = order([model], Requests(shelf.golden(inputs)), blocks([model], CLOSED))
    result, _ = measured(bench, shelf, ordered)
    assert result.failed == ()
    (row,) = result.measurements
    assert (row.failed, row.completed > 0) == (0, True)


def test_sweep_acceptance_7_seventy_megabytes_of_weights_are_measured(
    bench: LocalBench, shelf: Shelf, tmp_path: Path
) -> None:
    model = candidate(shelf, heavy(), tmp_path / "model")
    assert model.manifest.size > 70_000_000
    golden = shelf.golden({"x": np.ones((1, 4096), np.float32)})
    (row,) = measured(bench, shelf, order([model], Requests(golden), blocks([model], CLOSED)))[0].measurements
    assert (row.failed, row.completed > 0) == (0, True)


def test_sweep_acceptance_7_a_stateful_model_gets_sequences_of_one_request(bench: LocalBench, shelf: Shelf) -> None:
    model = shelf.candidate("stateful", accumulator(), {"model.py": ACCUMULATOR.encode()})
    asked = Requests(shelf.golden({"X": np.arange(3, dtype=np.int64).reshape(3, 1)}), sequences=True)
    (row,) = measured(bench, shelf, order([model], asked, blocks([model], CLOSED)))[0].measurements
    assert (row.failed, row.completed > 0) == (0, True)


def test_sweep_acceptance_7_requests_that_do_not_fit_are_refused_with_the_reason(
    bench: LocalBench, shelf: Shelf
) -> None:
    model = shelf.scale("narrow")
    asked = Requests(shelf.golden(ROWS), rows=9)
    result, _ = measured(bench, shelf, order([model], asked, blocks([model], CLOSED)))
    assert result.measurements[0].verdict is Verdict.NOT_MEASURED
    assert result.failed[0].reason == "requests of 9 rows are more than its max_batch_size, 8"
