# The demo's models and images: real digits, and as good as the script that made them said.
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from controlplane.demo.digits import MLP, SOFTMAX, drawing, load


@pytest.mark.parametrize(("name", "path"), [("softmax", SOFTMAX), ("mlp", MLP)])
def test_a_model_reads_as_many_test_images_right_as_its_training_measured(name: str, path: Path) -> None:
    digits = load()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["digit"], {"image": digits.images})
    assert found.shape == (500, 1)
    assert int((found[:, 0] == digits.labels).sum()) == round(digits.accuracy[name] * 500)


def test_the_second_model_is_better_than_the_first() -> None:
    accuracy = load().accuracy
    assert 0.9 < accuracy["softmax"] < accuracy["mlp"] < 1.0


@pytest.mark.parametrize("path", [SOFTMAX, MLP])
def test_a_model_takes_any_number_of_images(path: Path) -> None:
    model = onnx.load(path)
    assert [each.version for each in model.opset_import] == [17]
    shape = model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["batch", 8, 8]
    assert path.stat().st_size < 50_000


def test_the_test_images_are_real_ones_and_each_is_there_once() -> None:
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    known = {row.astype(np.uint8).tobytes(): int(label) for row, label in zip(data, target, strict=True)}
    digits = load()
    found = [image.astype(np.uint8).tobytes() for image in digits.images]
    assert [known[each] for each in found] == digits.labels.tolist()
    assert len(set(found)) == len(found) == 500


def test_a_digit_is_drawn_two_characters_a_pixel_and_darker_where_there_is_more_ink() -> None:
    image = np.zeros((8, 8), np.float32)
    image[0, :5] = [0, 4, 8, 12, 16]
    assert drawing(image).split("\n") == ["  ░░▒▒▓▓██", *[""] * 7]
