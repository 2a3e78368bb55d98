# Models of Triton's own Python backend, registered as opaque: digest, user's config, samples where they are given.
from __future__ import annotations

import io

import numpy as np

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Version
from controlplane.domain.golden import GoldenCase, dump_cases
from controlplane.services.catalog import Registration
from tests.live.installation import Installation


def source(factor: float, *, prologue: str = "pass") -> bytes:
    """A model.py that answers `x * factor`; `prologue` is one line run at the end of `initialize`."""
    return f"""import os, time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        {prologue}

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = (x * {factor}).astype("float32")
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers
""".encode()


def sleeping_while(marker: str) -> str:
    """A prologue that does not end as long as the file is there."""
    return f"while os.path.exists({marker!r}): time.sleep(0.05)"


def opaque_config(at: Installation, model: str) -> JsonObject:
    config = {**at.config(model), "backend": "python"}
    del config["parameters"]
    return config


def samples(factor: float) -> bytes:
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    return dump_cases([GoldenCase({"x": x}, {"y": (x * np.float32(factor)).astype(np.float32)})])


def register_opaque(
    at: Installation, model: str, code: bytes, *, number: int | None = None, answers: float | None = None
) -> Version:
    """`answers` is the factor that the user's samples promise; without it there is nothing but the digest."""
    digest, size = at.artifacts.add_stream(io.BytesIO(code))
    promised = None if answers is None else at.artifacts.add_stream([samples(answers)])[0]
    wish = Registration(
        model,
        Manifest((FileEntry("model.py", size, digest),)),
        number,
        config=opaque_config(at, model),
        samples=promised,
    )
    return at.catalog.register_version(at["author"], wish)
