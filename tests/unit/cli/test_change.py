# How arguments of a proposal are read, and which versions an adopted config serves.
from __future__ import annotations

from pathlib import Path

import click
import pytest

from controlplane.cli.adopt import Found, scan, served
from controlplane.cli.change import split_set
from controlplane.cli.config import model_and_version
from controlplane.cli.uploading import files_of


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("max_batch_size=8", ("max_batch_size", "8")),
        ('parameters["a=b"].string_value=c=d', ('parameters["a=b"].string_value', "c=d")),
        ("instance_group[0].count=", ("instance_group[0].count", "")),
    ],
)
def test_path_and_value_are_divided_at_the_first_sign_outside_of_quotes(text: str, pair: tuple[str, str]) -> None:
    assert split_set(text) == pair


@pytest.mark.parametrize("text", ["max_batch_size", "=8", 'parameters["a=b"]'])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        split_set(text)


def test_a_model_may_be_named_with_its_version() -> None:
    assert (model_and_version("digits"), model_and_version("digits:2")) == (("digits", None), ("digits", 2))
    with pytest.raises(click.BadParameter):
        model_and_version("digits:two")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (3,)),
        ({"version_policy": {"latest": {"num_versions": 2}}}, (2, 3)),
        ({"version_policy": {"all": {}}}, (1, 2, 3)),
        ({"version_policy": {"specific": {"versions": ["1", "3", "7"]}}}, (1, 3)),
    ],
)
def test_an_adopted_model_serves_what_its_version_policy_says(
    config: dict[str, object], expected: tuple[int, ...]
) -> None:
    assert served(config, [1, 2, 3]) == expected


def test_a_repository_is_scanned_for_models_with_versions_or_a_config(tmp_path: Path) -> None:
    for path in ("b/1/model.onnx", "b/12/model.onnx", "a/config.pbtxt", "a/.git", "c/README", "d/config.pbtxt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("text")
    for path in ("README.md", "b/labels.txt", "b/configs/small.pbtxt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("no version")
    (tmp_path / "a/config.pbtxt").write_text("ensemble_scheduling { }")
    beside = {name: tmp_path / "b" / name for name in ("configs/small.pbtxt", "labels.txt")}
    assert scan(tmp_path) == [
        Found("b", tmp_path / "b", {1: tmp_path / "b/1", 12: tmp_path / "b/12"}, None, beside),
        Found("d", tmp_path / "d", {}, "text", {}),
        Found("a", tmp_path / "a", {}, "ensemble_scheduling { }", {}),
    ]


def test_a_single_file_is_served_as_model_onnx_and_a_directory_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "v/weights").mkdir(parents=True)
    (tmp_path / "v/any.onnx").write_text("")
    (tmp_path / "v/weights/1.bin").write_text("")
    assert files_of(tmp_path / "v/any.onnx") == {"model.onnx": tmp_path / "v/any.onnx"}
    assert files_of(tmp_path / "v") == {
        "any.onnx": tmp_path / "v/any.onnx",
        "weights/1.bin": tmp_path / "v/weights/1.bin",
    }
    (tmp_path / "v/link").symlink_to("any.onnx")
    with pytest.raises(click.BadParameter, match="not a plain file"):
        files_of(tmp_path / "v")
