# Golden inferences: their bytes, and the judgement of a server's answers against them.
from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.catalog import Golden, GoldenMode
from controlplane.domain.tensors import Tensors
from controlplane.errors import ArtifactInvalid

Array = NDArray[np.generic]

# A length array tells b"a\0" from b"a", which fixed-width bytes cannot; its key can be no tensor's, whatever its name.
_KEY = re.compile(r"case(0|[1-9][0-9]{0,5})\.(in|out|in-length|out-length)\.(.*)", re.DOTALL)
MOST_DRAWN = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One recorded inference; the batch dimension is included where the model has one."""

    inputs: Tensors
    outputs: Tensors

    @property
    def rows(self) -> int:
        """Rows of every tensor; 0 where they do not have the same number, or none."""
        counts = {len(array) if array.ndim else 0 for array in (*self.inputs.values(), *self.outputs.values())}
        return counts.pop() if len(counts) == 1 else 0


class GoldenOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class GoldenVerdict:
    """What one answer is worth. `deviations` holds, per compared output, the worst |got - recorded| as a decimal string
    (`inf` where a value was not to be compared with a number, the number of differing items for strings)."""

    outcome: GoldenOutcome
    message: str
    deviations: tuple[tuple[str, str], ...] = ()


def judge(golden: Golden, case: GoldenCase, outputs: Tensors) -> GoldenVerdict:
    """Judge `outputs`, a server's answer to `case.inputs`, in the mode that the version declares.

    An answer of another shape or datatype fails in every mode. Inconclusive: the recorded values themselves cannot tell
    (nothing recorded, or no finite number among them), so a matching answer proves nothing.
    """
    faults: list[str] = []
    deviations: list[tuple[str, str]] = []
    telling = False
    for name, recorded in sorted(case.outputs.items()):
        got = outputs.get(name)
        if got is None:
            faults.append(f"output {name!r} is missing")
            continue
        if got.shape != recorded.shape or got.dtype != recorded.dtype:
            faults.append(
                f"output {name!r} is {got.dtype}{list(got.shape)}, recorded was {recorded.dtype}{list(recorded.shape)}"
            )
            continue
        if golden.mode is GoldenMode.SHAPE_ONLY:
            continue
        deviation = worst_deviation(got, recorded)
        deviations.append((name, f"{deviation:.3g}"))
        absolute, relative = tolerance_of(golden, name)
        outside = int(np.count_nonzero(differs(got, recorded, absolute, relative)))
        if outside:
            faults.append(
                f"output {name!r}: {outside} of {recorded.size} values differ from the recorded ones, by up to "
                f"{deviation:.3g} (allowed {absolute:.3g} + {relative:.3g} of the value)"
            )
        telling = telling or (recorded.size > 0 and bool(_comparable(recorded).any()) and absolute != float("inf"))
    if faults:
        return GoldenVerdict(GoldenOutcome.FAILED, "; ".join(faults), tuple(deviations))
    if golden.mode is GoldenMode.SHAPE_ONLY:
        return GoldenVerdict(
            GoldenOutcome.PASSED, "names, datatypes and shapes are as recorded; values were not compared"
        )
    if not telling:
        return GoldenVerdict(
            GoldenOutcome.INCONCLUSIVE, "the recorded outputs hold nothing to compare", tuple(deviations)
        )
    how = "exactly as recorded" if golden.mode is GoldenMode.EXACT else "as recorded, within the measured tolerance"
    return GoldenVerdict(GoldenOutcome.PASSED, f"{len(deviations)} outputs are {how}", tuple(deviations))


def distinguishes(
    old: tuple[Golden, Sequence[GoldenCase]], new: tuple[Golden, Sequence[GoldenCase]]
) -> tuple[int, ...]:
    """Indexes of the new version's cases that the old version would answer differently.

    Only cases whose inputs both versions recorded can tell: seeded inputs follow from the interface alone, so two versions
    with the same inputs have the same ones. Different means: another shape or datatype, or a value further away than
    both tolerances together. An empty answer means "cannot tell", not "equal".
    """
    return tuple(
        index
        for index, case in enumerate(new[1])
        if any(
            _same_tensors(case.inputs, other.inputs) and _answers_differ(old[0], other.outputs, new[0], case.outputs)
            for other in old[1]
        )
    )


def together(cases: Sequence[GoldenCase]) -> GoldenCase | None:
    """The rows of all cases that are shaped like the first, as one case of a model that batches; None where the tensors do
    not have as many rows each."""
    first = cases[0]
    alike = [case for case in cases if case.rows and _row_shapes(case) == _row_shapes(first)]
    if not alike:
        return None
    return GoldenCase(
        {name: np.concatenate([case.inputs[name] for case in alike]) for name in first.inputs},
        {name: np.concatenate([case.outputs[name] for case in alike]) for name in first.outputs},
    )


def drawn(case: GoldenCase, most: int) -> GoldenCase:
    """`most` rows of a case that has rows, at most MOST_DRAWN of them, in any order and with repetitions."""
    chosen = np.random.default_rng().integers(0, case.rows, min(most, MOST_DRAWN))
    return GoldenCase(
        {name: array[chosen] for name, array in case.inputs.items()},
        {name: array[chosen] for name, array in case.outputs.items()},
    )


def tolerance_of(golden: Golden, output: str) -> tuple[float, float]:
    """Absolute and relative tolerance; 0 where none was measured."""
    return float(dict(golden.absolute).get(output, "0")), float(dict(golden.relative).get(output, "0"))


def differs(got: Array, recorded: Array, absolute: float, relative: float) -> NDArray[np.bool_]:
    """Elementwise: whether `got` lies outside numpy.allclose's band around `recorded`; NaN equals NaN."""
    if not _is_number(recorded):
        unequal: NDArray[np.bool_] = np.asarray(got != recorded, dtype=np.bool_)
        return unequal if absolute != float("inf") else np.zeros_like(unequal)
    if absolute == float("inf"):
        return np.zeros(recorded.shape, dtype=np.bool_)
    if absolute == 0 and relative == 0:
        unequal = np.asarray(got != recorded, dtype=np.bool_)
        if recorded.dtype.kind in "fc":
            unequal &= ~(np.isnan(_wide(got)) & np.isnan(_wide(recorded)))
        return unequal
    return ~np.isclose(_wide(got), _wide(recorded), rtol=relative, atol=absolute, equal_nan=True)


def worst_deviation(got: Array, recorded: Array) -> float:
    if recorded.size == 0:
        return 0.0
    if not _is_number(recorded):
        return float(np.count_nonzero(got != recorded))
    a, b = _wide(got), _wide(recorded)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(distance), np.inf, distance)))


def dump_cases(cases: Sequence[GoldenCase]) -> bytes:
    """The blob that `Golden` describes. Equal cases give equal bytes: sorted keys, no times, no compression."""
    arrays: dict[str, Array] = {}
    for index, case in enumerate(cases):
        for side, tensors in (("in", case.inputs), ("out", case.outputs)):
            for name, array in tensors.items():
                if array.dtype != np.object_:
                    arrays[f"case{index}.{side}.{name}"] = array
                    continue
                items: list[bytes] = array.ravel().tolist()
                lengths = np.array([len(item) for item in items], dtype="<i8")
                arrays[f"case{index}.{side}-length.{name}"] = lengths.reshape(array.shape)
                fixed = np.array(items, dtype=f"S{max(1, lengths.max(initial=0))}")
                arrays[f"case{index}.{side}.{name}"] = fixed.reshape(array.shape)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(arrays):
            member = io.BytesIO()
            # Not ascontiguousarray: it would turn a scalar into a vector.
            np.lib.format.write_array(member, np.asarray(arrays[key], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", _EPOCH), member.getvalue())
    return target.getvalue()


def load_cases(blob: bytes) -> list[GoldenCase]:
    """The inverse of `dump_cases`, in the order of their numbers. Never unpickles. Raises ArtifactInvalid."""
    sides: dict[int, dict[str, dict[str, Array]]] = {}
    try:
        # Not np.load: it confuses the tensor "x.npy" with the member of the tensor "x".
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for member in archive.namelist():
                match = _KEY.fullmatch(member.removesuffix(".npy"))
                if match is None:
                    raise ArtifactInvalid(f"a golden file has no array {member[:120]!r}")
                with archive.open(member) as file:
                    array: Array = np.lib.format.read_array(file, allow_pickle=False)
                sides.setdefault(int(match[1]), {}).setdefault(match[2], {})[match[3]] = array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise ArtifactInvalid(f"the golden file cannot be read: {error}") from None
    if sorted(sides) != list(range(len(sides))):
        raise ArtifactInvalid(f"the cases of a golden file are numbered from 0, not {sorted(sides)[:20]}")
    return [
        GoldenCase(
            inputs=_restore(sides[index].get("in", {}), sides[index].get("in-length", {})),
            outputs=_restore(sides[index].get("out", {}), sides[index].get("out-length", {})),
        )
        for index in sorted(sides)
    ]


def strings(items: Sequence[bytes], shape: Sequence[int]) -> Array:
    """An object array of bytes, as `Tensors` wants strings."""
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array.reshape(shape)


def _restore(arrays: Mapping[str, Array], lengths: Mapping[str, Array]) -> dict[str, Array]:
    restored: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "SU":
            restored[name] = array
            continue
        if name not in lengths:  # a file made by hand: strings end at their last byte that is not zero
            items = [s.encode() if isinstance(s, str) else s for s in array.ravel().tolist()]
        elif lengths[name].shape == array.shape and array.dtype.kind == "S":
            width = array.dtype.itemsize
            raw = np.asarray(array, order="C").tobytes()
            items = [raw[k * width : k * width + int(n)] for k, n in enumerate(lengths[name].ravel().tolist())]
        else:
            raise ArtifactInvalid(f"the golden file has other lengths than strings of {name!r}")
        restored[name] = strings(items, array.shape)
    return restored


def _answers_differ(old_golden: Golden, old: Tensors, new_golden: Golden, new: Tensors) -> bool:
    for name in sorted(old.keys() & new.keys()):
        if old[name].shape != new[name].shape or old[name].dtype != new[name].dtype:
            return True
        absolute, relative = tolerance_of(old_golden, name)
        more_absolute, more_relative = tolerance_of(new_golden, name)
        if GoldenMode.SHAPE_ONLY in {old_golden.mode, new_golden.mode}:
            continue
        # The band is taken around both values, so that the answer does not depend on which version is called old.
        band = absolute + more_absolute, relative + more_relative
        if bool((differs(new[name], old[name], *band) & differs(old[name], new[name], *band)).any()):
            return True
    return False


def _row_shapes(case: GoldenCase) -> dict[str, tuple[object, ...]]:
    tensors = {f"in {name}": array for name, array in case.inputs.items()}
    tensors |= {f"out {name}": array for name, array in case.outputs.items()}
    return {name: (array.dtype, array.shape[1:]) for name, array in tensors.items()}


def _same_tensors(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and not differs(a[name], b[name], 0, 0).any()
        for name in a
    )


def _is_number(array: Array) -> bool:
    return array.dtype.kind in "fiu"


def _comparable(recorded: Array) -> NDArray[np.bool_]:
    return np.isfinite(_wide(recorded)) if _is_number(recorded) else np.ones(recorded.shape, dtype=np.bool_)


def _wide(array: Array) -> NDArray[np.float64]:
    return array.astype(np.float64)
