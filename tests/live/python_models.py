# Models in Python for the live tests: one that remembers its sequences, one that is wrong now and then, one that sleeps.
from __future__ import annotations

from pathlib import Path

from tests.live.opaque import samples
from tests.live.scaling import Site
from tests.live.test_up import Up

ACCUMULATOR = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            value, start, end = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("X", "START", "END")
            )
            number = pb_utils.get_input_tensor_by_name(request, "CORRID")
            key = request.correlation_id() if number is None else number.as_numpy().ravel()[0]
            if start.ravel()[0]:
                total = value
            else:
                total = self.sums[key] * 3 + value  # not commutative: another order gives another sum
            self.sums[key] = total
            if end.ravel()[0]:
                del self.sums[key]
            answers.append(pb_utils.InferenceResponse([
                pb_utils.Tensor("SUM", total),
                pb_utils.Tensor("ALIVE", np.full(value.shape, len(self.sums), np.int64)),
            ]))
        return answers
"""
"""Answers with the sum so far, each earlier one counted thrice, and how many sequences it remembers. It knows only sequences
that it was told the start of."""

WRONG = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.count = 0

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        answers = [row * 2 for row in rows]
        for number in range(len(answers)):
            self.count += 1
            if self.count > 40 and self.count % 10 == 0:
                answers[number] = answers[number - 1] if HOW == "swaps" and len(answers) > 1 else answers[number] + 0.5
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", answer)]) for answer in answers]
"""


def accumulator(datatype: str | None = "TYPE_UINT64", *, slots: int = 8) -> str:
    """None: the model asks the request for its correlation id instead of getting it as an input."""
    control = f'control_input {{ name: "CORRID" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {datatype} }} }}'
    return f"""backend: "python" max_batch_size: 8
        input {{ name: "X" data_type: TYPE_INT64 dims: 1 }}
        output {{ name: "SUM" data_type: TYPE_INT64 dims: 1 }}
        output {{ name: "ALIVE" data_type: TYPE_INT64 dims: 1 }}
        instance_group {{ count: 1 kind: KIND_CPU }}
        sequence_batching {{
            max_sequence_idle_microseconds: 10000000
            oldest {{ max_candidate_sequences: {slots} }}
            control_input {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }} }}
            control_input {{ name: "END" control {{ kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] }} }}
            {control if datatype else ""}
        }}"""


WRONG_CONFIG = """backend: "python" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: 2 }
    output { name: "Y" data_type: TYPE_FP32 dims: 2 }
    instance_group { count: 1 kind: KIND_CPU }
    dynamic_batching { }"""


def serve(site: Site, model: str, config: str, code: str) -> None:
    version: Path = site.live.repository / model / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.py").write_text(code)
    (version.parent / "config.pbtxt").write_text(config)
    site.load(model)


SLEEPING = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.03)
        rows = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", row * 2)]) for row in rows]
"""
"""However many rows: so the best config is known, and a busy host changes little."""
SLEEPING_CONFIG = """backend: "python" max_batch_size: 4
    input { name: "x" data_type: TYPE_FP32 dims: 4 }
    output { name: "y" data_type: TYPE_FP32 dims: 4 }
    instance_group { count: 1 kind: KIND_CPU }
    dynamic_batching { }"""


def register_sleeping(up: Up, directory: Path, model: str) -> Path:
    """Its config's file, with samples that answer twice what was asked."""
    files, config = directory / model, directory / "config.pbtxt"
    files.mkdir()
    (files / "model.py").write_text(SLEEPING)
    config.write_text(SLEEPING_CONFIG)
    (directory / "samples.npz").write_bytes(samples(2.0))
    told = ("--config", str(config), "--samples", str(directory / "samples.npz"))
    up.run("model", "register", model, str(files), "--opaque", *told)
    return config
