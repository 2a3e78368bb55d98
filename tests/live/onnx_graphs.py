# Small ONNX graphs of different shapes: test material for the backend and for generated configs.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser

Array = npt.NDArray[Any]


class Graph(NamedTuple):
    """`inputs` is one whole call of the graph: where its first dimension is dynamic, of three rows. `batchable` says
    whether each row is answered by itself, so that rows of different calls may be joined."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    batchable: bool
    external: bool = False


def write(graph: Graph, directory: Path) -> Path:
    """Save as `directory`/model.onnx, with its weights beside it where the graph is `external`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    if graph.external:
        onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(copy, path)
    return path


def graphs() -> list[Graph]:
    return [*_batchable(), *_unbatchable(), *_named_awkwardly(), *_with_weights()]


def graph(name: str) -> Graph:
    return next(one for one in graphs() if one.name == name)


def parse(body: str) -> onnx.ModelProto:
    """A model from the body of ONNX's text form, on opset 17."""
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}')


def _rows(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).uniform(-2, 2, shape).astype(np.float32)


_DTYPES: Mapping[str, npt.DTypeLike] = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float16": np.float16,
    "float": np.float32,
    "double": np.float64,
}


def extremes(dtype: npt.DTypeLike) -> Array:
    """Values that a lossy path would not bring back: the smallest, the largest, and a few between."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        info = np.finfo(kind)
        return np.array([[info.min, info.max], [info.tiny, -0.0], [np.inf, np.nan]], dtype=kind)
    integers = np.iinfo(kind)
    return np.array([[integers.min, integers.max], [0, 1], [2, 3]], dtype=kind)


def _batchable() -> Iterator[Graph]:
    for name, dtype in _DTYPES.items():
        model = parse(f"g ({name}[n,2] x) => ({name}[n,2] y) {{ y = Identity(x) }}")
        yield Graph(f"identity_{name}", model, {"x": extremes(dtype)}, batchable=True)
    yield Graph(
        "bool_not",
        parse("g (bool[n,2] x) => (bool[n,2] y) { y = Not(x) }"),
        {"x": np.array([[True, False], [False, False], [True, True]])},
        batchable=True,
    )
    yield Graph(
        "strings",
        parse("g (string[n,2] x) => (string[n,2] y) { y = Identity(x) }"),
        {"x": np.array([["a", ""], ["äöü €", "line\nbreak"], ["x" * 300, "0"]], dtype=np.object_)},
        batchable=True,
    )
    yield Graph(
        "softmax",
        parse("g (float[?,4] x) => (float[?,4] y) { y = Softmax<axis = 1>(x) }"),
        {"x": _rows(3, 4)},
        batchable=True,
    )
    yield Graph(
        "several_inputs",
        parse(
            "g (float[n,2] a, int64[n,2] b, bool[n,1] c) => (float[n,2] y)"
            " { f = Cast<to = 1>(b) s = Add(a, f) y = Where(c, s, a) }"
        ),
        {
            "a": _rows(3, 2),
            "b": np.arange(6, dtype=np.int64).reshape(3, 2),
            "c": np.array([[True], [False], [True]]),
        },
        batchable=True,
    )
    yield Graph(
        "two_outputs",
        parse(
            "g (float[n,5] x) => (float[n,1] best, int64[n,1] place)"
            " { best = ReduceMax<axes = [1]>(x) place = ArgMax<axis = 1>(x) }"
        ),
        {"x": _rows(3, 5)},
        batchable=True,
    )
    yield Graph(
        "echo",
        parse("g (float[n,3] x) => (float[n,3] same, float[n,3] twice) { same = Identity(x) twice = Add(x, x) }"),
        {"x": _rows(3, 3)},
        batchable=True,
    )
    yield Graph(
        "dynamic_inner_dims",
        parse("g (float[n,length,width] x) => (float[n,width] y) { y = ReduceMean<axes = [1], keepdims = 0>(x) }"),
        {"x": _rows(3, 5, 4)},
        batchable=True,
    )
    yield Graph(
        "vector_of_rows",
        parse("g (float[n] x) => (float[n] y) { y = Neg(x) }"),
        {"x": _rows(3)},
        batchable=True,
    )
    yield Graph(
        "rank_six",
        parse("g (float[n,1,2,1,2,2] x) => (float[n,1,2,1,2,2] y) { y = Relu(x) }"),
        {"x": _rows(3, 1, 2, 1, 2, 2)},
        batchable=True,
    )


def _unbatchable() -> Iterator[Graph]:
    yield Graph(
        "fixed_batch_of_one",
        parse("g (float[1,3] x) => (float[1,3] y) { y = Tanh(x) }"),
        {"x": _rows(1, 3)},
        batchable=False,
    )
    yield Graph(
        "fixed_batch_of_four",
        parse("g (float[4,2] x) => (float[4,2] y) { y = Exp(x) }"),
        {"x": _rows(4, 2)},
        batchable=False,
    )
    yield Graph(
        "scalar",
        parse("g (float x) => (float y) { y = Add(x, x) }"),
        {"x": np.array(1.5, dtype=np.float32)},
        batchable=False,
    )
    yield Graph(
        "scalar_string",
        parse("g (string x) => (string y) { y = Identity(x) }"),
        {"x": np.array("only one", dtype=np.object_)},
        batchable=False,
    )
    yield Graph(
        "scalar_state",
        parse(
            "g (float[n,2] x, int64 step) => (float[n,2] y, int64 next)"
            " { f = Cast<to = 1>(step) y = Mul(x, f) next = Add(step, step) }"
        ),
        {"x": _rows(3, 2), "step": np.array(3, dtype=np.int64)},
        batchable=False,
    )
    yield Graph(
        "rows_against_rows",
        parse("g (float[n,2] x) => (float[n,m] y) { t = Transpose(x) y = MatMul(x, t) }"),
        {"x": _rows(3, 2)},
        batchable=False,
    )
    yield Graph(
        "total_of_rows",
        parse("g (float[n,2] x) => (float[1,2] y) { y = ReduceMean<axes = [0]>(x) }"),
        {"x": _rows(3, 2)},
        batchable=False,
    )
    yield Graph(
        "rows_less_their_mean",
        parse("g (float[n,2] x) => (float[n,2] y) { m = ReduceMean<axes = [0]>(x) y = Sub(x, m) }"),
        {"x": _rows(3, 2)},
        batchable=False,
    )
    yield Graph(
        "unlike_leading_dims",
        parse("g (float[n,2] x, float[2,m] w) => (float[n,m] y) { y = MatMul(x, w) }"),
        {"x": _rows(3, 2), "w": _rows(2, 4)},
        batchable=False,
    )
    yield Graph(
        "sizes_as_values",
        parse("g (float[a,b] x) => (int64[2] y) { y = Shape(x) }"),
        {"x": _rows(3, 2)},
        batchable=False,
    )


def _renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def _named_awkwardly() -> Iterator[Graph]:
    body = "g (float[n,2] x) => (float[n,2] y) { y = Neg(x) }"
    for name, x, y in (
        ("names_of_tensorflow", "input:0", "StatefulPartitionedCall/dense:0"),
        ("names_with_blanks", "a b/c", " y "),
        ("names_with_quotes", 'it\'s "x"', "back\\slash"),
        ("names_in_unicode", "température", "出力"),
    ):
        yield Graph(name, _renamed(parse(body), {"x": x, "y": y}), {x: _rows(3, 2)}, batchable=True)


def _with_weights() -> Iterator[Graph]:
    weights = numpy_helper.from_array(_rows(4, 3), "w")
    body = "g (float[n,4] x) => (float[n,3] y) { y = MatMul(x, w) }"
    for name, external in (("weights", False), ("weights_in_another_file", True)):
        model = parse(body)
        model.graph.initializer.append(weights)
        yield Graph(name, model, {"x": _rows(3, 4)}, batchable=True, external=external)
    model = parse("g (float[n,4] x, float[4,3] w) => (float[n,3] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(weights)
    yield Graph("input_with_a_default", model, {"x": _rows(3, 4)}, batchable=True)
    model = parse("g (float[n,1,6,6] x) => (float[n,2,4,4] y) { y = Conv(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(_rows(2, 1, 3, 3), "w"))
    yield Graph("convolution", model, {"x": _rows(3, 1, 6, 6)}, batchable=True)
