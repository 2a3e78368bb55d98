# Trains the demo's two classifiers of handwritten digits and writes them beside this file. Needs scikit-learn.
"""Run `python -m controlplane.demo.make_models` in a development environment. The same seed gives the same models on the
same numpy; what they reached is printed, and written into `digits.npz` beside the images that it was measured on.

The data are the 1,797 digits of 8x8 pixels (0 to 16) that come with scikit-learn, from the test set of the UCI
collection "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, CC BY 4.0).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SEED = 20260101
OPSET = 17
IR_VERSION = 8
TEST_IMAGES = 500
HIDDEN = 64
DIRECTORY = Path(__file__).parent / "data"


def main() -> None:
    images, labels = _digits()
    order = np.random.default_rng(SEED).permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    mean = images[train].mean(axis=0)
    DIRECTORY.mkdir(exist_ok=True)
    reached = {}
    for name, sizes, steps in (("softmax", (64, 10), 60), ("mlp", (64, HIDDEN, 10), 600)):
        layers = _train(images[train] - mean, labels[train], sizes, steps)
        reached[name] = float((_scores(layers, images[test] - mean).argmax(1) == labels[test]).mean())
        onnx.save(_graph(name, mean, layers), DIRECTORY / f"{name}.onnx")
        print(f"{name}: {reached[name]:.3f} of {TEST_IMAGES} test images")
    pixels = (images[test] * 16).round().astype(np.float32).reshape(-1, 8, 8)
    np.savez_compressed(
        DIRECTORY / "digits.npz",
        images=pixels.astype(np.uint8),
        labels=labels[test].astype(np.uint8),
        softmax_accuracy=np.float64(reached["softmax"]),
        mlp_accuracy=np.float64(reached["mlp"]),
    )


def _digits() -> tuple[Floats, Labels]:
    """Images as rows of 64 pixels between 0 and 1."""
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.asarray(data, np.float64) / 16, np.asarray(target, np.int64)


def _train(x: Floats, labels: Labels, sizes: Sequence[int], steps: int) -> list[tuple[Floats, Floats]]:
    """Weights and biases of a ReLU network under softmax, by full-batch gradient descent with momentum."""
    random = np.random.default_rng(SEED)
    layers = [
        (random.normal(0, np.sqrt(2 / rows), (rows, columns)), np.zeros(columns))
        for rows, columns in itertools.pairwise(sizes)
    ]
    speed = [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]
    wanted = np.eye(10)[labels]
    for _ in range(steps):
        inputs = [x]
        for weights, bias in layers[:-1]:
            inputs.append(np.maximum(inputs[-1] @ weights + bias, 0))
        error = (_softmax(inputs[-1] @ layers[-1][0] + layers[-1][1]) - wanted) / len(x)
        for i in reversed(range(len(layers))):
            weights, bias = layers[i]
            slope = inputs[i].T @ error, error.sum(0)
            error = (error @ weights.T) * (inputs[i] > 0)
            speed[i] = 0.9 * speed[i][0] - 0.2 * slope[0], 0.9 * speed[i][1] - 0.2 * slope[1]
            layers[i] = weights + speed[i][0], bias + speed[i][1]
    return layers


def _scores(layers: Sequence[tuple[Floats, Floats]], x: Floats) -> Floats:
    for weights, bias in layers[:-1]:
        x = np.maximum(x @ weights + bias, 0)
    scores: Floats = x @ layers[-1][0] + layers[-1][1]
    return scores


def _softmax(scores: Floats) -> Floats:
    raised: Floats = np.exp(scores - scores.max(1, keepdims=True))
    shares: Floats = raised / raised.sum(1, keepdims=True)
    return shares


def _graph(name: str, mean: Floats, layers: Sequence[tuple[Floats, Floats]]) -> onnx.ModelProto:
    """`image` [batch, 8, 8] of pixels 0 to 16 in; `digit` [batch, 1] and `probability` [batch, 10] out."""
    constants: dict[str, npt.NDArray[np.float32] | Labels] = {
        "flat": np.array([-1, 64], np.int64),
        "sixteen": np.array(16, np.float32),
        "mean": mean.astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["row"]),
        helper.make_node("Div", ["row", "sixteen"], ["share"]),
        helper.make_node("Sub", ["share", "mean"], ["layer0"]),
    ]
    for i, (weights, bias) in enumerate(layers):
        constants |= {f"weights{i}": weights.astype(np.float32), f"bias{i}": bias.astype(np.float32)}
        last = i == len(layers) - 1
        nodes.append(
            helper.make_node("Gemm", [f"layer{i}", f"weights{i}", f"bias{i}"], ["scores" if last else f"sum{i}"])
        )
        if not last:
            nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"layer{i + 1}"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probability"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=1))
    graph = helper.make_graph(
        nodes,
        f"digits_{name}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch", 1]),
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 10]),
        ],
        _initializers(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="make_models")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _initializers(constants: Mapping[str, npt.NDArray[np.float32] | Labels]) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in constants.items()]


if __name__ == "__main__":
    main()
