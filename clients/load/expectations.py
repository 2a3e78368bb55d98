# Where expected answers come from: a file beside the samples, or what the server itself answered before the clock started.
from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np

from clients.inference import InferenceClient, InferenceError, TensorSpec, decode_response
from clients.load.checks import Answers
from clients.load.errors import LoadInputError
from clients.load.measure import INFER
from clients.load.messages import from_npz, read_npz
from clients.load.sequences import head, identified
from clients.load.server import Shares, statistics
from clients.load.traffic import Part, Traffic

_PREFIX = 5


def answers_from_npz(path: Path, outputs: Sequence[TensorSpec], *, batch: int, batched: bool) -> tuple[Answers, ...]:
    """One for each request that `from_npz` makes of the same number of rows. Arrays are named like the outputs, and may stand
    in the samples' own file; an output without an array may hold anything."""
    there = read_npz(path)
    chosen = [spec for spec in outputs if spec.name in there]
    if not chosen:
        raise LoadInputError(
            f"{path} has no array of an output", f"the model answers {', '.join(spec.name for spec in outputs)}"
        )
    return tuple(
        {name: array.astype(np.float32) if array.dtype.name == "bfloat16" else array for name, array in request.items()}
        for request in from_npz(path, chosen, batch=batch, batched=batched)
    )


def first_pass(client: InferenceClient, traffic: Traffic, *, deadline_seconds: float) -> Traffic:
    """The same traffic, expecting what each request is answered now: once, one after the other, and whole scripts of stateful
    models. Expectations that a part had stay. Raises LoadInputError for a request that has no answer.

    So a run shows that answers stay what they were, whatever is batched with them; not that they are right.
    """
    call = client.channel.unary_unary(INFER)

    def ask(part: Part, number: int, body: bytes) -> Answers:
        try:
            return decode_response(call(body, timeout=deadline_seconds, metadata=client.metadata)).outputs
        except grpc.RpcError as error:
            why = f"{error.code().name}: {error.details()}"
        except InferenceError as error:
            why = str(error)
        raise LoadInputError(f"request {number} of {part.label} has no answer to compare with: {why}", "send others")

    def asked(part: Part) -> tuple[Answers | None, ...]:
        if part.lengths is None:
            return tuple(ask(part, number, message[_PREFIX:]) for number, message in enumerate(part.messages))
        found, most = [], part.lengths[1]
        for number, message in enumerate(part.steps):
            step = number % most
            if step == 0:
                tails = identified(1 + secrets.randbits(30 if part.ids == "int32" else 62), part.ids)
            body = head(message, part.ids) + tails[step == 0, step == most - 1]
            found.append(ask(part, number, body[_PREFIX:]))
        return tuple(found)

    parts = tuple(part if part.expected else replace(part, expected=asked(part)) for part in traffic.parts)
    return replace(traffic, parts=parts)


def shares_by_part(client: InferenceClient, traffic: Traffic) -> Mapping[str, Shares]:
    """What the server has counted by now, by label: subtract those before a run from those after it. Raises InferenceError."""
    return {part.label: statistics(client, part.model, version=part.version) for part in traffic.parts}
