# Where golden inputs come from: seeded by the interface, or the user's samples. Runs in the inspection's child process.
"""**Seeded inputs** depend on a tensor's name, datatype and shape, and on nothing else: two versions with the same interface
get the same inputs, whatever their weights, so that their answers can be compared. They are made from SHAKE-256, not from
a generator of random numbers whose stream another release may change.

**Samples** are an .npz file without pickled objects, in one of two forms:

* `case<k>.<input>`, k from 0: one array per case and input, in the graph's shape;
* `<input>`: all cases in one array. It has one dimension more than the graph's input, the first one counting cases; or the
  graph's own rank, when its first dimension is dynamic: each row is then a case of one row.

Strings are fixed-width `U` or `S` arrays. Samples of an opaque version carry the answers too, in the form of a golden
file: `case<k>.in.<input>` and `case<k>.out.<output>`.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controlplane.domain.canonical import canonical_bytes
from controlplane.domain.catalog import TensorSpec
from controlplane.domain.golden import Array, strings
from controlplane.errors import ArtifactInvalid
from controlplane.triton.inspect_graph import DTYPES, item_size

MAX_CASES = 64
MAX_CASE_BYTES = 64 * 1024 * 1024
# Sizes for dynamic dimensions behind the first, in the order in which they are tried: 8 suits most sequences, a
# convolution stack needs 32 or 224, and some graphs accept only 1.
BASES = (8, 32, 224, 1)
VALUES = ("plain", "small")
_NUMBERED = re.compile(r"case(0|[1-9][0-9]{0,5})\.(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to seed one case. `seed` tells cases of equal shape apart; `lead` is the size of leading dynamic dimensions,
    `base` that of the others; `values` is `plain` or, for graphs that index by their inputs, `small`."""

    seed: int
    lead: int
    base: int
    values: str


def has_dynamic_lead(spec: TensorSpec) -> bool:
    return bool(spec.dims) and not isinstance(spec.dims[0], int)


def shape_for(spec: TensorSpec, recipe: Recipe, leading: frozenset[str]) -> tuple[int, ...]:
    """`leading` holds the symbols of leading dimensions: they have that size wherever they stand."""
    return tuple(
        dim if isinstance(dim, int) else recipe.lead if axis == 0 or dim in leading else recipe.base
        for axis, dim in enumerate(spec.dims)
    )


def leading_symbols(inputs: Sequence[TensorSpec]) -> frozenset[str]:
    return frozenset(spec.dims[0] for spec in inputs if spec.dims and isinstance(spec.dims[0], str))


def request_bytes(inputs: Sequence[TensorSpec], recipe: Recipe) -> int:
    leading = leading_symbols(inputs)
    return sum(item_size(s) * int(np.prod(shape_for(s, recipe, leading), dtype=object)) for s in inputs)


def seeded(inputs: Sequence[TensorSpec], recipe: Recipe) -> dict[str, Array]:
    leading = leading_symbols(inputs)
    return {spec.name: seeded_array(spec, shape_for(spec, recipe, leading), recipe) for spec in inputs}


def seeded_array(spec: TensorSpec, shape: tuple[int, ...], recipe: Recipe) -> Array:
    key = canonical_bytes([spec.name, spec.datatype, list(shape), recipe.seed, recipe.values])
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.frombuffer(hashlib.shake_256(key).digest(4 * count), dtype="<u4")
    small = recipe.values == "small"
    if spec.datatype == "TYPE_STRING":
        words = [f"{n % 2}" if small else f"word{n % 8}" for n in raw.tolist()]
        return strings([word.encode() for word in words], shape)
    dtype = DTYPES[spec.datatype]
    if spec.datatype.startswith("TYPE_FP"):
        unit = raw / 2.0**32
        # Uniform with mean 0 and variance 1: what a network with normalized inputs expects.
        values = unit if small else (2 * unit - 1) * np.sqrt(3.0)
    elif spec.datatype == "TYPE_UINT8" and not small:
        values = raw % 256  # a pixel
    else:
        values = raw % (2 if small or spec.datatype == "TYPE_BOOL" else 8)
    return values.astype(dtype).reshape(shape)


def read_samples(path: Path, inputs: Sequence[TensorSpec]) -> list[dict[str, Array]]:
    """The user's cases, at most MAX_CASES of them, checked against the graph's inputs. Raises ArtifactInvalid."""
    arrays = read_npz(path)
    by_name = {spec.name: spec for spec in inputs}
    if set(arrays) == set(by_name):
        cases = _split(arrays, by_name)
    else:
        numbered: dict[int, dict[str, Array]] = {}
        for key, array in arrays.items():
            match = _NUMBERED.fullmatch(key)
            if match is None or match[2] not in by_name:
                raise ArtifactInvalid(
                    f"the samples hold {key[:120]!r}, the graph's inputs are {', '.join(sorted(by_name))}",
                    hint="name the arrays <input>, or case0.<input>, case1.<input>, …",
                )
            numbered.setdefault(int(match[1]), {})[match[2]] = array
        cases = [numbered[k] for k in sorted(numbered)]
    if not cases:
        raise ArtifactInvalid("the samples hold no case")
    checked = []
    for index, case in enumerate(cases[:MAX_CASES]):
        if set(case) != set(by_name):
            raise ArtifactInvalid(f"case {index} of the samples lacks {', '.join(sorted(set(by_name) - set(case)))}")
        checked.append({name: _fit(case[name], spec, index) for name, spec in by_name.items()})
    return checked


def read_npz(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ArtifactInvalid(
                    "the samples are a single array", hint="save them with numpy.savez, by input name"
                )
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise ArtifactInvalid(
                "the samples cannot be read: an array holds Python objects",
                hint="convert it before saving: array.astype(str)",
            ) from None
        raise ArtifactInvalid(f"the samples cannot be read: {error}", hint="save them with numpy.savez") from None


def _split(arrays: Mapping[str, Array], by_name: Mapping[str, TensorSpec]) -> list[dict[str, Array]]:
    """One array per input: cut along the first dimension."""
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise ArtifactInvalid(f"the samples' arrays count different numbers of cases: {sorted(counts)}")
    cut: list[dict[str, Array]] = [{} for _ in range(min(counts.pop(), MAX_CASES))]
    for name, array in arrays.items():
        spec = by_name[name]
        stacked = array.ndim == len(spec.dims) + 1
        if not stacked and not (array.ndim == len(spec.dims) and has_dynamic_lead(spec)):
            raise ArtifactInvalid(
                f"the samples of {name!r} have {array.ndim} dimensions, the graph's input has {len(spec.dims)}",
                hint="add a first dimension that counts the cases",
            )
        for k, case in enumerate(cut):
            case[name] = array[k] if stacked else array[k : k + 1]
    return cut


def _fit(array: Array, spec: TensorSpec, index: int) -> Array:
    what = f"case {index} of the samples, input {spec.name!r}"
    array = np.asarray(array)
    fixed = [(axis, dim) for axis, dim in enumerate(spec.dims) if isinstance(dim, int)]
    if array.ndim != len(spec.dims) or any(array.shape[axis] != dim for axis, dim in fixed):
        raise ArtifactInvalid(f"{what}: the shape is {list(array.shape)}, the graph takes {list(spec.dims)}")
    if array.nbytes > MAX_CASE_BYTES:
        raise ArtifactInvalid(f"{what}: {array.nbytes} bytes are more than the limit of {MAX_CASE_BYTES}")
    if spec.datatype == "TYPE_STRING":
        if array.dtype.kind not in "US":
            raise ArtifactInvalid(f"{what}: the datatype is {array.dtype}, the graph takes strings")
        items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
        try:
            for item in items:
                item.decode()
        except UnicodeDecodeError:
            raise ArtifactInvalid(f"{what}: a string is not UTF-8, and onnxruntime takes no other") from None
        return strings(items, array.shape)
    dtype = np.dtype(DTYPES[spec.datatype])
    if array.dtype.kind in "USOV" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ArtifactInvalid(f"{what}: the datatype is {array.dtype}, the graph takes {dtype}")
    cast: Array = np.asarray(array, order="C").astype(dtype)
    return cast
