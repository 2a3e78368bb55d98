# What is sent: tensors by rule, from samples or from files, each serialized once before the clock starts.
from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b as digest
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from clients.inference import Parameter, Tensor, TensorSpec, encode_request
from clients.load.errors import LoadInputError

_PREFIX = struct.Struct(">BI")

_TYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    **{
        f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}")
        for sign, kind in (("", "i"), ("U", "u"))
        for bits in (8, 16, 32, 64)
    },
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_BF16 = np.dtype("<u2")
"""How files hold it: the upper half of an FP32, as it travels."""
_WIDE = 1e30
"""Ends of a range whose difference may be no float32."""
_TRIES = 8
_MOST = 2**31
"""Bytes of a gRPC message; each element takes one or more."""
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789", np.uint8)


def message(
    model: str, inputs: Mapping[str, Tensor], *, version: int | None, parameters: Mapping[str, Parameter]
) -> bytes:
    """A gRPC message with its prefix: uncompressed, and how long it is."""
    body = encode_request(model, inputs, version=version, parameters=parameters)
    if len(body) >= _MOST:
        raise LoadInputError(f"a request of {len(body)} bytes is more than gRPC takes", "a smaller batch or shape")
    return _PREFIX.pack(0, len(body)) + body


def shapes(
    specs: Sequence[TensorSpec], *, batch: int, batched: bool, given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The whole shape of each input. Raises LoadInputError for a dynamic dimension that nobody gave a size."""
    known = {spec.name for spec in specs}
    for name in given:
        if name not in known:
            raise LoadInputError(f"there is no input {name!r}", f"the model takes {', '.join(sorted(known))}")
    if batch < 1 or (batch > 1 and not batched):
        raise LoadInputError(
            f"a batch of {batch}", "this model takes no batches: leave it at 1" if batch > 1 else "1 or more"
        )
    found = {}
    for spec in specs:
        inner = spec.shape[1:] if batched else spec.shape
        wanted = tuple(given.get(spec.name, inner))
        if len(wanted) != len(inner) or any(n not in (-1, w) for n, w in zip(inner, wanted, strict=True)):
            raise LoadInputError(
                f"input {spec.name!r} has the shape {list(inner)}, not {list(wanted)}", "-1 is any size"
            )
        if min(wanted, default=0) < 0:
            example = ",".join("16" if n < 0 else str(n) for n in inner)
            raise LoadInputError(
                f"input {spec.name!r} has dimensions of any size: {list(inner)}",
                f"give them: --shape {spec.name}:{example}",
            )
        found[spec.name] = (batch, *wanted) if batched else wanted
        if (count := prod(found[spec.name])) >= _MOST:
            raise LoadInputError(
                f"input {spec.name!r} of {count:,} elements", "a smaller batch or shape: a message is less than 2 GiB"
            )
    return found


def distinct_inputs(
    specs: Sequence[TensorSpec],
    whole: Mapping[str, tuple[int, ...]],
    *,
    ranges: Mapping[str, tuple[float, float]],
    count: int,
    seed: int,
) -> list[dict[str, Tensor]]:
    """So many requests, no two alike, the same for the same seed; `ranges` are by input. Raises LoadInputError when the types,
    ranges and shapes do not hold so many."""
    random = np.random.default_rng(seed)
    found: dict[tuple[bytes, ...], dict[str, Tensor]] = {}
    for _ in range(count * _TRIES):
        drawn: dict[str, Tensor] = {}
        for spec in specs:
            low, high = ranges[spec.name]
            drawn |= random_inputs([spec], whole, low=low, high=high, random=random)
        key = tuple(digest(_content(tensor)).digest() for tensor in drawn.values())
        found.setdefault(key, drawn)
        if len(found) == count:
            return list(found.values())
    raise LoadInputError(
        f"{count} different requests were asked for, and {count * _TRIES} draws gave {len(found)}",
        "fewer requests, or a wider range",
    )


def random_inputs(
    specs: Sequence[TensorSpec],
    whole: Mapping[str, tuple[int, ...]],
    *,
    low: float,
    high: float,
    random: np.random.Generator,
) -> dict[str, Tensor]:
    """Floats uniform in [low, high), integers in [low, high) within their type, fair booleans, words of 8 letters."""
    return {spec.name: _random(spec, whole[spec.name], low, high, random) for spec in specs}


def _random(spec: TensorSpec, shape: tuple[int, ...], low: float, high: float, random: np.random.Generator) -> Tensor:
    if spec.datatype == "BYTES":
        letters = random.choice(_LETTERS, (int(np.prod(shape)), 8))
        words = np.empty(len(letters), object)
        words[:] = [row.tobytes() for row in letters]
        return words.reshape(shape)
    dtype = _bfloat16() if spec.datatype == "BF16" else _TYPES.get(spec.datatype)
    if dtype is None:
        raise LoadInputError(
            f"input {spec.name!r} is {spec.datatype}, for which nothing is drawn", "give samples: --data FILE.npz"
        )
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if spec.datatype in ("BF16", "FP16", "FP32", "FP64"):
        return _uniform(spec, dtype, shape, (low, high), random)
    limits = np.iinfo(dtype.str)
    first, last = max(int(np.ceil(low)), limits.min), min(int(np.ceil(high)), limits.max + 1)
    if last <= first:
        raise LoadInputError(
            f"no {spec.datatype} lies in [{low:g}, {high:g}) for input {spec.name!r}", "give --range LOW:HIGH"
        )
    return random.integers(first, last, shape, dtype=dtype)


def _uniform(
    spec: TensorSpec,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    within: tuple[float, float],
    random: np.random.Generator,
) -> Tensor:
    low, high = within
    with np.errstate(over="ignore"):
        ends = np.array([low, high]).astype(dtype).astype(np.float64)
    if not (low < high and np.isfinite(ends).all()):
        raise LoadInputError(
            f"no {spec.datatype} can be drawn from [{low:g}, {high:g}) for input {spec.name!r}", "give --range LOW:HIGH"
        )
    wide = spec.datatype == "FP64" or np.abs(ends).max() > _WIDE
    drawn: NDArray[np.floating] = random.random(shape, np.float64 if wide else np.float32)
    drawn *= high - low
    drawn += low
    found: Tensor = drawn.astype(dtype)
    found[found.astype(np.float64) >= high] = ends[0]  # what was rounded up to the end, which is excluded
    return found


def _bfloat16() -> np.dtype[np.generic]:
    try:
        import ml_dtypes
    except ImportError:
        raise LoadInputError("BF16 needs a package that numpy lacks", "pip install ml-dtypes") from None
    found: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
    return found


def _content(tensor: Tensor) -> bytes:
    return b"\0".join(tensor.ravel().tolist()) if tensor.dtype.kind == "O" else tensor.tobytes()


def from_npz(path: Path, specs: Sequence[TensorSpec], *, batch: int, batched: bool) -> list[dict[str, Tensor]]:
    """One request for every `batch` rows where the model takes batches (a last part is left out). Where it takes none, each
    array is one request's, or has a dimension more, in front, for several.

    Arrays are named like the inputs; outputs that are expected are read alike. Nothing is unpickled: strings are numpy's `S`
    or `U` types. BF16 is float32, which is rounded, or its upper halves as uint16.
    """
    arrays = read_npz(path)
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise LoadInputError(
            f"{path} has no array {', '.join(missing)}", f"it has {', '.join(sorted(arrays)) or 'none'}"
        )
    tensors = {spec.name: _fitted(arrays[spec.name], spec, path) for spec in specs}
    if not batched:
        several = [tensors[spec.name].ndim == len(spec.shape) + 1 for spec in specs]
        if not any(several):
            _check_shapes(tensors, specs, path, rows=False)
            return [tensors]
    counts = {len(tensor) if tensor.ndim else 0 for tensor in tensors.values()}
    if len(counts) != 1 or min(counts) < batch:
        raise LoadInputError(f"{path} has {sorted(counts)} rows for batches of {batch}", "as many rows in each array")
    _check_shapes(tensors, specs, path, rows=not batched)
    if not batched:
        return [{name: tensor[row] for name, tensor in tensors.items()} for row in range(min(counts))]
    return [
        {name: tensor[row : row + batch] for name, tensor in tensors.items()}
        for row in range(0, min(counts) - batch + 1, batch)
    ]


def read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile, TypeError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else "it is no .npz file of plain arrays"
        raise LoadInputError(
            f"the samples {path} cannot be read: {why}", "np.savez with one array for each input"
        ) from None


def _check_shapes(tensors: Mapping[str, Tensor], specs: Sequence[TensorSpec], path: Path, *, rows: bool) -> None:
    """The batch dimension is among those of the spec, where it is -1; `rows` are in front of them."""
    for spec in specs:
        got = tensors[spec.name].shape[rows:]
        if len(got) != len(spec.shape) or any(n not in (-1, g) for n, g in zip(spec.shape, got, strict=True)):
            raise LoadInputError(
                f"{path}: {spec.name!r} has the shape {list(got)}, the model's is {list(spec.shape)}", "-1 is any size"
            )


def from_directory(
    directory: Path, specs: Sequence[TensorSpec], whole: Mapping[str, tuple[int, ...]]
) -> list[dict[str, Tensor]]:
    """Raw little-endian tensors: `DIRECTORY/REQUEST/INPUT`, or `DIRECTORY/INPUT` for a single request. A file of an input of
    strings has one in each line."""
    if not directory.is_dir():
        raise LoadInputError(f"{directory} is no directory", "raw tensors in DIRECTORY/REQUEST/INPUT")
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    return [
        {spec.name: _raw(folder / spec.name, spec, whole[spec.name]) for spec in specs}
        for folder in folders or [directory]
    ]


def _raw(path: Path, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadInputError(
            f"input {spec.name!r}: {path} cannot be read: {error.strerror}", "one file for each input"
        ) from None
    if spec.datatype == "BYTES":
        lines = data.splitlines()
        words = np.empty(len(lines), object)
        words[:] = lines
        flat: Tensor = words
    else:
        dtype = _BF16 if spec.datatype == "BF16" else _TYPES.get(spec.datatype)
        if dtype is None or len(data) % dtype.itemsize:
            raise LoadInputError(
                f"{path} has {len(data)} bytes, which are no {spec.datatype}", "little-endian values, nothing else"
            )
        flat = np.frombuffer(data, dtype)
        if spec.datatype == "BF16":
            flat = flat.view(_bfloat16())
    if len(flat) != np.prod(shape, dtype=int):
        raise LoadInputError(
            f"{path} has {len(flat)} values, the shape {list(shape)} takes {np.prod(shape, dtype=int)}", "--shape"
        )
    return flat.reshape(shape)


def _fitted(array: Tensor, spec: TensorSpec, path: Path) -> Tensor:
    if spec.datatype == "BYTES":
        if array.dtype.kind not in "SU":
            raise LoadInputError(
                f"{path}: {spec.name!r} is {array.dtype}, the model takes strings", "an array of S or U"
            )
        return array
    if spec.datatype == "BF16" and array.dtype == np.float32:
        return array.astype(_bfloat16())
    if spec.datatype == "BF16" and array.dtype == _BF16:
        return array.view(_bfloat16())
    dtype = _TYPES.get(spec.datatype)
    if dtype is None or array.dtype != dtype:
        raise LoadInputError(
            f"{path}: {spec.name!r} is {array.dtype}, the model takes {spec.datatype}", "convert it first: .astype"
        )
    return array
