# What a run asks: which model of which server, and the requests, serialized before anything is measured.
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clients.inference import InferenceClient, InferenceError, TensorSpec
from clients.load.errors import LoadInputError, ModelNotReady, ServerUnreachable
from clients.load.messages import from_directory, from_npz, message, random_inputs, shapes
from clients.load.options import Options
from clients.load.server import ModelFacts, facts, ready_models, server_name

PORT = 8001
_SECONDS = 10.0
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?")
_HEADER = re.compile(r"(?P<key>[a-z0-9_.-]+)=(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Subject:
    """`versions` are those that are ready; without a `version` the highest of them answers. `server` is its name and release."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...]
    server: str
    model: str
    version: int | None
    versions: tuple[int, ...]
    batch: int
    messages: tuple[bytes, ...] = field(repr=False)

    @property
    def address(self) -> str:
        return _joined(self.host, self.port)

    @property
    def answering(self) -> int | None:
        """The version that answers; None where the server does not say."""
        return self.version or max(self.versions, default=None)


def prepare(options: Options) -> Subject:
    """Raises LoadInputError."""
    host, port = address(options.url)
    headers = tuple(header(text) for text in options.headers)
    if len(options.models) != 1:
        raise LoadInputError(f"{len(options.models)} models", "one for each run")
    (model,) = options.models
    with InferenceClient(_joined(host, port), metadata=headers) as client:
        server = _greeted(client)
        found = _found(client, model, options.version)
        messages = _messages(model, found, options)
    return Subject(host, port, headers, server, model, options.version, found.versions, options.batch, messages)


def address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise LoadInputError(
            f"{text!r} is no address", "HOST:PORT of the server's gRPC endpoint, such as 127.0.0.1:8001"
        )
    return match["host"].strip("[]"), int(match["port"] or PORT)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def header(text: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise LoadInputError(f"{text!r} is no header", "KEY=VALUE, the key in small letters")
    return match["key"], match["value"]


def _greeted(client: InferenceClient) -> str:
    try:
        return server_name(client, deadline_seconds=_SECONDS)
    except InferenceError as error:
        raise ServerUnreachable(
            f"no Triton answers at {client.address}: {error}",
            "give the address of its gRPC endpoint, whose port is 8001 by default: --url HOST:PORT",
        ) from None


def _found(client: InferenceClient, model: str, version: int | None) -> ModelFacts:
    try:
        if client.ready(model, version=version, deadline_seconds=_SECONDS):
            return facts(client, model, version=version, deadline_seconds=_SECONDS)
        why = "it is not ready"
    except InferenceError as error:
        why = error.message
    wanted = model if version is None else f"{model} version {version}"
    try:
        ready = ready_models(client, deadline_seconds=_SECONDS)
        hint = f"ready are {', '.join(ready)}" if ready else "no model is ready there"
    except InferenceError as error:
        hint = f"which are ready it does not tell ({error.message})"
    raise ModelNotReady(f"{client.address} does not serve {wanted}: {why}", hint)


def _messages(model: str, found: ModelFacts, options: Options) -> tuple[bytes, ...]:
    specs, batched = found.inputs, found.batched
    if options.distinct < 1:
        raise LoadInputError(f"{options.distinct} different requests", "1 or more")
    whole_of = dict(_shape(text) for text in options.shapes)
    if options.data is not None and not options.data.is_dir():
        drawn = from_npz(options.data, specs, batch=options.batch, batched=batched)
    else:
        whole = shapes(specs, batch=options.batch, batched=batched, given=whole_of)
        if options.data is not None:
            drawn = from_directory(options.data, specs, whole)
        else:
            random = np.random.default_rng(options.seed)
            bounds = _bounds(specs, options.ranges)
            drawn = [
                {
                    name: tensor
                    for spec in specs
                    for name, tensor in random_inputs(
                        [spec], whole, low=bounds[spec.name][0], high=bounds[spec.name][1], random=random
                    ).items()
                }
                for _ in range(options.distinct)
            ]
    return tuple(message(model, inputs, version=options.version, parameters={}) for inputs in drawn)


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.rpartition(":")
    try:
        return name, [int(size) for size in sizes.split(",")]
    except ValueError:
        raise LoadInputError(f"--shape {text} is no shape", "INPUT:3,224,224, without the batch dimension") from None


def _bounds(specs: Sequence[TensorSpec], texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Of each input, by its own range, else the one for all, else the type's: [0, 1) for floats, [0, 10) for integers."""
    found = {spec.name: (0.0, 1.0 if spec.datatype.startswith(("FP", "BF")) else 10.0) for spec in specs}
    for text in sorted(texts, key=lambda text: text.count(":")):  # those for one input last
        *name, low, high = text.rsplit(":", 2)
        try:
            bounds = float(low), float(high)
        except ValueError:
            raise LoadInputError(f"--range {text} is no range", "LOW:HIGH or INPUT:LOW:HIGH") from None
        if name and name[0] not in found:
            raise LoadInputError(f"there is no input {name[0]!r}", f"the model takes {', '.join(sorted(found))}")
        if not bounds[0] < bounds[1]:
            raise LoadInputError(f"--range {text} is empty", "LOW:HIGH, HIGH excluded")
        found.update(dict.fromkeys(name or found, bounds))
    return found
