# What is sent to a candidate: recorded inferences, cut into requests of so many rows, serialized once.
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from clients.inference import Tensor
from clients.load.messages import message
from clients.load.server import ModelFacts
from clients.load.traffic import Part, Traffic
from controlplane.domain.golden import GoldenCase
from controlplane.domain.sweep_rounds import Requests
from controlplane.domain.tensors import Tensors
from controlplane.errors import InvalidInput

MOST, MOST_BYTES = 64, 32 << 20
"""Of different requests: all of them travel to the sending process with each block."""
_LIVE_SEQUENCES = 256


def traffic(cases: Sequence[GoldenCase], asked: Requests, facts: ModelFacts, name: str, version: int) -> Traffic:
    """For the model as it is served under `name`. Raises InvalidInput where it cannot take such requests."""
    if not cases:
        raise InvalidInput("nothing is recorded that could be sent", hint="register the version with samples")
    if facts.batched and asked.rows > facts.most_rows:
        raise InvalidInput(f"requests of {asked.rows} rows are more than its max_batch_size, {facts.most_rows}")
    messages: list[bytes] = []
    size = 0
    served = {spec.name: spec.shape for spec in facts.inputs}
    for inputs in _inputs(cases, asked.rows if facts.batched else 0):
        columns = {each: _column(array, served.get(each)) for each, array in inputs.items()}
        one = message(name, columns, version=version, parameters={})
        size += len(one)
        if messages and (len(messages) == MOST or size > MOST_BYTES):
            break
        messages.append(one)
    if not asked.sequences:
        return Traffic((Part(name, tuple(messages), version),))
    part = Part(name, tuple(messages), version, lengths=(1, 1), ids=facts.sequences or "int64")
    return Traffic((part,), live=_LIVE_SEQUENCES)


def _inputs(cases: Sequence[GoldenCase], rows: int) -> Iterator[Tensors]:
    """With rows, those of cases that are shaped alike in a circle, until each began a request; else the cases as they are, and
    those too whose tensors have no rows in common."""
    alike: dict[object, list[GoldenCase]] = {}
    for case in cases:
        if rows and case.rows:
            shapes = tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in case.inputs.items()))
            alike.setdefault(shapes, []).append(case)
        else:
            yield case.inputs
    for group in alike.values():
        there = sum(case.rows for case in group)
        whole = {name: np.concatenate([case.inputs[name] for case in group]) for name in group[0].inputs}
        for number in range(math.lcm(there, rows) // rows):
            chosen = (np.arange(rows) + number * rows) % there
            yield {name: array[chosen] for name, array in whole.items()}


def _column(array: Tensor, served: tuple[int, ...] | None) -> Tensor:
    """Triton knows no tensors of rank 0, in a batch none of rank 1: their values travel with a dimension of one more."""
    return array[..., None] if served is not None and array.ndim + 1 == len(served) and served[-1] == 1 else array
