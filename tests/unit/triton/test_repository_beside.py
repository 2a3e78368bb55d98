# Files beside a config: exactly those that are asked for lie there, in one motion each, and newer than before.
from __future__ import annotations

import pytest

from controlplane.domain.artifacts import NO_FILES, FileEntry, Manifest, check_beside
from controlplane.errors import ArtifactInvalid
from controlplane.services.ports import ModelRepository
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.repository import LocalRepository
from tests.unit.triton.repositories import artifact, leftovers

CONFIG = 'backend: "onnxruntime"\n'


def beside(store: ObjectArtifactStore, **files: bytes) -> Manifest:
    """By path; `__` stands for `/`."""
    return artifact(store, **files)


def test_files_beside_the_config_are_made_what_is_asked_for(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    port: ModelRepository = repository
    one = artifact(store, model_onnx=b"one")
    port.write_version("m", 1, one, store)
    port.write_config("m", CONFIG)
    first = beside(store, **{"labels.txt": b"cat\ndog\n", "configs__small.pbtxt": b"a", "configs__big.pbtxt": b"b"})
    port.write_beside("m", first, store)
    before = port.observe("m")
    assert (before.config_text, before.versions, before.strays, before.beside) == (CONFIG, {1: one}, (), first)

    times = (repository.root / "m/labels.txt").stat().st_mtime_ns
    port.write_beside("m", first, store)
    assert port.observe("m") == before

    second = beside(store, **{"labels.txt": b"cat\ndog\n", "configs": b"a file now", "model": b"m", "old": b"o"})
    port.write_beside("m", second, store)
    after = port.observe("m")
    assert (after.beside, after.strays, after.versions) == (second, (), {1: one})
    assert after.newest_ns > before.newest_ns
    assert (repository.root / "m/labels.txt").stat().st_mtime_ns == times

    port.write_beside("m", NO_FILES, store)
    assert port.observe("m").beside == NO_FILES
    assert sorted(path.name for path in (repository.root / "m").iterdir()) == ["1", "config.pbtxt"]
    assert leftovers(repository) == []


@pytest.mark.parametrize("name", ["labels.txt", "model", "old", "fetched"])
def test_they_may_come_first_and_be_called_anything(
    repository: LocalRepository, store: ObjectArtifactStore, name: str
) -> None:
    wanted = beside(store, **{name: b"x"})
    repository.write_beside("m", wanted, store)
    assert repository.observe("m").beside == wanted
    deeper = beside(store, **{f"{name}__inner": b"y"})
    repository.write_beside("m", deeper, store)
    assert repository.observe("m").beside == deeper
    assert leftovers(repository) == []


def test_a_changed_and_an_added_file_are_put_right(repository: LocalRepository, store: ObjectArtifactStore) -> None:
    wanted = beside(store, **{"labels.txt": b"cat"})
    repository.write_beside("m", wanted, store)
    home = repository.root / "m"
    (home / "labels.txt").write_bytes(b"dog")
    (home / "notes.txt").write_bytes(b"")
    assert repository.observe("m").beside != wanted
    repository.write_beside("m", wanted, store)
    assert ((home / "labels.txt").read_bytes(), repository.observe("m").beside) == (b"cat", wanted)


@pytest.mark.parametrize("path", ["config.pbtxt", "1/model.onnx", "3.tmp/model.onnx", "12", "007/x"])
def test_what_triton_takes_for_something_else_cannot_lie_beside_a_config(path: str) -> None:
    with pytest.raises(ArtifactInvalid, match="cannot lie beside a config"):
        check_beside(Manifest((FileEntry(path, 1, "sha256:" + "0" * 64),)))
