# Where golden inputs come from: the interface alone, or the user's file.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controlplane.domain.catalog import TensorSpec
from controlplane.errors import ArtifactInvalid
from controlplane.triton.golden import Recipe, read_samples, request_bytes, seeded
from controlplane.triton.inspect_graph import DTYPES

X = TensorSpec("x", "TYPE_FP32", ("n", 2))
PLAIN = Recipe(seed=0, lead=1, base=8, values="plain")


def test_seeded_inputs_never_change() -> None:
    """If this fails, versions that were registered before can no longer be told from new ones."""
    specs = (
        X,
        TensorSpec("i", "TYPE_INT64", (3,)),
        TensorSpec("p", "TYPE_UINT8", (2,)),
        TensorSpec("b", "TYPE_BOOL", (4,)),
        TensorSpec("s", "TYPE_STRING", (2,)),
    )
    made = seeded(specs, PLAIN)
    assert {name: array.tolist() for name, array in made.items()} == {
        "x": [[-1.6070727109909058, 0.8449212312698364]],
        "i": [6, 2, 1],
        "p": [135, 92],
        "b": [False, False, True, False],
        "s": [b"word2", b"word0"],
    }


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_is_seeded_in_its_own_type(datatype: str) -> None:
    (array,) = seeded([TensorSpec("x", datatype, ("n", 5, None))], Recipe(1, 2, 3, "small")).values()
    assert (array.dtype, array.shape) == (np.dtype(DTYPES[datatype]), (2, 5, 3))


def test_a_tensors_values_depend_on_its_name_shape_and_seed_only() -> None:
    other = TensorSpec("y", "TYPE_FP32", ("n", 2))
    alone, together = seeded([X], PLAIN), seeded([other, X], PLAIN)
    assert alone["x"].tolist() == together["x"].tolist()
    assert alone["x"].tolist() != together["y"].tolist()
    assert alone["x"].tolist() != seeded([X], Recipe(1, 1, 8, "plain"))["x"].tolist()


def test_equal_symbols_have_equal_sizes_and_the_leading_ones_that_of_the_batch() -> None:
    specs = (TensorSpec("x", "TYPE_FP32", ("n", "n", "k")), TensorSpec("y", "TYPE_FP32", ("k", "n")))
    shapes = {name: array.shape for name, array in seeded(specs, Recipe(0, 2, 8, "plain")).items()}
    assert shapes == {"x": (2, 2, 2), "y": (2, 2)}
    assert seeded([TensorSpec("x", "TYPE_FP32", (None, "n", "n", 4))], PLAIN)["x"].shape == (1, 8, 8, 4)


def test_the_size_of_a_request_is_known_before_it_is_made() -> None:
    assert request_bytes([TensorSpec("x", "TYPE_FP64", ("n", 2**40, 2**40))], PLAIN) == 8 * 2**80


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "samples.npz", **arrays)
    return path / "samples.npz"


def test_samples_with_a_case_dimension_are_cut_along_it(tmp_path: Path) -> None:
    cases = read_samples(saved(tmp_path, x=np.arange(12, dtype=np.float32).reshape(3, 2, 2)), [X])
    assert [case["x"].tolist() for case in cases] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]


def test_samples_in_the_graphs_rank_are_rows(tmp_path: Path) -> None:
    cases = read_samples(saved(tmp_path, x=np.arange(4, dtype=np.float64).reshape(2, 2)), [X])
    assert [case["x"].tolist() for case in cases] == [[[0, 1]], [[2, 3]]]
    assert cases[0]["x"].dtype == np.float32


def test_samples_numbered_by_case_may_differ_in_size(tmp_path: Path) -> None:
    one, two = np.zeros((1, 2), np.float32), np.ones((4, 2), np.float32)
    cases = read_samples(saved(tmp_path, **{"case1.x": two, "case0.x": one}), [X])
    assert [case["x"].shape for case in cases] == [(1, 2), (4, 2)]


def test_string_samples_become_bytes(tmp_path: Path) -> None:
    spec = TensorSpec("t", "TYPE_STRING", ("n",))
    cases = read_samples(saved(tmp_path, t=np.array(["é", "b"])), [spec])
    assert [case["t"].tolist() for case in cases] == [["é".encode()], [b"b"]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((1, 2), np.float32)}, "the samples hold 'z', the graph's inputs are x"),
        ({"case0.z": np.zeros((1, 2), np.float32)}, "the samples hold 'case0.z', the graph's inputs are x"),
        ({"x": np.zeros((1, 3), np.float32)}, "the shape is [1, 3], the graph takes ['n', 2]"),
        ({"x": np.zeros(2, np.float32)}, "the samples of 'x' have 1 dimensions, the graph's input has 2"),
        ({"x": np.zeros((0, 2), np.float32)}, "the samples' arrays count different numbers of cases: [0]"),
        ({"x": np.array([["a", "b"]])}, "the datatype is <U1, the graph takes float32"),
        ({"x": np.zeros((1, 2), np.complex64)}, "the datatype is complex64, the graph takes float32"),
        ({}, "the samples hold no case"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        read_samples(saved(tmp_path, **arrays), [X])
    assert caught.value.message.endswith(message)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 no", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.npz").write_bytes(content)
    with pytest.raises(ArtifactInvalid, match="the samples cannot be read"):
        read_samples(tmp_path / "samples.npz", [X])


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ArtifactInvalid, match="single array"):
        read_samples(tmp_path / "one.npy", [X])


def test_an_array_of_objects_is_met_with_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, allow_pickle=True, text=np.array(["a", "b"], dtype=object))
    with pytest.raises(ArtifactInvalid, match="an array holds Python objects") as raised:
        read_samples(path, [X])
    assert raised.value.hint == "convert it before saving: array.astype(str)"
