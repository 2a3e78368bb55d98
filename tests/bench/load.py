# Load acceptance 1 and 4: suite `load`, our load generator beside others on one server, and how late it sends at fixed rates.
from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import InferenceServerClient

from clients.load.calibrate import calibrate
from clients.load.measure import Limits, Load, Target, measure
from clients.load.messages import message
from clients.load.schedule import Curve
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.install import install
from tests.bench.report import ROOT, Report
from tests.bench.rivals import grpcio, perf_analyzer
from tests.live.servers import LiveTriton, launch

IN_FLIGHT = (1, 4, 16, 32)
ROUNDS = 6
SECONDS = 2.0
RATES = (100, 1000, 3000)
WIDTH = 64
MODEL = "mlp"
_PREFIX = 5
"""Of a gRPC message, before its body."""


def main() -> None:
    begin = time.monotonic()
    report = Report("load")
    directory = Path(os.environ.get("TRITONCTL_TEST_RUNTIME") or ROOT / "build" / "runtime")
    install(directory, progress=lambda words, _share: print(words, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="tritonctl-bench-") as name:
        triton = launch(find(directory), Path(name))
        try:
            _place(triton)
            host, port = triton.grpc.split(":")
            target = Target(host, int(port))
            request = message(MODEL, {"x": np.ones((1, WIDTH), np.float32)}, version=None, parameters={})
            for in_flight in IN_FLIGHT:
                _side_by_side(report, triton.grpc, target, request, in_flight)
            _calibration(report, target)
            for rate in RATES:
                _lateness(report, target, request, rate)
        finally:
            triton.process.stop(0)
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")


def _side_by_side(report: Report, address: str, target: Target, request: bytes, in_flight: int) -> None:
    """Every generator once, then every generator again in the other order: what the machine does meanwhile meets all."""
    ways: dict[str, Callable[[], tuple[float, float] | None]] = {
        "grpcio": partial(grpcio, address, request[_PREFIX:], in_flight, SECONDS),
        "ours": partial(_ours, target, request, in_flight),
        "perf_analyzer": partial(perf_analyzer, address, MODEL, in_flight, SECONDS),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name in list(ways) if turn % 2 == 0 else reversed(ways):
            figures = ways[name]()
            if figures is not None:
                seen[name].append(figures)
    for index, (figure, unit) in enumerate((("rate", "1/s"), ("p50", "ms"))):
        ours = [pair[index] for pair in seen["ours"]]
        for other in ("grpcio", "perf_analyzer"):
            name = f"{figure}, {in_flight} in flight, beside {other}"
            if len(seen[other]) == len(ours):
                report.add(name, unit, ours, [pair[index] for pair in seen[other]], other)
            else:
                report.unproven(name, unit, f"{other} is not on the path, or did not run")


def _ours(target: Target, request: bytes, in_flight: int) -> tuple[float, float]:
    limits = Limits(seconds=SECONDS, cap=SECONDS, warm_up=0.2)
    measured = measure(target, (request,), Load(concurrency=in_flight), limits)
    assert not measured.failed, measured.failures
    return measured.rate.value, 1000 * measured.latency.sent[50.0].value


def _calibration(report: Report, target: Target) -> None:
    for in_flight in IN_FLIGHT:
        ceiling = calibrate(target, concurrency=in_flight, processes=1, connections=1).ceiling
        report.figure(f"calls without inference, {in_flight} in flight", "1/s", ceiling)


def _lateness(report: Report, target: Target, request: bytes, rate: int) -> None:
    """Of one process; the bound is that over which a measurement says that the client limited it."""
    limits = Limits(seconds=SECONDS, cap=SECONDS, warm_up=0.2)
    late, bound = [], 1000 * limits.lateness
    for seed in range(ROUNDS):
        measured = measure(target, (request,), Load(curve=Curve.flat(rate)), limits, seed=seed)
        late.append(1000 * measured.lateness_p99)
    report.add(f"lateness p99 at {rate}/s", "ms", late, [bound] * ROUNDS, "the bound")


def _place(triton: LiveTriton) -> None:
    """A small network, as the trial in the reference had: what costs is the way there and back."""
    chance = np.random.default_rng(1)
    weights = [(chance.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(2)]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w1"], ["y"]),
        ],
        MODEL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    home = triton.repository / MODEL
    (home / "1").mkdir(parents=True)
    onnx.save(model, home / "1" / "model.onnx")
    (home / "config.pbtxt").write_text(
        f"""
name: "{MODEL}" backend: "onnxruntime" max_batch_size: 64
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""
    )
    with InferenceServerClient(triton.grpc) as control:
        control.load_model(MODEL, headers=triton.headers)


if __name__ == "__main__":
    main()
