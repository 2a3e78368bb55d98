# Puts graphs into a model repository with plain configs and asks a server for their answers.
from __future__ import annotations

import queue
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tritonclient.grpc as grpcclient
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from tests.live.onnx_graphs import Array, Graph, write
from tests.live.servers import LiveTriton

_TYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
}


def config_text(graph: Graph, *, max_batch_size: int = 0, instances: int = 1, extra: str = "") -> str:
    """A complete config.pbtxt with what the graph says; `extra` is appended."""
    config = model_config_pb2.ModelConfig(backend="onnxruntime", max_batch_size=max_batch_size)
    config.instance_group.add(count=instances, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    defaults = {tensor.name for tensor in graph.model.graph.initializer}
    for values, entries in ((graph.model.graph.input, config.input), (graph.model.graph.output, config.output)):
        for value in values:
            if value.name in defaults:
                continue
            entry = entries.add(name=value.name, data_type=_type(value))
            dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
            dims = dims[1:] if max_batch_size else dims
            entry.dims[:] = dims or [1]
            if max_batch_size and not dims:
                entry.reshape.SetInParent()
    return text_format.MessageToString(config) + extra


def _type(value: onnx.ValueInfoProto) -> Any:
    kind = value.type.tensor_type.elem_type
    return model_config_pb2.DataType.Value(_TYPES.get(kind, f"TYPE_{onnx.TensorProto.DataType.Name(kind)}"))


def put(server: LiveTriton, graph: Graph, name: str, config: str | None) -> Path:
    """Write version 1 of model `name`; without a config.pbtxt when `config` is None."""
    directory = server.repository / name
    write(graph, directory / "1")
    if config is not None:
        (directory / "config.pbtxt").write_text(config)
    return directory


def load(server: LiveTriton, name: str) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.load_model(name, headers=server.headers, client_timeout=120)


def serve(server: LiveTriton, graph: Graph, name: str, **config: Any) -> None:
    put(server, graph, name, config_text(graph, **config))
    load(server, name)


def as_inputs(inputs: Mapping[str, Array]) -> list[grpcclient.InferInput]:
    """Triton has no rank 0: such a value travels in shape [1]."""
    made = []
    for name, value in inputs.items():
        shaped = value if value.ndim else value.reshape(1)
        item = grpcclient.InferInput(name, list(shaped.shape), np_to_triton_dtype(shaped.dtype))
        item.set_data_from_numpy(shaped)
        made.append(item)
    return made


def ask(
    server: LiveTriton, name: str, inputs: Mapping[str, Array], outputs: Sequence[str], request_id: str = ""
) -> dict[str, Array]:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        result = client.infer(name, as_inputs(inputs), request_id=request_id, client_timeout=90)
    return {output: result.as_numpy(output) for output in outputs}


def ask_together(
    server: LiveTriton, model: str, requests: list[dict[str, Array]], outputs: list[str]
) -> list[dict[str, Array] | Exception]:
    """Send all at once and return the answers or errors in their order."""
    arrived: queue.Queue[tuple[int, Any, Exception | None]] = queue.Queue()
    answers: dict[int, dict[str, Array] | Exception] = {}
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for place, inputs in enumerate(requests):
            client.async_infer(
                model, as_inputs(inputs), lambda result, error, place=place: arrived.put((place, result, error))
            )
        for _ in requests:
            place, result, error = arrived.get(timeout=90)
            answers[place] = error if error is not None else {name: result.as_numpy(name) for name in outputs}
    return [answers[place] for place in range(len(requests))]


def expected(graph: Graph, inputs: Mapping[str, Array], directory: Path) -> dict[str, Array]:
    """What onnxruntime says, in the shapes and with the strings as Triton gives them."""
    session = onnxruntime.InferenceSession(str(write(graph, directory)), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    return {name: _as_triton(answer) for name, answer in answers.items()}


def _as_triton(answer: Array) -> Array:
    shaped = np.asarray(answer).reshape(np.shape(answer) or (1,))
    if shaped.dtype != np.object_:
        return shaped
    return np.array([str(item).encode() for item in shaped.ravel()], dtype=np.object_).reshape(shaped.shape)


def rows_as_columns(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Triton has no batch of scalars: each row has at least the shape [1]."""
    return {name: value if value.ndim > 1 else value.reshape(-1, 1) for name, value in tensors.items()}


def assert_same(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert list(found) == list(wanted)
    for name, answer in wanted.items():
        assert found[name].dtype == answer.dtype
        np.testing.assert_array_equal(found[name], answer)


def counters(server: LiveTriton, metric: str, model: str) -> dict[str, int]:
    """Value by instance label."""
    with urllib.request.urlopen(server.metrics, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith(f"{metric}{{") and f'model="{model}"' in line:
            labels, _, value = line.rpartition(" ")
            found[labels.partition('instance="')[2].partition('"')[0]] = int(float(value))
    return found
