# Models, versions and objectives on the wire.
from __future__ import annotations

from dataclasses import dataclass

from clients.control.types.base import JsonObject, Request


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    owner: str
    description: str
    tags: dict[str, str]
    created_at: str


@dataclass(frozen=True, slots=True)
class File(Request):
    """`path` is relative, with `/`; `size` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """`dims` include the batch dimension: a number, a symbol's name, or None where it is unknown."""

    name: str
    datatype: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batching: str
    opset: int
    ir_version: int
    producer: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Golden:
    cases: int
    mode: str
    source: str
    absolute: dict[str, str]
    relative: dict[str, str]


@dataclass(frozen=True, slots=True)
class Version:
    """An opaque version has no signature; `skipped` names the checks that were not made."""

    model: str
    number: int
    artifact: str
    size: int
    files: tuple[File, ...]
    backend: str
    signature: Signature | None
    golden: Golden | None
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    source: str
    registered_by: str
    registered_at: str
    same_bytes_as: tuple[int, ...]
    config: JsonObject | None


@dataclass(frozen=True, slots=True)
class NewVersion(Request):
    """The files' bytes were uploaded before. `number` None takes the next one.

    `samples` is the digest of an uploaded .npz. Owner, description and tags are the model's; None keeps what it has.
    """

    files: tuple[File, ...]
    number: int | None = None
    owner: str | None = None
    description: str | None = None
    tags: dict[str, str] | None = None
    source: str = ""
    samples: str | None = None
    config: str | None = None
    """config.pbtxt as text: the version is opaque then, another backend's files and their config."""


@dataclass(frozen=True, slots=True)
class NewPruning(Request):
    """Without `apply` it is only said what would be deleted."""

    apply: bool = False


@dataclass(frozen=True, slots=True)
class Pruning:
    """Blobs that no version, plan or revision needs, and their size in bytes; whether they were deleted."""

    blobs: tuple[str, ...]
    size: int
    applied: bool


@dataclass(frozen=True, slots=True)
class Objective:
    model: str
    name: str
    metric: str
    qualifier: str
    direction: str
    bound: str
    stakeholder: str
    weight: str | None


@dataclass(frozen=True, slots=True)
class NewObjective(Request):
    metric: str
    qualifier: str
    direction: str
    bound: str
    stakeholder: str
    weight: str | None = None
