# The sample repository in model_repository/: loads in the embedded server as it lies there, and is what its script makes.
from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np

from clients.inference import InferenceClient
from tests.live.conftest import CHECKOUT
from tests.live.servers import MakeTriton

SAMPLE = CHECKOUT / "model_repository"


def test_a_server_started_on_a_copy_of_it_serves_and_answers(make_triton: MakeTriton, tmp_path: Path) -> None:
    repository = shutil.copytree(SAMPLE, tmp_path / "models", ignore=shutil.ignore_patterns("*.py", "*.md", "__*"))
    server = make_triton(repository=repository)

    with InferenceClient(server.grpc) as client:
        answer = client.infer("scale", {"x": np.array([[1, 2, 3, 4]], np.float32)}, deadline_seconds=30)

    assert answer.version == "1"
    np.testing.assert_array_equal(answer.outputs["y"], np.array([[3, 5, 7, 9]], np.float32))


def test_the_model_is_what_the_script_beside_it_makes() -> None:
    made = runpy.run_path(str(SAMPLE / "make_models.py"))["model"]()

    assert (SAMPLE / "scale/1/model.onnx").read_bytes() == made.SerializeToString(deterministic=True)
