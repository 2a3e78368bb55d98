# Acceptance 9: files that somebody else made: each is refused clearly, in bounded time and memory, and we live on.
from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import psutil
import pytest
from obstore.store import MemoryStore
from onnx import TensorProto, helper, numpy_helper, parser

from controlplane.errors import ArtifactInvalid, InvalidInput, ModelInvalid
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.inspect_process import InspectionLimits
from controlplane.triton.onnx_graph import OnnxInspector

T = TypeVar("T")
QUICK = InspectionLimits(seconds=90)
GOOD = "agraph (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }"


def parse(body: str, imports: str = '"" : 17') -> onnx.ModelProto:
    return parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> {body}")


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., InvalidInput]:
    """Put `model` (bytes or a graph) beside `files`, inspect, and give back the refusal. Nothing is ever stored."""

    def inspect(
        model: onnx.ModelProto | bytes | None = None,
        *,
        limits: InspectionLimits = QUICK,
        samples: Path | None = None,
        prepare: Callable[[Path], object] = lambda _: None,
    ) -> InvalidInput:
        directory = tmp_path / "files"
        directory.mkdir()
        if model is not None:
            content = model if isinstance(model, bytes) else model.SerializeToString()
            (directory / "model.onnx").write_bytes(content)
        prepare(directory)
        blobs = MemoryStore()
        with pytest.raises(InvalidInput) as caught:
            OnnxInspector(limits).inspect(directory, samples=samples, store=ObjectArtifactStore(blobs))
        assert list(blobs.list()) == []
        assert str(tmp_path) not in caught.value.message
        return caught.value

    return inspect


def external(location: str, **extra: str) -> onnx.ModelProto:
    """y = x * w, whose w lies at `location`."""
    model = parse("agraph (float[n, 4] x) => (float[n, 4] y) { y = Mul(x, w) }")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **extra}.items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    return model


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" * 100, "the file is no ONNX graph"),
        (b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.", "the file is no ONNX graph"),
        (os.urandom(1000), "the file is no ONNX graph"),
        (bytes(1000), "the file is no ONNX graph"),
        (parse(GOOD).SerializeToString()[:-7], "the file is no ONNX graph, or only the beginning of one"),
        (b"\x08\x08", "the file is no ONNX graph: it has no IR version or no nodes"),
    ],
    ids=["empty", "png", "pickle", "noise", "zeros", "truncated", "no-graph"],
)
def test_what_is_no_graph_is_refused(refusal: Callable[..., InvalidInput], content: bytes, message: str) -> None:
    error = refusal(content)
    assert type(error) is ModelInvalid
    assert error.message.startswith(message)


def test_a_directory_without_a_graph_is_refused(refusal: Callable[..., InvalidInput]) -> None:
    error = refusal(prepare=lambda directory: (directory / "net.onnx").write_bytes(parse(GOOD).SerializeToString()))
    assert (type(error), error.message) == (ArtifactInvalid, "the directory holds no model.onnx")


def test_weights_cut_off_inside_the_graph_are_refused(refusal: Callable[..., InvalidInput]) -> None:
    model = parse("agraph (float[n, 4] x) => (float[n, 4] y) { y = Mul(x, w) }")
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[4], raw_data=b"only"))
    assert refusal(model).message.startswith("the onnx checker refuses the graph: TensorProto (tensor name: w)")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (parse("agraph (float[n] x) => (float[n] y) { y = Frobnicate(x) }"), "No Op registered for Frobnicate"),
        (
            parse("agraph (float[n] x) => (float[n] y) { y = com.acme.Frob(x) }", '"" : 17, "com.acme" : 1'),
            "onnxruntime cannot open the graph",
        ),
        (parse("agraph (float[n] x) => (float[n] y) { y = Relu(z) }"), "the onnx checker refuses the graph"),
        (parse("agraph (float[n, 2] x) => (float[n, 3] y) { y = Relu(x) }"), "shape inference refuses the graph"),
        (parse("agraph (float[n] x) => (bfloat16[n] y) { y = Cast<to = 16>(x) }"), "which Triton cannot carry"),
        (
            parse("agraph (float[1048576, 1048576] x) => (float[1048576, 1048576] y) { y = Relu(x) }"),
            "4398046511104 bytes",
        ),
    ],
    ids=["unknown", "unknown-domain", "dangling", "shapes", "bfloat16", "huge-input"],
)
def test_a_graph_that_cannot_be_served_is_refused(
    refusal: Callable[..., InvalidInput], model: onnx.ModelProto, message: str
) -> None:
    error = refusal(model)
    assert type(error) is ModelInvalid
    assert message in error.message


def test_control_characters_in_a_tensors_name_are_refused(refusal: Callable[..., InvalidInput]) -> None:
    model = parse(GOOD)
    model.graph.input[0].name = model.graph.node[0].input[0] = "x\ny"
    assert "control characters" in refusal(model).message


def test_a_tensor_without_a_rank_is_refused(refusal: Callable[..., InvalidInput]) -> None:
    model = parse(GOOD)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert "'shape' of 'type' is required but missing" in refusal(model).message


def test_missing_external_data_is_named(refusal: Callable[..., InvalidInput]) -> None:
    error = refusal(external("weights.bin"))
    assert (type(error), error.message) == (
        ArtifactInvalid,
        "tensor 'w' keeps its data in 'weights.bin', which is missing",
    )


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/passwd", "", "a\\b", "x\ny"])
def test_external_data_outside_the_artifact_is_refused(refusal: Callable[..., InvalidInput], location: str) -> None:
    def plant(directory: Path) -> None:
        (directory.parent / "secret").write_bytes(bytes(16))
        (directory / "a").mkdir()

    error = refusal(external(location), prepare=plant)
    assert type(error) is ArtifactInvalid
    assert error.message == f"tensor 'w' keeps its data in {location!r}, which is not inside the artifact"


def test_external_data_behind_a_link_is_refused(refusal: Callable[..., InvalidInput]) -> None:
    error = refusal(external("weights.bin"), prepare=lambda d: (d / "weights.bin").symlink_to("/etc/hostname"))
    assert error.message == "tensor 'w' keeps its data in 'weights.bin', which is a symbolic link"


def test_external_data_in_a_subgraph_is_confined_too(refusal: Callable[..., InvalidInput]) -> None:
    outer = parse(
        "agraph (bool c) => (float[4] y) { y = If <then_branch = one () => (float[4] z) { z = Constant <value = float[4] {1, 2, 3, 4}> () }, else_branch = two () => (float[4] z) { z = Constant <value = float[4] {1, 2, 3, 4}> () }> (c) }"
    )
    hidden = outer.graph.node[0].attribute[0].g.node[0].attribute[0].t
    hidden.ClearField("float_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    assert "keeps its data in '/etc/passwd', which is not inside the artifact" in refusal(outer).message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"offset": "0", "length": "16"}, "it needs bytes 0 to 16, the file has 8"),
        ({"offset": "-8", "length": "8"}, "it needs bytes -8 to 0, the file has 8"),
        ({"offset": "one"}, "with an offset or a length that is no number"),
    ],
)
def test_external_data_that_is_too_short_is_refused(
    refusal: Callable[..., InvalidInput], extra: dict[str, str], message: str
) -> None:
    error = refusal(external("weights.bin", **extra), prepare=lambda d: (d / "weights.bin").write_bytes(bytes(8)))
    assert type(error) is ArtifactInvalid
    assert error.message.endswith(message)


def endless_loop() -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, ["n"])],
        [value("go_on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, ["n"])],
    )
    model = parse("agraph (float[n] x) => (float[n] y) { y = Relu(x) }")
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Loop", ["", "true", "x"], ["y"], body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    return model


def test_a_graph_that_loops_for_ever_is_stopped_with_all_its_processes(refusal: Callable[..., InvalidInput]) -> None:
    started = time.monotonic()
    error = refusal(endless_loop(), limits=InspectionLimits(seconds=10))
    assert type(error) is ModelInvalid
    assert error.message == "validation did not come to an end: it was stopped after 10 s while running the graph"
    assert time.monotonic() - started < 60
    assert [
        child for child in psutil.Process().children(recursive=True) if "inspect_child" in " ".join(child.cmdline())
    ] == []


def test_a_graph_cannot_get_more_memory_than_it_is_allowed(tmp_path: Path) -> None:
    """A file of 200 bytes that wants 8 GiB when it runs: it never has more than the limit, and says why it did not run."""
    model = parse(
        "agraph (float[1] x) => (float[n] y) { z = ConstantOfShape <value = float[1] {1}> (s) t = Relu(z) y = Add(t, x) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**31], dtype=np.int64), "s"))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    limits = InspectionLimits(seconds=90, memory_bytes=1024**3)
    try:
        found = OnnxInspector(limits).inspect(tmp_path, samples=None, store=ObjectArtifactStore(MemoryStore()))
    except ModelInvalid as error:
        said = error.message
    else:
        assert found.golden is None
        (said,) = found.skipped
    assert "memory" in said
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024**2


def test_samples_with_a_pickle_are_refused_and_not_run(refusal: Callable[..., InvalidInput], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/pwned",)

    np.savez(tmp_path / "samples.npz", x=np.array([Bomb()], dtype=object))
    error = refusal(parse(GOOD), samples=tmp_path / "samples.npz")
    assert type(error) is ArtifactInvalid
    assert error.message.startswith("the samples cannot be read: ")
    assert not (tmp_path / "pwned").exists()


def test_a_gigabyte_of_nothing_costs_the_parent_no_memory(tmp_path: Path) -> None:
    """Measured in a process of its own: the peak of this one belongs to other tests."""
    directory = tmp_path / "files"
    directory.mkdir()
    with (directory / "model.onnx").open("wb") as file:
        file.write(b"\x08\x08")
        file.truncate(2**30)
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from obstore.store import MemoryStore\n"
        "from controlplane.errors import ModelInvalid\n"
        "from controlplane.storage.artifacts import ObjectArtifactStore\n"
        "from controlplane.triton.onnx_graph import OnnxInspector\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: OnnxInspector().inspect(Path(sys.argv[1]), samples=None, store=ObjectArtifactStore(MemoryStore()))\n"
        "except ModelInvalid as error: print(error.message.split(':')[0])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", script, str(directory)]
    message, parent, child = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert message == "the file is no ONNX graph, or only the beginning of one"
    assert int(parent) < 16 * 1024
    assert int(child) < 2 * 1024 * 1024


def test_a_file_over_protobufs_limit_is_refused_without_reading_it(refusal: Callable[..., InvalidInput]) -> None:
    def grow(directory: Path) -> None:
        os.truncate(directory / "model.onnx", 2**31)

    assert (
        refusal(parse(GOOD), prepare=grow).message
        == "the graph has 2147483648 bytes, protobuf reads at most 2147483647"
    )


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(endless_loop().SerializeToString())
    script = (
        "import sys; from pathlib import Path\n"
        "from obstore.store import MemoryStore\n"
        "from controlplane.storage.artifacts import ObjectArtifactStore\n"
        "from controlplane.triton.onnx_graph import OnnxInspector\n"
        "OnnxInspector().inspect(Path(sys.argv[1]), samples=None, store=ObjectArtifactStore(MemoryStore()))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(directory)]) as parent:
        child = until(lambda: next(iter(psutil.Process(parent.pid).children()), None))
        until(lambda: child.cpu_times().user > 1.5)  # it loops, and has long given its signal
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def until(answer: Callable[[], T | None], seconds: float = 90) -> T:
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
