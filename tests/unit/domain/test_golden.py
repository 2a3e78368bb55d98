# Golden inferences: deterministic bytes, and verdicts by mode.
from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from controlplane.domain.catalog import Golden, GoldenMode
from controlplane.domain.golden import (
    GoldenCase,
    GoldenOutcome,
    GoldenVerdict,
    distinguishes,
    drawn,
    dump_cases,
    judge,
    load_cases,
    strings,
    together,
)
from controlplane.errors import ArtifactInvalid


def golden(mode: GoldenMode, absolute: str = "0", relative: str = "0") -> Golden:
    return Golden("sha256:" + "0" * 64, 1, mode, "seeded", (("y", absolute),), (("y", relative),))


def case(values: list[float], x: float = 1.0) -> GoldenCase:
    return GoldenCase({"x": np.array([x], np.float32)}, {"y": np.array(values, np.float32)})


AWKWARD = ["x", "x.npy", "in.x", "a/b:0", "../../etc", "quo\"te'", "case0.out.x", "é\n"]


def test_cases_come_back_as_they_went_in_whatever_their_names_and_datatypes() -> None:
    inputs = {name: np.array(k, np.int64) for k, name in enumerate(AWKWARD)}
    outputs = {
        "strings": strings([b"", b"a\0", b"\xff\0b", b"long " * 50], (2, 2)),
        "half": np.array([[1.5, np.nan, -np.inf]], np.float16),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.uint8),
    }
    (back,) = load_cases(dump_cases([GoldenCase(inputs, outputs)]))
    assert {name: a.tolist() for name, a in back.inputs.items()} == {name: k for k, name in enumerate(AWKWARD)}
    assert sorted(back.outputs) == sorted(outputs)
    for name, array in outputs.items():
        assert back.outputs[name].dtype == array.dtype
        assert back.outputs[name].shape == array.shape
        assert repr(back.outputs[name].tolist()) == repr(array.tolist())


def test_equal_cases_give_equal_bytes_whatever_the_order_of_their_names() -> None:
    a, b = np.arange(3, dtype=np.int32), np.ones((2, 2))
    assert dump_cases([GoldenCase({"a": a, "b": b}, {})]) == dump_cases([GoldenCase({"b": b.copy("F"), "a": a}, {})])


@settings(max_examples=50)
@given(hnp.arrays(st.sampled_from([np.float32, np.int8, np.uint64]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_array_survives(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    (back,) = load_cases(dump_cases([GoldenCase({"x": array}, {"y": array})]))
    assert back.inputs["x"].tobytes() == array.tobytes()
    assert back.outputs["y"].shape == array.shape


def test_a_pickle_in_a_golden_file_is_refused_and_not_run() -> None:
    target = io.BytesIO()
    np.savez(target, **{"case0.in.x": np.array([{"a": 1}], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(ArtifactInvalid, match="cannot be read"):
        load_cases(target.getvalue())


@pytest.mark.parametrize("blob", [b"", b"PK\x03\x04 not a zip", b"\x80\x04."])
def test_what_is_no_golden_file_is_refused(blob: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        load_cases(blob)


def test_unknown_arrays_and_missing_numbers_are_refused() -> None:
    for member in ("x.npy", "case01.in.x.npy", "case1.in.x.npy"):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive, archive.open(member, "w") as file:
            np.lib.format.write_array(file, np.zeros(1))
        with pytest.raises(ArtifactInvalid):
            load_cases(target.getvalue())


@pytest.mark.parametrize(
    ("mode", "got", "outcome"),
    [
        (GoldenMode.EXACT, [1.0, 2.0], GoldenOutcome.PASSED),
        (GoldenMode.EXACT, [1.0, 2.0000002], GoldenOutcome.FAILED),
        (GoldenMode.TOLERANCE, [1.005, 2.0], GoldenOutcome.PASSED),
        (GoldenMode.TOLERANCE, [1.05, 2.0], GoldenOutcome.FAILED),
        (GoldenMode.TOLERANCE, [float("nan"), 2.0], GoldenOutcome.FAILED),
        (GoldenMode.TOLERANCE, [1.0, 2.0, 3.0], GoldenOutcome.FAILED),
        (GoldenMode.SHAPE_ONLY, [7.0, 8.0], GoldenOutcome.PASSED),
        (GoldenMode.SHAPE_ONLY, [7.0], GoldenOutcome.FAILED),
    ],
)
def test_an_answer_is_judged_in_the_declared_mode(mode: GoldenMode, got: list[float], outcome: GoldenOutcome) -> None:
    tolerance = "0.01" if mode is GoldenMode.TOLERANCE else "0"
    assert judge(golden(mode, tolerance), case([1.0, 2.0]), {"y": np.array(got, np.float32)}).outcome is outcome


def test_a_failure_names_the_output_the_deviation_and_what_was_allowed() -> None:
    verdict = judge(
        golden(GoldenMode.TOLERANCE, "0.01", "1e-4"), case([1.0, 2.0]), {"y": np.array([1.5, 2.0], np.float32)}
    )
    assert verdict == GoldenVerdict(
        GoldenOutcome.FAILED,
        "output 'y': 1 of 2 values differ from the recorded ones, by up to 0.5 (allowed 0.01 + 0.0001 of the value)",
        (("y", "0.5"),),
    )


def test_a_missing_output_and_another_datatype_fail() -> None:
    recorded = case([1.0])
    assert judge(golden(GoldenMode.EXACT), recorded, {}).message == "output 'y' is missing"
    verdict = judge(golden(GoldenMode.SHAPE_ONLY), recorded, {"y": np.array([1.0])})
    assert verdict.message == "output 'y' is float64[1], recorded was float32[1]"


def test_recorded_nan_matches_nan_but_proves_nothing_alone() -> None:
    nan = float("nan")
    only_nan, mixed = case([nan, nan]), case([nan, 1.0])
    for mode in (GoldenMode.EXACT, GoldenMode.TOLERANCE):
        assert judge(golden(mode, "0.1"), only_nan, only_nan.outputs).outcome is GoldenOutcome.INCONCLUSIVE
        assert judge(golden(mode, "0.1"), mixed, mixed.outputs).outcome is GoldenOutcome.PASSED
        assert judge(golden(mode, "0.1"), only_nan, mixed.outputs).outcome is GoldenOutcome.FAILED


def test_an_output_that_may_be_anything_proves_nothing_alone() -> None:
    verdict = judge(golden(GoldenMode.TOLERANCE, "inf"), case([1.0]), {"y": np.array([9.0], np.float32)})
    assert verdict.outcome is GoldenOutcome.INCONCLUSIVE


def test_strings_and_scalars_are_compared_exactly() -> None:
    recorded = GoldenCase({}, {"y": strings([b"a", b"b"], (2,)), "n": np.array(3, np.int64)})
    same = {"y": strings([b"a", b"b"], (2,)), "n": np.array(3, np.int64)}
    other = {"y": strings([b"a", b"c"], (2,)), "n": np.array(4, np.int64)}
    assert judge(golden(GoldenMode.EXACT), recorded, same).outcome is GoldenOutcome.PASSED
    verdict = judge(golden(GoldenMode.EXACT), recorded, other)
    assert (verdict.outcome, verdict.deviations) == (GoldenOutcome.FAILED, (("n", "1"), ("y", "1")))


def test_large_integers_are_compared_without_rounding() -> None:
    recorded = GoldenCase({}, {"y": np.array([2**60], np.int64)})
    assert judge(golden(GoldenMode.EXACT), recorded, {"y": np.array([2**60 + 1])}).outcome is GoldenOutcome.FAILED


def test_only_cases_that_differ_by_more_than_both_tolerances_distinguish() -> None:
    old = golden(GoldenMode.TOLERANCE, "0.1"), [case([1.0], x=1), case([1.0], x=2), case([1.0], x=3)]
    new = golden(GoldenMode.TOLERANCE, "0.2"), [case([1.25], x=1), case([1.35], x=2), case([9.0], x=4)]
    assert distinguishes(old, new) == (1,)
    assert distinguishes(new, old) == (1,)


def test_another_output_shape_distinguishes_and_shape_only_values_do_not() -> None:
    old = golden(GoldenMode.SHAPE_ONLY), [case([1.0], x=1), case([1.0], x=2)]
    new = golden(GoldenMode.EXACT), [case([2.0], x=1), case([1.0, 1.0], x=2)]
    assert distinguishes(old, new) == (1,)


def test_rows_of_cases_shaped_alike_are_drawn_together_with_their_answers() -> None:
    def case(*rows: float, width: int = 2) -> GoldenCase:
        inputs = np.array([[row] * width for row in rows], np.float32)
        return GoldenCase({"x": inputs}, {"y": inputs[:, :1] * 10})

    pool = together([case(1, 2), case(3), case(4, width=3)])
    assert pool is not None
    assert pool.inputs["x"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert pool.outputs["y"].tolist() == [[10], [20], [30]]
    drawings = [drawn(pool, 4) for _ in range(50)]
    assert {len(one.inputs["x"]) for one in drawings} == {4}
    assert len(drawn(pool, 1000).inputs["x"]) == 64
    assert all((one.inputs["x"][:, :1] * 10 == one.outputs["y"]).all() for one in drawings)
    assert len({one.inputs["x"].tobytes() for one in drawings}) > 10


@pytest.mark.parametrize("answer", [np.float32(1), np.zeros((0, 1), np.float32), np.zeros((3, 1), np.float32)])
def test_what_has_no_rows_is_not_drawn_from(answer: np.generic) -> None:
    assert together([GoldenCase({"x": np.ones((2, 2), np.float32)}, {"y": np.asarray(answer)})]) is None
