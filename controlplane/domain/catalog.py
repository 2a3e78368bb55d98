# Models, versions, signatures, golden inferences and objectives.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from controlplane.domain.artifacts import Manifest
from controlplane.domain.canonical import Json, JsonObject


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of the graph.

    `datatype` is Triton's (`TYPE_FP32`, `TYPE_STRING`, …). `dims` are the graph's, the batch dimension included: a
    number where it is fixed, the symbol's name where it has one, None where it is unknown. A scalar has no dims.
    """

    name: str
    datatype: str
    dims: tuple[int | str | None, ...]


class Batching(StrEnum):
    """Whether rows of a batch were shown to be independent, by running them alone and together."""

    BATCHABLE = "batchable"
    FIXED = "fixed"  # the leading dimension is fixed or missing somewhere
    MIXES_ROWS = "mixes_rows"  # a leading dynamic dimension, but rows answer differently in company
    UNKNOWN = "unknown"  # could not be tried; the reason stands in the notes


@dataclass(frozen=True, slots=True)
class Signature:
    """What the graph takes and gives. Two signatures with the same `interface()` are the same to a client."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: Batching
    opset: int
    ir_version: int
    producer: str
    metadata: tuple[tuple[str, str], ...] = ()

    def interface(self) -> JsonObject:
        """Names, datatypes and dims (symbols as -1): what breaks clients when it changes."""

        def side(specs: tuple[TensorSpec, ...]) -> list[Json]:
            return [
                {"name": s.name, "datatype": s.datatype, "dims": [d if isinstance(d, int) else -1 for d in s.dims]}
                for s in sorted(specs, key=lambda spec: spec.name)
            ]

        return {"inputs": side(self.inputs), "outputs": side(self.outputs)}

    def to_json(self) -> JsonObject:
        def side(specs: tuple[TensorSpec, ...]) -> list[Json]:
            return [{"name": s.name, "datatype": s.datatype, "dims": list(s.dims)} for s in specs]

        return {
            "inputs": side(self.inputs),
            "outputs": side(self.outputs),
            "batching": self.batching.value,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "producer": self.producer,
            "metadata": [list(pair) for pair in self.metadata],
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Signature:
        def side(specs: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(s["name"], s["datatype"], tuple(s["dims"])) for s in specs)

        return cls(
            inputs=side(tree["inputs"]),
            outputs=side(tree["outputs"]),
            batching=Batching(tree["batching"]),
            opset=tree["opset"],
            ir_version=tree["ir_version"],
            producer=tree["producer"],
            metadata=_pairs(tree["metadata"]),
        )


class GoldenMode(StrEnum):
    """How a server's answer to a golden input is judged."""

    EXACT = "exact"
    TOLERANCE = "tolerance"
    SHAPE_ONLY = "shape_only"
    SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class Golden:
    """Recorded inferences of one version.

    `blob` names an .npz in the artifact store: arrays `case<k>.in.<input>` and `case<k>.out.<output>`, k from 0, batch
    dimension included where the model has one. Strings are object arrays of bytes saved as fixed-width bytes plus a
    length array (never pickled). `absolute` and `relative` are numpy.allclose's atol and rtol as decimal strings, per
    output, measured for this model.
    """

    blob: str
    cases: int
    mode: GoldenMode
    source: str  # "seeded" | "samples"
    absolute: tuple[tuple[str, str], ...] = ()
    relative: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "blob": self.blob,
            "cases": self.cases,
            "mode": self.mode.value,
            "source": self.source,
            "absolute": [list(pair) for pair in self.absolute],
            "relative": [list(pair) for pair in self.relative],
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Golden:
        return cls(
            blob=tree["blob"],
            cases=tree["cases"],
            mode=GoldenMode(tree["mode"]),
            source=tree["source"],
            absolute=_pairs(tree["absolute"]),
            relative=_pairs(tree["relative"]),
        )


@dataclass(frozen=True, slots=True)
class Inspection:
    """What validating an artifact found. An opaque artifact has no signature, and `skipped` names what was not checked."""

    signature: Signature | None
    golden: Golden | None
    backend: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        return {
            "signature": None if self.signature is None else self.signature.to_json(),
            "golden": None if self.golden is None else self.golden.to_json(),
            "backend": self.backend,
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Inspection:
        return cls(
            signature=None if tree["signature"] is None else Signature.from_json(tree["signature"]),
            golden=None if tree["golden"] is None else Golden.from_json(tree["golden"]),
            backend=tree["backend"],
            skipped=tuple(tree["skipped"]),
            notes=tuple(tree["notes"]),
        )


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    owner: str
    description: str
    tags: tuple[tuple[str, str], ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One registered, immutable version of a model. `config` is the user's own config of an opaque version."""

    model: str
    number: int
    manifest: Manifest
    inspection: Inspection
    source: str
    registered_by: str
    registered_at: datetime
    same_bytes_as: tuple[int, ...] = ()
    config: JsonObject | None = None

    @property
    def artifact(self) -> str:
        return self.manifest.digest


@dataclass(frozen=True, slots=True)
class Objective:
    """What a stakeholder needs. `metric` is e.g. `latency_ms`; `qualifier` a percentile (`p99`) or a cohort; `weight`
    is None for a hard constraint. `bound` is a decimal string, `direction` `at_most` or `at_least`."""

    model: str
    name: str
    metric: str
    qualifier: str
    direction: str
    bound: str
    stakeholder: str
    weight: str | None


def _pairs(tree: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in tree)
