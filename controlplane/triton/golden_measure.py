# Recording golden inferences: run the graph, try whether rows are independent, measure the tolerance. Runs in the child.
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Context, Decimal
from pathlib import Path

import numpy as np
import onnxruntime

from controlplane.domain.catalog import Batching, GoldenMode, TensorSpec
from controlplane.domain.golden import Array, GoldenCase, differs, strings, worst_deviation
from controlplane.domain.tensors import Tensors
from controlplane.errors import ModelInvalid
from controlplane.triton import golden
from controlplane.triton.golden import Recipe
from controlplane.triton.inspect_graph import brief, open_session

# Relative tolerance that another, equally right, kernel may need: rounding and the order of sums. The absolute one is
# this times the output's largest value.
FLOORS = {"f2": 1e-2, "f4": 1e-4, "f8": 1e-7}
_SAFETY = 10  # a measured deviation is one draw of what may happen
_LOOSE = 0.25  # a tolerance above this share of the output's largest value says nothing any more
_MAX_OUTPUT_BYTES = 256 * 1024 * 1024


@dataclass(slots=True)
class Recording:
    """What was recorded; without cases when nothing ran, and `skipped` says why."""

    batching: Batching
    cases: list[GoldenCase] = field(default_factory=list)
    mode: GoldenMode = GoldenMode.SHAPE_ONLY
    source: str = "seeded"
    absolute: dict[str, str] = field(default_factory=dict)
    relative: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Runner:
    """One session, fed and read in the types of `Tensors`."""

    def __init__(self, session: onnxruntime.InferenceSession, directory: Path) -> None:
        self._session = session
        self._directory = directory
        self._names = [node.name for node in session.get_outputs()]
        self.slowest = 0.0

    def __call__(self, inputs: Tensors) -> dict[str, Array]:
        """Raises ModelInvalid with onnxruntime's reason."""
        feeds = {name: _decoded(array) if array.dtype == np.object_ else array for name, array in inputs.items()}
        started = time.monotonic()
        try:
            results = self._session.run(self._names, feeds)
        except Exception as error:  # onnxruntime's exceptions have no common base but this one
            raise ModelInvalid(f"onnxruntime cannot run the graph: {brief(error, self._directory)}") from None
        self.slowest = max(self.slowest, time.monotonic() - started)
        outputs: dict[str, Array] = {}
        for name, result in zip(self._names, results, strict=True):
            if not isinstance(result, np.ndarray):
                raise ModelInvalid(f"output {name!r} is no tensor when the graph runs")
            text = result.dtype.kind in "OU"
            outputs[name] = strings([str(s).encode() for s in result.ravel()], result.shape) if text else result
        if sum(array.nbytes for array in outputs.values()) > _MAX_OUTPUT_BYTES:
            raise ModelInvalid(f"the outputs of one inference are more than {_MAX_OUTPUT_BYTES} bytes")
        return outputs


def record(
    directory: Path,
    session: onnxruntime.InferenceSession,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    samples: Path | None,
    *,
    deadline: float,
) -> Recording:
    """Run the graph and record. `deadline` is in time.monotonic(); what would not fit before it is skipped and named."""
    runner = Runner(session, directory)
    dynamic = all(golden.has_dynamic_lead(spec) for spec in (*inputs, *outputs)) and bool(inputs)
    recording = Recording(Batching.UNKNOWN if dynamic else Batching.FIXED)
    if samples is None:
        recipe = _find_recipe(runner, inputs, recording)
        if recipe is None:
            return recording
        rows = [golden.seeded(inputs, Recipe(100 + k, 1, recipe.base, recipe.values)) for k in range(3)]
        given = None
    else:
        recording.source, recipe = "samples", None
        given = golden.read_samples(samples, inputs)
        runner(given[0])  # the user says that it can be run: failing here refuses the version
        rows = _rows_of(given)
    hurried = deadline - time.monotonic() < 25 * runner.slowest
    deviations = _Deviations()
    if hurried:
        recording.skipped.append(f"batching and tolerance: one inference takes {runner.slowest:.1f} s")
    elif dynamic:
        recording.batching = _try_batching(runner, rows, deviations, recording)
    wanted = given if given is not None else _seeded_cases(inputs, recipe, recording.batching)
    for feeds in wanted[:1] if hurried else wanted:
        try:
            recording.cases.append(GoldenCase(feeds, runner(feeds)))
        except ModelInvalid as error:
            if given is not None:
                raise
            recording.notes.append(f"a seeded case of other sizes was left out: {error.message}")
    if not hurried:
        _measure(directory, runner, recording, deviations)
    _set_tolerance(recording, deviations)
    return recording


class _Deviations:
    """The worst difference seen for each output between runs that should agree; None once it cannot be a number."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        self.unstable: dict[str, str] = {}

    def compare(self, a: Tensors, b: Tensors, why: str) -> None:
        for name, array in a.items():
            if array.shape != b[name].shape:
                self.unstable.setdefault(name, why)
                continue
            deviation = worst_deviation(array, b[name])
            if deviation and (array.dtype.kind != "f" or not np.isfinite(deviation)):
                self.unstable.setdefault(name, why)
            self.worst[name] = max(self.worst.get(name, 0.0), deviation)


def _find_recipe(runner: Runner, inputs: Sequence[TensorSpec], recording: Recording) -> Recipe | None:
    """The first recipe that the graph accepts."""
    reason = "every seeded request would be too large"
    dynamic_inside = any(not isinstance(dim, int) for spec in inputs for dim in spec.dims[1:])
    for base in golden.BASES if dynamic_inside else golden.BASES[:1]:
        for values in golden.VALUES:
            recipe = Recipe(0, 1, base, values)
            if golden.request_bytes(inputs, recipe) > golden.MAX_CASE_BYTES:
                continue
            try:
                runner(golden.seeded(inputs, recipe))
            except ModelInvalid as error:
                reason = error.message
            else:
                return recipe
    recording.skipped.append(f"golden inference: the graph does not run on seeded inputs, give samples ({reason})")
    return None


def _seeded_cases(inputs: Sequence[TensorSpec], recipe: Recipe | None, batching: Batching) -> list[dict[str, Array]]:
    """Cases of one row where rows are independent, so that any max_batch_size serves them."""
    if recipe is None:
        return []
    leads = (1, 1, 1, 1) if batching in {Batching.BATCHABLE, Batching.UNKNOWN} else (1, 2, 5, 1)
    bases = (recipe.base, recipe.base, recipe.base, 2 * recipe.base)
    cases: list[dict[str, Array]] = []
    for seed, (lead, base) in enumerate(zip(leads, bases, strict=True)):
        one = Recipe(seed, lead, base, recipe.values)
        if golden.request_bytes(inputs, one) <= golden.MAX_CASE_BYTES:
            cases.append(golden.seeded(inputs, one))
    return cases if inputs else cases[:1]


def _rows_of(cases: Sequence[Tensors]) -> list[dict[str, Array]]:
    """Up to four single rows of equal inner shape, for trying them alone and together."""
    rows: list[dict[str, Array]] = []
    for case in cases:
        count = min((len(array) for array in case.values() if array.ndim), default=0)
        for k in range(count):
            row = {name: array[k : k + 1] for name, array in case.items()}
            alike = not rows or all(array.shape == rows[0][name].shape for name, array in row.items())
            if alike and len(rows) < 4:
                rows.append(row)
    return rows


def _try_batching(runner: Runner, rows: Sequence[Tensors], deviations: _Deviations, recording: Recording) -> Batching:
    """Each row alone, then all together: equal answers, row by row, or this graph mixes them."""
    if len(rows) < 2:
        recording.notes.append("batching could not be tried: the samples hold fewer than two rows of one shape")
        return Batching.UNKNOWN
    try:
        alone = [runner(row) for row in rows]
    except ModelInvalid as error:
        recording.notes.append(f"batching could not be tried: {error.message}")
        return Batching.UNKNOWN
    again = runner(rows[0])
    if any(again[n].shape != array.shape or differs(again[n], array, 0, 0).any() for n, array in alone[0].items()):
        recording.notes.append("batching could not be tried: the same input gives different answers")
        return Batching.UNKNOWN
    if not any(_finite(array).size for answer in alone for array in answer.values()):
        recording.notes.append("batching could not be tried: the outputs hold no comparable value")
        return Batching.UNKNOWN
    try:
        together = runner({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    except ModelInvalid as error:
        recording.notes.append(f"rows run alone but not together: {error.message}")
        return Batching.MIXES_ROWS
    for name, joint in together.items():
        if joint.ndim == 0 or len(joint) != len(rows) or any(a[name].shape != (1, *joint.shape[1:]) for a in alone):
            recording.notes.append(f"output {name!r} has the shape {list(joint.shape)} for {len(rows)} rows")
            return Batching.MIXES_ROWS
        stacked = np.concatenate([answer[name] for answer in alone])
        loose = min(0.05, 10 * FLOORS.get(stacked.dtype.str[1:], 0.0))
        if differs(joint, stacked, loose * _scale([stacked]), 0).any():
            recording.notes.append(f"output {name!r} of a row depends on the other rows of its batch")
            return Batching.MIXES_ROWS
        deviations.compare({name: joint}, {name: stacked}, "differs in a batch")
    return Batching.BATCHABLE


def _measure(directory: Path, runner: Runner, recording: Recording, deviations: _Deviations) -> None:
    """The same cases once more, and by an unoptimized session, which orders the arithmetic differently."""
    for case in recording.cases:
        deviations.compare(runner(case.inputs), case.outputs, "differs when it is run again")
        if deviations.unstable:
            break
    try:
        plain = Runner(open_session(directory, optimized=False), directory)
        for case in recording.cases:
            deviations.compare(plain(case.inputs), case.outputs, "differs without graph optimization")
    except ModelInvalid as error:
        recording.skipped.append(f"tolerance without graph optimization: {error.message}")


def _set_tolerance(recording: Recording, deviations: _Deviations) -> None:
    if not recording.cases:
        return
    comparable = False
    for name, sample in recording.cases[0].outputs.items():
        floor = FLOORS.get(sample.dtype.str[1:], 0.0)
        scale = _scale([case.outputs[name] for case in recording.cases])
        absolute = max(floor * scale, _SAFETY * deviations.worst.get(name, 0.0))
        reason = deviations.unstable.get(name)
        if reason is None and floor and absolute > _LOOSE * scale:
            reason = "varies by as much as its own values"
        if reason is not None:
            recording.notes.append(f"output {name!r} {reason}: only its shape is compared")
        comparable = comparable or reason is None
        recording.absolute[name] = "inf" if reason is not None else _decimal(absolute)
        recording.relative[name] = "0" if reason is not None else _decimal(floor)
    tolerant = any(value != "0" for value in recording.absolute.values())
    recording.mode = GoldenMode.SHAPE_ONLY if not comparable else GoldenMode.TOLERANCE if tolerant else GoldenMode.EXACT


def _scale(arrays: Sequence[Array]) -> float:
    """The largest finite value, at least a thousandth: an output of zeros needs some room too."""
    return max([1e-3, *(float(np.max(np.abs(values))) for a in arrays if (values := _finite(a)).size)])


def _finite(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if array.dtype.kind not in "fiub":
        return np.zeros(array.size)
    wide = array.astype(np.float64)
    return wide[np.isfinite(wide)]


def _decimal(value: float) -> str:
    """Two significant digits, rounded up, in plain notation."""
    return "0" if value == 0 else f"{Decimal(repr(value)).normalize(Context(prec=2, rounding=ROUND_UP)):f}"


def _decoded(array: Array) -> Array:
    decoded = np.empty(array.size, dtype=np.object_)
    decoded[:] = [item.decode() for item in array.ravel().tolist()]
    return decoded.reshape(array.shape)
