# The embedded backend against onnxruntime called directly: where requests cost most, and where computing does.
from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from clients.inference import InferenceClient, Tensor
from tests.bench.report import Report, by_turns
from tests.live.onnx_graphs import parse
from tests.live.servers import LiveTriton

SECONDS = 1.5
TURNS = 5
THREADS = 2
WIDTH, LAYERS, ROWS = 1024, 8, 32


def measure(report: Report, triton: LiveTriton) -> None:
    tiny = parse("m (float[N,4] x) => (float[N,4] y) <float f = {2.0}> { y = Mul(x, f) }")
    one_row: dict[str, Tensor] = {"x": np.ones((1, 4), np.float32)}
    _compare(report, triton, "tiny", tiny, one_row, columns=4, in_flight=8, what="overhead-bound")
    many: dict[str, Tensor] = {"x": np.ones((ROWS, WIDTH), np.float32)}
    _compare(report, triton, "large", _large(), many, columns=WIDTH, in_flight=3, what="compute-bound")


def _compare(
    report: Report,
    triton: LiveTriton,
    name: str,
    graph: onnx.ModelProto,
    inputs: dict[str, Tensor],
    *,
    columns: int,
    in_flight: int,
    what: str,
) -> None:
    _place(triton, name, graph, columns)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with InferenceClient(triton.grpc) as client:
        ours, theirs = by_turns(
            TURNS,
            lambda: _through_triton(client, name, inputs, in_flight),
            lambda: _directly(session, inputs),
        )
    report.add(f"embedded backend, {what}, {in_flight} in flight", "1/s", ours, theirs, "onnxruntime called directly")


def _through_triton(client: InferenceClient, name: str, inputs: dict[str, Tensor], in_flight: int) -> float:
    client.infer(name, inputs, deadline_seconds=30)
    done = itertools.count()
    end = time.monotonic() + SECONDS
    lock = threading.Lock()

    def ask() -> None:
        while time.monotonic() < end:
            client.infer(name, inputs, deadline_seconds=30)
            with lock:
                next(done)

    with ThreadPoolExecutor(in_flight) as pool:
        for asked in [pool.submit(ask) for _ in range(in_flight)]:
            asked.result()
    return next(done) / SECONDS


def _directly(session: onnxruntime.InferenceSession, inputs: dict[str, Tensor]) -> float:
    session.run(None, inputs)
    done, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        session.run(None, inputs)
        done += 1
    return done / SECONDS


def _place(triton: LiveTriton, name: str, graph: onnx.ModelProto, columns: int) -> None:
    """Into the repository by hand, and loaded."""
    from tritonclient.grpc import InferenceServerClient

    home: Path = triton.repository / name
    (home / "1").mkdir(parents=True)
    onnx.save(graph, home / "1" / "model.onnx")
    (home / "config.pbtxt").write_text(
        f"""
name: "{name}" backend: "onnxruntime" max_batch_size: {ROWS}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {columns} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {columns} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{THREADS}" }} }}
"""
    )
    with InferenceServerClient(triton.grpc) as control:
        control.load_model(name, headers=triton.headers)


def _large() -> onnx.ModelProto:
    chance = np.random.default_rng(1)
    weights = [(chance.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(LAYERS)]
    names = ["x", *(f"h{i}" for i in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(LAYERS)]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model
