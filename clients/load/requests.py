# The requests of a run: what the options say of data, sequences and expected answers, made into traffic.
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clients.inference import InferenceClient, Tensor, TensorSpec
from clients.load.checks import Answers, Tolerance
from clients.load.errors import LoadInputError
from clients.load.expectations import answers_from_npz, first_pass
from clients.load.messages import distinct_inputs, from_directory, from_npz, message, shapes
from clients.load.options import Options
from clients.load.server import ModelFacts
from clients.load.traffic import Part, Traffic

DISTINCT = 16
FIRST = "first"
_MODEL = re.compile(r"(?P<name>[^=:\s/]+)(?::(?P<version>[1-9]\d*))?(?:=(?P<weight>\d+(?:\.\d+)?))?")
_SIZE = re.compile(r"(?P<name>.+):(?P<sizes>-?\d+(,-?\d+)*)")
_LENGTHS = re.compile(r"([1-9]\d*)(?::([1-9]\d*))?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A model as it was asked for: `digits`, `digits:2`, `digits=3` or `digits:2=3`."""

    name: str
    version: int | None
    weight: float

    @classmethod
    def parse(cls, text: str) -> Asked:
        match = _MODEL.fullmatch(text)
        if match is None:
            raise LoadInputError(f"{text!r} is no model", "NAME, NAME:VERSION, NAME=WEIGHT or NAME:VERSION=WEIGHT")
        return cls(match["name"], int(match["version"]) if match["version"] else None, float(match["weight"] or 1))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of requests, in words, read before any server is asked. Ranges by input, that for all by an empty name;
    files by model."""

    sizes: dict[str, list[int]]
    ranges: dict[str, tuple[float, float]]
    lengths: tuple[int, int] | None
    data: dict[str, Path]
    expected: dict[str, Path]

    @classmethod
    def read(cls, options: Options, models: Sequence[str]) -> Wanted:
        return cls(
            dict(_size(text) for text in options.shapes),
            dict(_range(text) for text in options.ranges),
            _lengths(options.sequence_length),
            _paths(options.data, models),
            _paths(options.expected, models),
        )

    def check(self, models: Sequence[tuple[Asked, ModelFacts]]) -> None:
        """That what they name is there."""
        known = {spec.name for _, facts in models for spec in facts.inputs}
        for name in (*self.sizes, *self.ranges):
            if name and name not in known:
                raise LoadInputError(f"there is no input {name!r}", f"there are {', '.join(sorted(known))}")
        if self.lengths is not None and not any(facts.sequences for _, facts in models):
            raise LoadInputError("--sequence-length without a stateful model", "leave it out")


def traffic(
    client: InferenceClient, models: Sequence[tuple[Asked, ModelFacts]], options: Options, wanted: Wanted
) -> Traffic:
    """Raises LoadInputError."""
    wanted.check(models)
    parts = tuple(_part(asked, facts, options, wanted) for asked, facts in models)
    made = Traffic(parts, live=options.sequences, tolerance=Tolerance(options.rtol, options.atol))
    if FIRST not in {str(path) for path in wanted.expected.values()}:
        return made
    return first_pass(client, made, deadline_seconds=options.timeout)


def _part(asked: Asked, facts: ModelFacts, options: Options, wanted: Wanted) -> Part:
    if options.batch > max(facts.most_rows, 1):
        raise LoadInputError(
            f"a batch of {options.batch} for {asked.name}",
            f"it takes {facts.most_rows} at the most" if facts.batched else "it takes no batches: leave it at 1",
        )
    if facts.sequences is not None and wanted.lengths is None:
        raise LoadInputError(f"{asked.name} is stateful", "say how long its sequences are: --sequence-length 10:50")
    part = Part(
        asked.name,
        tuple(
            message(asked.name, inputs, version=asked.version, parameters={})
            for inputs in _inputs(asked, facts, options, wanted)
        ),
        version=asked.version,
        weight=asked.weight,
        lengths=wanted.lengths if facts.sequences is not None else None,
        ids=facts.sequences or "int64",
    )
    expected = wanted.expected.get(asked.name)
    if expected is None or str(expected) == FIRST:
        return part
    answers: tuple[Answers, ...] = answers_from_npz(expected, facts.outputs, batch=options.batch, batched=facts.batched)
    return replace(part, expected=answers)


def _inputs(asked: Asked, facts: ModelFacts, options: Options, wanted: Wanted) -> list[dict[str, Tensor]]:
    data = wanted.data.get(asked.name)
    if data is not None and not data.is_dir():
        return from_npz(data, facts.inputs, batch=options.batch, batched=facts.batched)
    mine = {name: size for name, size in wanted.sizes.items() if name in {spec.name for spec in facts.inputs}}
    whole = shapes(facts.inputs, batch=options.batch, batched=facts.batched, given=mine)
    if data is not None:
        return from_directory(data, facts.inputs, whole)
    given = wanted.ranges
    ranges = {spec.name: given.get(spec.name) or given.get("") or _usual(spec) for spec in facts.inputs}
    count = DISTINCT if options.distinct is None else options.distinct
    while True:
        try:
            return distinct_inputs(facts.inputs, whole, ranges=ranges, count=count, seed=options.seed)
        except LoadInputError:
            if options.distinct is not None or count == 1:
                raise
            count //= 2  # nobody asked for so many: as many as there are in such small tensors


def _usual(spec: TensorSpec) -> tuple[float, float]:
    return (0.0, 1.0) if spec.datatype.startswith(("FP", "BF")) else (0.0, 10.0)


def _size(text: str) -> tuple[str, list[int]]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise LoadInputError(f"--shape {text} is no shape", "INPUT:3,224,224, without the batch dimension")
    return match["name"], [int(size) for size in match["sizes"].split(",")]


def _range(text: str) -> tuple[str, tuple[float, float]]:
    try:
        name, low, high = ("", *text.rsplit(":", 2))[-3:]
        bounds = float(low), float(high)
    except ValueError:
        raise LoadInputError(f"--range {text} is no range", "LOW:HIGH or INPUT:LOW:HIGH") from None
    if not bounds[0] < bounds[1]:
        raise LoadInputError(f"--range {text} is empty", "LOW:HIGH, HIGH excluded")
    return name, bounds


def _paths(texts: Sequence[str], models: Sequence[str]) -> dict[str, Path]:
    """`MODEL=PATH`, or `PATH` for all models."""
    found = {}
    for text in texts:
        model, equals, path = text.partition("=")
        if equals and model in models:
            found[model] = Path(path)
        else:
            found |= {one: Path(text) for one in models if one not in found}
    return found


def _lengths(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _LENGTHS.fullmatch(text)
    if match is None:
        raise LoadInputError(
            f"--sequence-length {text} is no length", "such as 20, or 10:50 for the fewest and the most"
        )
    return int(match[1]), int(match[2] or match[1])
