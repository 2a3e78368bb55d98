# Reading an ONNX graph: confinement of external data, checker, shape inference, session, signature. Runs in the child.
from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import checker, shape_inference

from controlplane.domain.catalog import TensorSpec
from controlplane.errors import ArtifactInvalid, ModelInvalid

MODEL_FILE = "model.onnx"
_PROTOBUF_LIMIT = 2**31 - 1
_REQUEST_LIMIT = 2**31 - 1  # what one gRPC message can carry
_MAX_METADATA = 100
_OPAQUE = "if your server serves it all the same (custom operators), register it with --opaque --config config.pbtxt"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# What Triton's onnxruntime backend takes; anything else cannot travel over its wire.
DATATYPES: dict[str, tuple[str, type[np.generic]]] = {
    "tensor(bool)": ("TYPE_BOOL", np.bool_),
    "tensor(string)": ("TYPE_STRING", np.object_),
    "tensor(uint8)": ("TYPE_UINT8", np.uint8),
    "tensor(uint16)": ("TYPE_UINT16", np.uint16),
    "tensor(uint32)": ("TYPE_UINT32", np.uint32),
    "tensor(uint64)": ("TYPE_UINT64", np.uint64),
    "tensor(int8)": ("TYPE_INT8", np.int8),
    "tensor(int16)": ("TYPE_INT16", np.int16),
    "tensor(int32)": ("TYPE_INT32", np.int32),
    "tensor(int64)": ("TYPE_INT64", np.int64),
    "tensor(float16)": ("TYPE_FP16", np.float16),
    "tensor(float)": ("TYPE_FP32", np.float32),
    "tensor(double)": ("TYPE_FP64", np.float64),
}
DTYPES: dict[str, type[np.generic]] = dict(DATATYPES.values())


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What the file says of itself."""

    opset: int
    ir_version: int
    producer: str
    metadata: tuple[tuple[str, str], ...]


def read_facts(directory: Path) -> GraphFacts:
    """Parse the file and look at every tensor that points to another file. Raises ModelInvalid and ArtifactInvalid."""
    path = directory / MODEL_FILE
    if not path.is_file():
        raise ArtifactInvalid(f"the directory holds no {MODEL_FILE}", hint=f"name the graph {MODEL_FILE}")
    size = path.stat().st_size
    if size == 0:
        raise ModelInvalid("the file is empty")
    if size > _PROTOBUF_LIMIT:
        raise ModelInvalid(
            f"the graph has {size} bytes, protobuf reads at most {_PROTOBUF_LIMIT}",
            hint="keep its weights as external data",
        )
    try:
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelInvalid(f"the file is no ONNX graph, or only the beginning of one: {error}") from None
    if not model.ir_version or not model.graph.node:
        raise ModelInvalid("the file is no ONNX graph: it has no IR version or no nodes")
    for tensor in _tensors(model):
        _confine(tensor, directory)
    opsets = {imported.domain: imported.version for imported in model.opset_import}
    return GraphFacts(
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip()[:200],
        metadata=tuple(sorted((p.key[:200], p.value[:2000]) for p in model.metadata_props)[:_MAX_METADATA]),
    )


def check(directory: Path) -> None:
    """The onnx checker with strict shape inference, by path: external data and large graphs work."""
    try:
        checker.check_model(directory / MODEL_FILE, full_check=True)
    except checker.ValidationError as error:
        raise ModelInvalid(f"the onnx checker refuses the graph: {brief(error, directory)}", hint=_OPAQUE) from None
    except shape_inference.InferenceError as error:
        raise ModelInvalid(f"shape inference refuses the graph: {brief(error, directory)}", hint=_OPAQUE) from None


def open_session(directory: Path, *, optimized: bool) -> onnxruntime.InferenceSession:
    """One thread on the CPU. `optimized` is what a server does by default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(directory / MODEL_FILE), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this one
        raise ModelInvalid(f"onnxruntime cannot open the graph: {brief(error, directory)}", hint=_OPAQUE) from None


def specs(session: onnxruntime.InferenceSession) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as onnxruntime sees them, which is what Triton's backend compares a config with."""
    inputs = tuple(_spec(node, "input") for node in session.get_inputs())
    outputs = tuple(_spec(node, "output") for node in session.get_outputs())
    for spec in inputs:
        size = item_size(spec) * int(np.prod([d for d in spec.dims if isinstance(d, int)], dtype=object))
        if size > _REQUEST_LIMIT:
            raise ModelInvalid(f"input {spec.name!r} takes {size} bytes, and one request carries {_REQUEST_LIMIT}")
    return inputs, outputs


def item_size(spec: TensorSpec) -> int:
    return np.dtype(DTYPES[spec.datatype]).itemsize


def brief(error: BaseException, directory: Path) -> str:
    """One line of an error's text, without our temporary path and onnxruntime's prefix."""
    text = str(error).replace(f"{directory}/", "").replace(str(directory), "")
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/onnxruntime_src/\S+:\d+ ", "", text)
    text = _CONTROL.sub(" ", text.replace("\n\n==> Context: ", " in "))
    return text[:497] + "..." if len(text) > 500 else text.strip()


def _spec(node: onnxruntime.NodeArg, side: str) -> TensorSpec:
    if node.type not in DATATYPES:
        raise ModelInvalid(
            f"{side} {node.name!r} has the type {node.type}, which Triton cannot carry",
            hint="export plain tensors (for scikit-learn: options={'zipmap': False})",
        )
    if not 1 <= len(node.name) <= 1000 or _CONTROL.search(node.name):
        raise ModelInvalid(f"{side} {node.name[:120]!r} has a name that is empty, too long or holds control characters")
    dims = tuple(None if d is None or (isinstance(d, int) and d < 0) else d for d in node.shape)
    return TensorSpec(node.name, DATATYPES[node.type][0], dims)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices
        # Nesting is bounded: protobuf refuses to parse more than 100 levels.
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def _confine(tensor: onnx.TensorProto, directory: Path) -> None:
    """External data must be a plain file of this artifact, and long enough."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"tensor {tensor.name[:120]!r} keeps its data in {location[:200]!r}"
    parts = PurePosixPath(location).parts
    if not parts or location.startswith("/") or ".." in parts or "\\" in location or _CONTROL.search(location):
        raise ArtifactInvalid(f"{where}, which is not inside the artifact", hint="save external data beside the graph")
    path = directory
    for part in parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except OSError:
            raise ArtifactInvalid(
                f"{where}, which is missing", hint="register the directory that holds the graph and its external data"
            ) from None
        if stat.S_ISLNK(mode):
            raise ArtifactInvalid(f"{where}, which is a symbolic link", hint="replace the link by the file")
    if not stat.S_ISREG(mode):
        raise ArtifactInvalid(f"{where}, which is not a plain file")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        raise ArtifactInvalid(f"{where}, with an offset or a length that is no number") from None
    if offset < 0 or length < 0 or offset + length > path.stat().st_size:
        raise ArtifactInvalid(
            f"{where}: it needs bytes {offset} to {offset + length}, the file has {path.stat().st_size}"
        )
