# What is sent: drawn by type and range, from samples, from files; every dimension known, what does not fit refused.
from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients.inference import TensorSpec
from clients.load.errors import LoadInputError
from clients.load.messages import distinct_inputs, from_directory, from_npz, message, random_inputs, shapes

BF16 = np.dtype(ml_dtypes.bfloat16)
NUMBERS = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
]


def spec(datatype: str, *shape: int, name: str = "X") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def refusal(run: object, *arguments: object, **options: object) -> tuple[str, str]:
    assert callable(run)
    with pytest.raises(LoadInputError) as caught:
        run(*arguments, **options)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_every_type_of_triton_is_drawn_in_range_and_travels(datatype: str) -> None:
    one = spec(datatype, -1, 500)
    drawn = random_inputs([one], {"X": (2, 500)}, low=3, high=7, random=np.random.default_rng(0))
    read = service_pb2.ModelInferRequest.FromString(message("m", drawn, version=None, parameters={})[5:])
    assert (read.inputs[0].datatype, tuple(read.inputs[0].shape)) == (datatype, (2, 500))
    if datatype == "BYTES":
        assert {len(word) for word in drawn["X"].ravel().tolist()} == {8}
        assert len(set(drawn["X"].ravel().tolist())) == 1000
    elif datatype == "BOOL":
        assert drawn["X"].mean() == pytest.approx(0.5, abs=0.06)
    else:
        values = drawn["X"].astype(float)
        assert 3 <= values.min() < values.max() < 7
        middle = 4.5 if "INT" in datatype else 5
        assert values.mean() == pytest.approx(middle, abs=0.2)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_a_half_that_rounds_up_to_the_end_is_not_sent(datatype: str) -> None:
    drawn = random_inputs([spec(datatype, 100_000)], {"X": (100_000,)}, low=0, high=1, random=np.random.default_rng(0))
    assert float(drawn["X"].astype(np.float32).max()) < 1


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [
        ("INT8", 200, 300),
        ("UINT8", -5, 0),
        ("INT32", 0.2, 0.9),
        ("FP32", 1, 1),
        ("FP16", 0, 1e6),
        ("FP32", 0, 1e300),
    ],
)
def test_a_range_without_such_a_number_is_refused(datatype: str, low: float, high: float) -> None:
    message_, hint = refusal(
        random_inputs, [spec(datatype, 2)], {"X": (2,)}, low=low, high=high, random=np.random.default_rng(0)
    )
    assert datatype in message_
    assert "'X'" in message_
    assert hint == "give --range LOW:HIGH"


def test_a_range_as_wide_as_the_type_is_drawn_from() -> None:
    drawn = random_inputs([spec("FP32", 99)], {"X": (99,)}, low=-3e38, high=3e38, random=np.random.default_rng(0))
    assert np.isfinite(drawn["X"]).all()
    ends = random_inputs([spec("INT8", 9999)], {"X": (9999,)}, low=-1e9, high=1e9, random=np.random.default_rng(0))
    assert (ends["X"].min(), ends["X"].max()) == (-128, 127)


def test_requests_are_as_many_as_asked_no_two_alike_and_the_same_for_the_same_seed() -> None:
    specs = [spec("INT32", 1, name="A"), spec("BOOL", 1, name="B"), spec("BYTES", 1, name="C")]
    options = {
        "whole": {"A": (1,), "B": (1,), "C": (1,)},
        "ranges": {"A": (5.0, 6.0), "B": (0.0, 1.0), "C": (0.0, 1.0)},
        "count": 20,
    }
    drawn = distinct_inputs(specs, **options, seed=3)  # type: ignore[arg-type]
    assert len({str(request) for request in drawn}) == 20
    assert str(drawn) == str(distinct_inputs(specs, **options, seed=3))  # type: ignore[arg-type]
    assert str(drawn) != str(distinct_inputs(specs, **options, seed=4))  # type: ignore[arg-type]
    few = options | {"count": 3}
    assert refusal(distinct_inputs, specs[1:2], **few, seed=0) == (
        "3 different requests were asked for, and 24 draws gave 2",
        "fewer requests, or a wider range",
    )


@pytest.mark.parametrize(
    ("given", "batch", "batched", "found"),
    [
        ({"X": [5]}, 4, True, {"X": (4, 5), "Y": (4, 3)}),
        ({"X": [5], "Y": [3]}, 1, True, {"X": (1, 5), "Y": (1, 3)}),
        ({"X": [7, 5], "Y": [2, 3]}, 1, False, {"X": (7, 5), "Y": (2, 3)}),
    ],
)
def test_shapes_are_whole(
    given: dict[str, list[int]], batch: int, batched: bool, found: dict[str, tuple[int, ...]]
) -> None:
    specs = [spec("FP32", -1, -1), spec("FP32", -1, 3, name="Y")]
    assert shapes(specs, batch=batch, batched=batched, given=given) == found


@pytest.mark.parametrize(
    ("given", "batch", "batched", "message_", "hint"),
    [
        ({}, 1, True, "input 'X' has dimensions of any size: [-1, 3]", "give them: --shape X:16,3"),
        ({"X": [-1, 3]}, 1, True, "input 'X' has dimensions of any size: [-1, 3]", "give them: --shape X:16,3"),
        ({"X": [4, 4]}, 1, True, "input 'X' has the shape [-1, 3], not [4, 4]", "-1 is any size"),
        ({"X": [4]}, 1, True, "input 'X' has the shape [-1, 3], not [4]", "-1 is any size"),
        ({"Z": [4]}, 1, True, "there is no input 'Z'", "the model takes X"),
        (
            {"X": [10**9, 3]},
            1,
            True,
            "input 'X' of 3,000,000,000 elements",
            "a smaller batch or shape: a message is less than 2 GiB",
        ),
        ({"X": [4, 3]}, 0, True, "a batch of 0", "1 or more"),
        ({"X": [4, 4, 3]}, 2, False, "a batch of 2", "this model takes no batches: leave it at 1"),
    ],
)
def test_a_dimension_that_nobody_gave_or_that_does_not_fit_is_refused(
    given: dict[str, list[int]], batch: int, batched: bool, message_: str, hint: str
) -> None:
    said = refusal(shapes, [spec("FP32", -1, -1, 3)], batch=batch, batched=batched, given=given)
    assert said == (message_, hint)


def test_samples_are_cut_into_batches_and_a_last_part_is_left_out(tmp_path: Path) -> None:
    rows, words = np.arange(14, dtype=np.float32).reshape(7, 2), np.array([[f"w{n}"] for n in range(7)])
    np.savez(tmp_path / "s.npz", X=rows, W=words, more=np.ones(1))
    specs = [spec("FP32", -1, 2), spec("BYTES", -1, 1, name="W")]
    drawn = from_npz(tmp_path / "s.npz", specs, batch=3, batched=True)
    assert [request["X"].tolist() for request in drawn] == [rows[:3].tolist(), rows[3:6].tolist()]
    assert drawn[1]["W"].tolist() == [["w3"], ["w4"], ["w5"]]
    assert set(drawn[0]) == {"X", "W"}


def test_a_model_without_batches_takes_one_sample_or_several(tmp_path: Path) -> None:
    one, several = np.ones((2, 3), np.int64), np.arange(24).reshape(4, 2, 3)
    np.savez(tmp_path / "one.npz", X=one)
    np.savez(tmp_path / "several.npz", X=several)
    specs = [spec("INT64", -1, 3)]
    (drawn,) = from_npz(tmp_path / "one.npz", specs, batch=1, batched=False)
    assert drawn["X"].tolist() == one.tolist()
    many = from_npz(tmp_path / "several.npz", specs, batch=1, batched=False)
    assert [request["X"].tolist() for request in many] == several.tolist()


def test_bfloat16_comes_from_float32_or_from_its_bits(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.5]], np.float32)
    np.savez(tmp_path / "f.npz", X=values)
    np.savez(tmp_path / "u.npz", X=values.astype(BF16).view(np.uint16))
    (tmp_path / "X").write_bytes(values.astype(BF16).tobytes())
    specs = [spec("BF16", -1, 2)]
    for (drawn,) in (
        from_npz(tmp_path / "f.npz", specs, batch=1, batched=True),
        from_npz(tmp_path / "u.npz", specs, batch=1, batched=True),
        from_directory(tmp_path, specs, {"X": (1, 2)}),
    ):
        assert drawn["X"].dtype == BF16
        assert drawn["X"].astype(np.float32).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"Y": np.ones((2, 2), np.float32)}, "has no array X"),
        ({"X": np.ones((2, 2))}, "'X' is float64, the model takes FP32"),
        ({"X": np.ones((2, 3), np.float32)}, "'X' has the shape [2, 3], the model's is [-1, 2]"),
        ({"X": np.ones(4, np.float32)}, "'X' has the shape [4], the model's is [-1, 2]"),
        ({"X": np.ones((1, 2), np.float32)}, "[1] rows for batches of 2"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]
    assert said in refusal(from_npz, tmp_path / "s.npz", [spec("FP32", -1, 2)], batch=2, batched=True)[0]


def test_files_that_are_no_samples_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04" + bytes(40))
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "objects.npz", X=np.array([{}], object))
    for name in ("text.npz", "empty.npz", "cut.npz", "one.npy", "objects.npz", "absent.npz"):
        said, _ = refusal(from_npz, tmp_path / name, [spec("FP32", -1)], batch=1, batched=False)
        why = "No such file or directory" if name == "absent.npz" else "it is no .npz file of plain arrays"
        assert said == f"the samples {tmp_path / name} cannot be read: {why}"


def test_a_directory_holds_raw_tensors_of_one_request_or_of_several(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "many" / f"r{number}"
        folder.mkdir(parents=True)
        (folder / "X").write_bytes(np.full((1, 2), number, "<f2").tobytes())
        (folder / "W").write_text(f"one\ntwo {number}\n")
    specs, whole = [spec("FP16", -1, 2), spec("BYTES", -1, 2, name="W")], {"X": (1, 2), "W": (1, 2)}
    drawn = from_directory(tmp_path / "many", specs, whole)
    assert [request["X"].tolist() for request in drawn] == [[[0, 0]], [[1, 1]]]
    assert drawn[1]["W"].tolist() == [[b"one", b"two 1"]]
    assert str(from_directory(tmp_path / "many" / "r1", specs, whole)) == str(drawn[1:])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(7), "has 7 bytes, which are no FP32"),
        (bytes(4), "has 1 values, the shape [1, 2] takes 2"),
        (None, "No such file or directory"),
    ],
)
def test_a_raw_tensor_that_does_not_fit_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "X").write_bytes(content)
    assert said in refusal(from_directory, tmp_path, [spec("FP32", -1, 2)], {"X": (1, 2)})[0]
    assert "is no directory" in refusal(from_directory, tmp_path / "absent", [spec("FP32", -1, 2)], {"X": (1, 2)})[0]
