# Candidates for the live tests of the bench, and orders of rounds over them.
from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from controlplane.bench.rounds import LocalBench
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.golden import GoldenCase, dump_cases
from controlplane.domain.sweep_rounds import (
    BenchModel,
    BlockOrder,
    Measurement,
    Requests,
    RoundOrder,
    RoundResult,
    Stage,
    Step,
)
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.tensors import Tensors
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.scaling import config, graph

ROWS: Tensors = {"X": np.arange(12, dtype=np.float32).reshape(6, 2)}


@dataclass(frozen=True, slots=True)
class Shelf:
    """An artifact store, and candidates whose files lie in it."""

    store: ObjectArtifactStore

    def golden(self, *inputs: Tensors) -> str:
        return self.store.add_stream([dump_cases([GoldenCase(one, {}) for one in inputs])])[0]

    def candidate(self, name: str, text: str, files: Mapping[str, bytes], version: int = 1) -> BenchModel:
        """`text` is the config without name and version policy."""
        entries = []
        for file, data in files.items():
            sha256, size = self.store.add_stream(io.BytesIO(data))
            entries.append(FileEntry(file, size, sha256))
        parsed: JsonObject = PbtxtCodec().parse(text)
        digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        return BenchModel(digest, version, parsed, Manifest(tuple(sorted(entries, key=lambda one: one.path))))

    def scale(self, name: str, *, instances: int = 1, extra: str = "") -> BenchModel:
        """Multiplies by three."""
        return self.candidate(name, config(instances=instances, extra=extra), {"model.onnx": graph(3)})

    def python(self, name: str, code: str, text: str = "") -> BenchModel:
        """`code` is the body of `execute` after `rows`, a list with the array X of each request, and makes `answers` of it."""
        body = "\n".join(f"        {line}" for line in code.splitlines())
        source = f"""
import os, signal, sys, time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    count = 0

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        answers = rows
        self.count += len(rows)
{body}
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", answer)]) for answer in answers]
"""
        return self.candidate(name, text or PYTHON, {"model.py": source.encode()})


PYTHON = """backend: "python" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: 2 }
    output { name: "Y" data_type: TYPE_FP32 dims: 2 }
    instance_group { count: 1 kind: KIND_CPU }"""


def open_shelf(base: Path) -> Shelf:
    return Shelf(ObjectArtifactStore.local(base))


def blocks(models: Sequence[BenchModel], *steps: Step, turns: int = 1, seconds: float = 0.5) -> tuple[BlockOrder, ...]:
    """In each turn every step of every model, turned round from turn to turn."""
    found: list[BlockOrder] = []
    for turn in range(turns):
        for model in (*models[turn % len(models) :], *models[: turn % len(models)]):
            for step in steps:
                found.append(BlockOrder(len(found), turn, model.candidate, step, seconds, seed=len(found)))
    return tuple(found)


def order(
    models: Sequence[BenchModel],
    asked: Requests,
    blocks: Sequence[BlockOrder],
    *,
    number: int = 1,
    bound_ms: float = 50.0,
) -> RoundOrder:
    requests = {model.version: asked for model in models}
    return RoundOrder(1, number, Stage.RACE, tuple(models), requests, tuple(blocks), percent=99.0, bound_ms=bound_ms)


@dataclass(slots=True)
class Done:
    """What a bench told while it measured."""

    rows: list[Measurement] = field(default_factory=list)

    def __call__(self, measurement: Measurement) -> None:
        self.rows.append(measurement)


def measured(
    bench: LocalBench, shelf: Shelf, ordered: RoundOrder, go_on: Callable[[], None] = lambda: None
) -> tuple[RoundResult, Done]:
    done = Done()
    return bench.measure(ordered, shelf.store, done=done, go_on=go_on), done


CLOSED = Step(Shape.CONCURRENCY, "2")
