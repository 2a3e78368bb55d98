# Asking every instance of a loaded version for an answer.
"""Triton says READY while a backend process is dead or hangs; only its answers tell. Each probe fills a whole batch, so that
the dynamic batcher cannot put two into one execution, and twice as many as there are instances go at once, so that none
stays idle. Which instance answered is read from a counter of the backend. Each probe draws its rows anew, for a response
cache answers the same request without any instance."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from controlplane.domain.canonical import JsonObject
from controlplane.domain.environments import Proof, ProofStatus
from controlplane.domain.tensors import Tensors
from controlplane.errors import InferenceFailed

_ROUNDS = 32
_PREFIX = "probe/"
_MOST_BYTES = 64 * 2**20


class ProbeOutcome(StrEnum):
    HEALTHY = "healthy"
    FAILING = "failing"
    INCONCLUSIVE = "inconclusive"  # nothing failed, but not every instance is known to have answered


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """`seen` are the instances that answered, as the backend names them, and `expected` is how many there should be.
    `failed` counts error answers, `timed_out` requests without an answer; `error` is the first of either."""

    outcome: ProbeOutcome
    expected: int
    seen: tuple[str, ...]
    answered: int
    failed: int
    timed_out: int
    error: str | None
    counted: bool
    """Whether the backend counts probes by instance at all."""


class _Server(Protocol):
    def infer(
        self,
        model: str,
        inputs: Tensors,
        *,
        version: int | None,
        outputs: tuple[str, ...],
        deadline_seconds: float,
        request_id: str = "",
        sequence: tuple[int, bool, bool] | None = None,
    ) -> Tensors: ...

    def probed_instances(self, model: str, version: int) -> Mapping[str, int] | None: ...


def probe(
    server: _Server,
    model: str,
    version: int,
    *,
    instances: int,
    inputs: Tensors,
    max_batch_size: int,
    deadline_seconds: float,
    sequences: bool = False,
) -> ProbeReport:
    """`inputs` is one request's, with its batch dimension where `max_batch_size` > 0; `sequences` makes each probe a
    sequence of its own, for a model that answers nothing else.

    Returns at the latest a little after the deadline, whatever hangs. Raises ServerUnreachable.
    """
    end = time.monotonic() + deadline_seconds
    rows = 0 if sequences else max_batch_size  # a sequence takes one row at a time
    name = f"{_PREFIX}{uuid.uuid4().hex}"

    def ask(number: int) -> tuple[str, str]:
        """The gRPC status, empty for an answer, and the error's text."""
        try:
            server.infer(
                model,
                _full_batch(inputs, rows),
                version=version,
                outputs=(),
                deadline_seconds=max(0.001, end - time.monotonic()),
                request_id=f"{name}/{number}",
                sequence=(uuid.uuid4().int >> 65, True, True) if sequences else None,
            )
        except InferenceFailed as error:
            return str(error.details["grpc_status"]), error.message
        return "", ""

    before = server.probed_instances(model, version) or {}
    after: Mapping[str, int] | None = None
    results: list[tuple[str, str]] = []
    seen: tuple[str, ...] = ()
    width = 2 * instances
    with ThreadPoolExecutor(width, thread_name_prefix="probe") as pool:
        for start in itertools.count(0, width):
            results += pool.map(ask, range(start, start + width))
            after = server.probed_instances(model, version)
            seen = tuple(sorted(key for key, count in (after or {}).items() if count > before.get(key, 0)))
            wrong = any(status for status, _ in results)
            if wrong or after is None or len(seen) >= instances:
                break
            if start >= width * (_ROUNDS - 1) or time.monotonic() >= end:
                break
    timed_out = sum(status == "DEADLINE_EXCEEDED" for status, _ in results)
    answered = sum(not status for status, _ in results)
    if answered < len(results):
        outcome = ProbeOutcome.FAILING
    elif after is not None and len(seen) >= instances:
        outcome = ProbeOutcome.HEALTHY
    else:
        outcome = ProbeOutcome.INCONCLUSIVE
    return ProbeReport(
        outcome,
        expected=instances,
        seen=seen,
        answered=answered,
        failed=len(results) - answered - timed_out,
        timed_out=timed_out,
        error=next((text for status, text in results if status), None),
        counted=after is not None,
    )


def prove_instances(
    server: _Server, model: str, version: int, *, config: JsonObject, inputs: Tensors, seconds: float
) -> Proof:
    """The `Prober` of services/ports.py: a probe by what the loaded config says, put as a proof."""
    batch = config.get("max_batch_size", 0)
    assert isinstance(batch, int)
    report = probe(
        server,
        model,
        version,
        instances=instance_count(config),
        inputs=inputs,
        max_batch_size=batch,
        deadline_seconds=seconds,
        sequences="sequence_batching" in config,
    )
    answers = f"{len(report.seen)} of {report.expected} instances seen to answer"
    asked = report.answered + report.failed + report.timed_out
    if report.outcome is ProbeOutcome.FAILING:
        seen = f"{answers}; of {asked} probes {report.failed} failed and {report.timed_out} timed out: {report.error}"
        return Proof(f"instances of version {version}", ProofStatus.FAILED, seen)
    if report.outcome is ProbeOutcome.HEALTHY:
        return Proof(f"instances of version {version}", ProofStatus.SHOWN, answers)
    if not report.counted:
        seen = f"all of {asked} probes were answered; this backend does not count by instance"
        return Proof(f"instances of version {version}", ProofStatus.SKIPPED, seen)
    seen = f"all of {asked} probes were answered, but {answers}"
    return Proof(f"instances of version {version}", ProofStatus.INCONCLUSIVE, seen)


def instance_count(config: JsonObject) -> int:
    """How many instances of each version a loaded config stands for; Triton makes a group's count for each of its GPUs."""
    groups = config.get("instance_group", [])
    assert isinstance(groups, list)
    return max(
        1,
        sum(
            int(group.get("count", 1)) * max(1, len(group.get("gpus", [])))
            for group in groups
            if not group.get("passive")
        ),
    )


def _full_batch(inputs: Tensors, rows: int) -> Tensors:
    """So many rows, drawn from the given ones, as far as they fit into a message; the input as it is for a model without
    batches."""
    given = {len(array) if array.ndim else 0 for array in inputs.values()}
    if rows < 1 or len(given) != 1 or 0 in given:
        return inputs
    count = given.pop()
    fit = max(1, _MOST_BYTES * count // max(1, sum(array.nbytes for array in inputs.values())))
    chosen = np.random.default_rng().integers(0, count, min(rows, fit))
    return {name: array[chosen] for name, array in inputs.items()}
