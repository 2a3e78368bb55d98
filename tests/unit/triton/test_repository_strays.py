# What does not belong in a model repository: named, moved out, replaced.
from __future__ import annotations

import os
from pathlib import Path

import pytest

from controlplane.domain.artifacts import NO_FILES
from controlplane.domain.servers import ModelFiles
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.repository import LocalRepository
from tests.unit.triton.repositories import artifact, leftovers, seen

NOTHING = ModelFiles(config_text=None, versions={}, strays=(), newest_ns=0)
CONFIG = 'backend: "onnxruntime"\n'


def test_what_does_not_belong_is_named_and_moved_out_and_nothing_else_is(
    repository: LocalRepository, store: ObjectArtifactStore, tmp_path: Path
) -> None:
    one = artifact(store, model_onnx=b"one", data__weights=b"w")
    repository.write_version("m", 1, one, store)
    repository.write_config("m", CONFIG)
    home = repository.root / "m"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    for directory in ("3.tmp", "4", "007", "empty", "configs", "1/__pycache__", "1/empty/inner", "99999999999"):
        (home / directory).mkdir(parents=True)
    for file in (
        "README.md",
        "configs/small.pbtxt",
        "configs/a b",
        ".hidden",
        "1/.swap",
        "1/a b",
        "1/__pycache__/model.pyc",
        "3.tmp/model.onnx",
        "12345",
    ):
        (home / file).write_bytes(b"stray")
    os.mkfifo(home / "1/pipe")
    (home / os.fsdecode(b"\xff")).write_bytes(b"")
    (home / "dangling").symlink_to(home / "nowhere")
    (home / "1/escape").symlink_to(outside / "secret")
    (home / "1/loop").symlink_to(home)
    (home / "5").symlink_to(outside)
    before = repository.observe("m")
    strays = (
        ".hidden",
        "007",
        "1/.swap",
        "1/__pycache__",
        "1/a b",
        "1/empty",
        "1/escape",
        "1/loop",
        "1/pipe",
        "12345",
        "3.tmp",
        "5",
        "99999999999",
        "\\xff",
        "configs/a b",
        "dangling",
        "empty",
    )
    assert (before.config_text, before.versions, before.strays) == (CONFIG, {1: one, 4: NO_FILES}, strays)
    assert [entry.path for entry in before.beside.files] == ["README.md", "configs/small.pbtxt"]
    repository.remove_strays("m")
    assert seen(repository) == (CONFIG, {1: one, 4: NO_FILES}, ())
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == [
        "1",
        "1/__pycache__",
        "1/data",
        "1/data/weights",
        "1/model.onnx",
        "4",
        "README.md",
        "config.pbtxt",
        "configs",
        "configs/small.pbtxt",
    ]
    assert (home / "1/__pycache__").is_file()
    assert (outside / "secret").read_bytes() == b"secret"
    assert leftovers(repository) == []
    assert repository.observe("m").newest_ns > before.newest_ns


def test_no_bytecode_can_be_written_beside_source(repository: LocalRepository, store: ObjectArtifactStore) -> None:
    source = artifact(store, **{"model.py": b"import inner", "inner__part.py": b""})
    repository.write_version("m", 1, source, store)
    home = repository.root / "m" / "1"
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == [
        "__pycache__",
        "inner/__pycache__",
        "inner/part.py",
        "model.py",
    ]
    assert seen(repository) == (None, {1: source}, ())
    (home / "__pycache__").write_bytes(b"something")
    assert seen(repository)[2] == ("1/__pycache__",)
    repository.remove_strays("m")
    assert seen(repository) == (None, {1: source}, ())
    assert (home / "__pycache__").read_bytes() == b""


def test_a_link_to_a_file_of_the_same_model_belongs(repository: LocalRepository, store: ObjectArtifactStore) -> None:
    one = artifact(store, model_onnx=b"one")
    repository.write_version("m", 1, one, store)
    (repository.root / "m/2").mkdir()
    (repository.root / "m/2/model.onnx").symlink_to("../1/model.onnx")
    assert seen(repository) == (None, {1: one, 2: one}, ())


@pytest.mark.parametrize("kind", ["link to a directory", "dangling link", "file"])
def test_an_entry_that_is_no_directory_is_a_stray_as_a_whole_and_is_replaced_by_a_write(
    repository: LocalRepository, store: ObjectArtifactStore, tmp_path: Path, kind: str
) -> None:
    one = artifact(store, model_onnx=b"one")
    elsewhere = tmp_path / "elsewhere"
    home = repository.root / "m"

    def plant() -> None:
        if kind == "file":
            home.write_bytes(b"")
            return
        if kind == "link to a directory":
            (elsewhere / "1").mkdir(parents=True, exist_ok=True)
            (elsewhere / "1/model.onnx").write_bytes(b"theirs")
        home.symlink_to(elsewhere)

    plant()
    assert seen(repository) == (None, {}, (".",))
    repository.touch("m")
    repository.write_version("m", 1, one, store)
    assert seen(repository) == (None, {1: one}, ())
    repository.remove_model("m")
    plant()
    repository.remove_strays("m")
    assert repository.observe("m") == NOTHING
    assert [path.name for path in tmp_path.rglob("model.onnx") if path.read_bytes() != b"theirs"] == []


def test_config_and_versions_of_the_wrong_kind_are_replaced(
    repository: LocalRepository, store: ObjectArtifactStore, tmp_path: Path
) -> None:
    one = artifact(store, model_onnx=b"one")
    home = repository.root / "m"
    (home / "config.pbtxt/x").mkdir(parents=True)
    (home / "1").write_bytes(b"a file")
    assert seen(repository) == (None, {}, ("1", "config.pbtxt"))
    repository.write_config("m", CONFIG)
    repository.write_version("m", 1, one, store)
    assert seen(repository) == (CONFIG, {1: one}, ())
    (home / "config.pbtxt").rename(home / "other")
    (home / "config.pbtxt").symlink_to("other")
    assert seen(repository) == (CONFIG, {1: one}, ())
    assert [entry.path for entry in repository.observe("m").beside.files] == ["other"]
    repository.write_config("m", CONFIG)
    assert not (home / "config.pbtxt").is_symlink()


@pytest.mark.parametrize("data", [b"name: \xff", b"#" * (4 * 1024 * 1024 + 1)])
def test_a_config_that_is_no_text_of_bounded_size_is_a_stray(repository: LocalRepository, data: bytes) -> None:
    (repository.root / "m").mkdir()
    (repository.root / "m/config.pbtxt").write_bytes(data)
    assert seen(repository) == (None, {}, ("config.pbtxt",))
