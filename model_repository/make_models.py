# Writes the sample repository's model: y = 2x + 1 on rows of four numbers, a graph of a few hundred bytes.
"""Run `python model_repository/make_models.py`. It writes the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

GRAPH = """
< ir_version: 8, opset_import: ["" : 17], producer_name: "make_models" >
scale (float[rows, 4] x) => (float[rows, 4] y) <float two = {2.0}, float one = {1.0}>
{
    doubled = Mul(x, two)
    y = Add(doubled, one)
}
"""
TARGET = Path(__file__).parent / "scale" / "1" / "model.onnx"


def model() -> onnx.ModelProto:
    made = parser.parse_model(GRAPH)
    onnx.checker.check_model(made, full_check=True)
    return made


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(model().SerializeToString(deterministic=True))
    print(f"wrote {TARGET}, {TARGET.stat().st_size} bytes")
