# Inspecting good graphs in a child process: signature, batching, golden inferences and their tolerance.
from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from obstore.store import MemoryStore
from onnx import helper, numpy_helper, parser

from controlplane.domain.catalog import Batching, Golden, GoldenMode, Inspection, Signature, TensorSpec
from controlplane.domain.golden import GoldenCase, GoldenOutcome, distinguishes, dump_cases, judge, load_cases
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.golden_measure import record
from controlplane.triton.inspect_graph import open_session, specs
from controlplane.triton.inspect_process import run_child
from controlplane.triton.onnx_graph import OnnxInspector


def parse(body: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17], producer_name: "hand"> {body}')


def dense(seed: int) -> onnx.ModelProto:
    model = parse("agraph (float[n, 4] x) => (float[n, 3] y) { z = MatMul(x, w) y = Tanh(z) }")
    weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    helper.set_model_props(model, {"trained": "yesterday"})
    return model


@pytest.fixture
def store() -> ObjectArtifactStore:
    return ObjectArtifactStore(MemoryStore())


def inspect(
    model: onnx.ModelProto, directory: Path, store: ObjectArtifactStore, samples: Path | None = None
) -> Inspection:
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    return OnnxInspector().inspect(directory, samples=samples, store=store)


def recorded(found: Inspection, store: ObjectArtifactStore) -> tuple[Golden, list[GoldenCase]]:
    assert found.golden is not None
    cases = load_cases(b"".join(store.read(found.golden.blob)))
    assert len(cases) == found.golden.cases
    return found.golden, cases


def test_a_graph_shows_its_signature_batching_and_answers(tmp_path: Path, store: ObjectArtifactStore) -> None:
    found = inspect(dense(1), tmp_path / "files", store)
    golden, cases = recorded(found, store)
    assert replace(found, golden=None, notes=()) == Inspection(
        signature=Signature(
            inputs=(TensorSpec("x", "TYPE_FP32", ("n", 4)),),
            outputs=(TensorSpec("y", "TYPE_FP32", ("n", 3)),),
            batching=Batching.BATCHABLE,
            opset=17,
            ir_version=8,
            producer="hand",
            metadata=(("trained", "yesterday"),),
        ),
        golden=None,
        backend="onnxruntime",
    )
    assert replace(golden, blob="", absolute=()) == Golden(
        "", 4, GoldenMode.TOLERANCE, "seeded", relative=(("y", "0.0001"),)
    )
    assert 0 < float(dict(golden.absolute)["y"]) < 0.001
    weights = numpy_helper.to_array(dense(1).graph.initializer[0])
    for case in cases:
        assert case.inputs["x"].shape == (1, 4)
        answer = np.tanh(case.inputs["x"].astype(np.float32) @ weights)
        assert np.allclose(case.outputs["y"].astype(np.float32), answer, atol=1e-5)
        assert judge(golden, case, case.outputs).outcome is GoldenOutcome.PASSED
    assert len({case.inputs["x"].tobytes() for case in cases}) == 4


def test_two_versions_with_one_interface_are_asked_the_same_and_told_apart(
    tmp_path: Path, store: ObjectArtifactStore
) -> None:
    one = recorded(inspect(dense(1), tmp_path / "1", store), store)
    two = recorded(inspect(dense(2), tmp_path / "2", store), store)
    again = recorded(inspect(dense(1), tmp_path / "3", store), store)
    assert distinguishes(one, two) == (0, 1, 2, 3)
    assert again[0] == one[0]
    assert distinguishes(one, again) == ()


def test_the_users_samples_are_what_is_recorded(tmp_path: Path, store: ObjectArtifactStore) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "samples.npz", x=rows)
    found = inspect(dense(1), tmp_path / "files", store, tmp_path / "samples.npz")
    golden, cases = recorded(found, store)
    assert (golden.source, golden.cases) == ("samples", 3)
    assert [case.inputs["x"].tolist() for case in cases] == [[row] for row in rows.tolist()]
    assert found.signature is not None
    assert found.signature.batching is Batching.BATCHABLE


def test_an_index_into_a_small_table_is_found_by_smaller_values(tmp_path: Path, store: ObjectArtifactStore) -> None:
    model = parse("agraph (int64[n, k] ids) => (float[n, k, 2] y) { y = Gather <axis = 0> (table, ids) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "table"))
    found = inspect(model, tmp_path / "files", store)
    _, cases = recorded(found, store)
    assert max(int(case.inputs["ids"].max()) for case in cases) == 1
    assert {case.inputs["ids"].shape for case in cases} == {(1, 8), (1, 16)}


def test_a_graph_that_refuses_seeded_inputs_is_registered_with_a_word_about_it(
    tmp_path: Path, store: ObjectArtifactStore
) -> None:
    model = parse("agraph (float[n, k] x) => (float[n, 5] y) { y = Reshape(x, shape) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 5], np.int64), "shape"))
    found = inspect(model, tmp_path / "files", store)
    assert found.golden is None
    assert found.skipped[0].startswith("golden inference: the graph does not run on seeded inputs, give samples (")
    assert found.signature is not None
    assert found.signature.batching is Batching.UNKNOWN


def test_a_graph_with_chance_in_it_is_compared_by_shape_only(tmp_path: Path, store: ObjectArtifactStore) -> None:
    model = parse("agraph (float[n, 4] x) => (float[n, 4] y) { r = RandomNormalLike(x) y = Add(x, r) }")
    found = inspect(model, tmp_path / "files", store)
    assert found.golden is not None
    assert (found.golden.mode, found.golden.absolute) == (GoldenMode.SHAPE_ONLY, (("y", "inf"),))
    assert "batching could not be tried: the same input gives different answers" in found.notes


def test_one_unstable_output_does_not_hide_the_others(tmp_path: Path, store: ObjectArtifactStore) -> None:
    model = parse(
        "agraph (float[n, 4] x) => (float[n, 4] y, int64[n] k) { r = RandomNormalLike(x) y = Add(x, r)"
        " k = ArgMax <axis = 1, keepdims = 0> (x) }"
    )
    found = inspect(model, tmp_path / "files", store)
    assert found.golden is not None
    assert (found.golden.mode, found.golden.absolute) == (GoldenMode.TOLERANCE, (("k", "0"), ("y", "inf")))


def test_what_there_is_no_time_for_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(dense(1).SerializeToString())
    session = open_session(tmp_path, optimized=True)
    found = record(tmp_path, session, *specs(session), None, deadline=time.monotonic())
    assert (len(found.cases), found.batching, found.mode) == (1, Batching.UNKNOWN, GoldenMode.TOLERANCE)
    (skipped,) = found.skipped
    assert re.fullmatch(r"batching and tolerance: one inference takes \d+\.\d s", skipped)


def test_an_opaque_version_is_not_looked_into(tmp_path: Path, store: ObjectArtifactStore) -> None:
    (tmp_path / "model.plan").write_bytes(b"compiled for another machine")
    found = OnnxInspector().inspect(tmp_path, samples=None, store=store, opaque_config={"backend": "tensorrt"})
    assert found == Inspection(
        signature=None,
        golden=None,
        backend="tensorrt",
        skipped=(
            "graph, signature and batching: not checked for this backend, digest only",
            "golden inference: no samples were given",
        ),
    )


def test_an_opaque_versions_samples_bring_their_answers(tmp_path: Path, store: ObjectArtifactStore) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.plan").write_bytes(b"compiled for another machine")
    case = GoldenCase({"x": np.zeros((1, 2), np.float32)}, {"y": np.ones((1, 2), np.float32), "k": np.array([3])})
    (tmp_path / "samples.npz").write_bytes(dump_cases([case]))
    found = OnnxInspector().inspect(
        files, samples=tmp_path / "samples.npz", store=store, opaque_config={"platform": "tensorrt_plan"}
    )
    golden, (back,) = recorded(found, store)
    tolerance = (("k", "0"), ("y", "0.0001"))
    assert golden == Golden(golden.blob, 1, GoldenMode.TOLERANCE, "samples", tolerance, tolerance)
    assert judge(golden, back, case.outputs).outcome is GoldenOutcome.PASSED
    assert found.backend == "tensorrt_plan"


def test_the_child_imports_nothing_from_its_working_directory(
    tmp_path: Path,
) -> None:
    """A module of its working directory is not imported by a process that opens foreign files."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "numpy.py").write_text("raise SystemExit(7)")
    (work / "look.json").write_text("{}")
    end = run_child("controlplane.triton.inspect_child", [str(work / "look.json")], work=work, seconds=10)
    assert (end.status, end.timed_out, end.complaint.splitlines()[-1]) == (1, False, "KeyError: 'memory_bytes'")
