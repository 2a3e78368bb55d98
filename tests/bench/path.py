# Acceptance 11: suite `path`, what the way from a file to a served and recorded change costs, each beside what it is compared with.
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from controlplane.services.catalog import Registration
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.install import install as install_runtime
from tests.bench import audit, changes, serving
from tests.bench.report import ROOT, Report, by_turns
from tests.live.installation import Installation
from tests.live.installation import install as install_all
from tests.live.servers import LiveTriton, launch

WIDTH = 8192  # 8192 x 8192 floats are 256 MiB
MEGABYTE = 1_000_000


def main() -> None:
    begin = time.monotonic()
    report = Report("path")
    directory = Path(os.environ.get("TRITONCTL_TEST_RUNTIME") or ROOT / "build" / "runtime")
    install_runtime(directory, progress=lambda words, _share: print(words, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="tritonctl-bench-") as name:
        scratch = Path(name)
        _start_up(report)
        triton = launch(find(directory), scratch)
        try:
            changes.measure(report, scratch, triton)
            serving.measure(report, triton)
            _registration(report, scratch, triton)
        finally:
            triton.process.stop(0)
        audit.measure(report, scratch)
    print(f"wrote {report.write()} after {time.monotonic() - begin:.0f} s")


def _start_up(report: Report) -> None:
    tritonctl = Path(sys.executable).with_name("tritonctl")
    help_, bare = by_turns(10, lambda: _run([str(tritonctl), "--help"]), lambda: _run([sys.executable, "-c", "pass"]))
    report.add("tritonctl --help", "ms", help_, bare, "python -c pass")


def _run(command: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return 1000 * (time.monotonic() - begin)


def _registration(report: Report, scratch: Path, triton: LiveTriton) -> None:
    home = scratch / "registration"
    home.mkdir()
    database = create_database(f"sqlite:///{home / 'db.sqlite'}")
    upgrade(database)
    at = install_all(home, database, triton)
    model = _big_model(scratch / "big")
    weights = model / "weights.bin"
    rate = weights.stat().st_size / MEGABYTE
    turn = iter(range(100))
    whole, stored, summed = by_turns(
        3,
        lambda: rate / _register(at, model, next(turn)),
        lambda: rate / _store(at, weights, next(turn)),
        lambda: rate / (_run(["sha256sum", str(weights)]) / 1000),
    )
    report.add("artifact store, 268 MB", "MB/s", stored, summed, "sha256sum of the same file")
    report.add("model register, 268 MB, checked and run", "MB/s", whole, summed, "sha256sum of the same file")
    database.close()


def _store(at: Installation, weights: Path, turn: int) -> float:
    _renew(weights, turn)
    begin = time.monotonic()
    entry = at.artifacts.add_file(weights, "weights.bin")
    taken = time.monotonic() - begin
    assert entry.sha256 == "sha256:" + _sha256(weights)
    return taken


def _register(at: Installation, model: Path, turn: int) -> float:
    """As the service does it: into the store, out to be inspected, checked, run for its golden inferences, recorded."""
    _renew(model / "weights.bin", turn)
    begin = time.monotonic()
    manifest = at.artifacts.add_directory(model)
    at.catalog.register_version(at["author"], Registration(f"big{turn}", manifest))
    return time.monotonic() - begin


def _renew(weights: Path, turn: int) -> None:
    """Other bytes, so that the store does not hold them already; and in the page cache, for everybody."""
    with weights.open("r+b") as file:
        file.write(np.float32(1 + turn / 1000).tobytes())
    _sha256(weights)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _big_model(directory: Path) -> Path:
    """One matrix as external data: what is large is a file of raw weights."""
    directory.mkdir()
    weights = np.random.default_rng(1).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH)
    weights.tofile(directory / "weights.bin")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, directory / "model.onnx")
    return directory


if __name__ == "__main__":
    main()
