# Triton's model repository on disk: what is written, what is noticed, and what a kill leaves.
from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.servers import ModelFiles
from controlplane.errors import NameInvalid, OperationTimedOut, RepositoryFailed, SettingsInvalid
from controlplane.services.ports import ModelRepository
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.directory import newest_ns
from controlplane.triton.repository import LocalRepository
from tests.unit.triton.repositories import artifact, leftovers, seen

NOTHING = ModelFiles(config_text=None, versions={}, strays=(), newest_ns=0)
CONFIG = 'backend: "onnxruntime"\n'


def test_what_was_written_is_what_is_observed(repository: LocalRepository, store: ObjectArtifactStore) -> None:
    one = artifact(store, model_onnx=b"one", data__weights=b"w" * 9)
    two = artifact(store, model_onnx=b"two")
    port: ModelRepository = repository
    assert port.observe("m") == NOTHING
    port.write_version("m", 1, one, store)
    port.write_version("m", 12, two, store)
    port.write_config("m", CONFIG)
    assert seen(repository) == (CONFIG, {1: one, 12: two}, ())
    assert (repository.root / "m/1/data/weights").read_bytes() == b"w" * 9
    assert leftovers(repository) == []


def test_every_method_may_be_called_twice_and_the_second_call_changes_nothing(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    one = artifact(store, model_onnx=b"one")

    def steps() -> list[Callable[[], None]]:
        return [
            lambda: repository.write_version("m", 1, one, store),
            lambda: repository.write_version("m", 2, one, store),
            lambda: repository.write_config("m", CONFIG),
            lambda: repository.remove_version("m", 2),
            lambda: repository.remove_strays("m"),
            lambda: repository.remove_model("m"),
        ]

    for step in steps():
        step()
        once = repository.observe("m")
        step()
        assert repository.observe("m") == once
    assert repository.observe("m") == NOTHING


def test_a_user_other_than_the_writer_can_read_whatever_the_umask(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    before = os.umask(0o077)
    try:
        repository.write_version("m", 1, artifact(store, data__weights=b"w"), store)
        repository.write_config("m", CONFIG)
    finally:
        os.umask(before)
    home = repository.root / "m"
    assert {
        str(path.relative_to(home)): oct(stat.S_IMODE(path.stat().st_mode)) for path in [home, *home.rglob("*")]
    } == {
        ".": "0o755",
        "1": "0o755",
        "1/data": "0o755",
        "1/data/weights": "0o644",
        "config.pbtxt": "0o644",
    }


def test_everything_new_is_newer_than_all_that_was_there_even_when_that_has_a_time_in_the_future(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    one, two = artifact(store, model_onnx=b"one"), artifact(store, model_onnx=b"two")
    future = time.time_ns() + 3600 * 10**9
    repository.write_version("m", 1, one, store)
    os.utime(repository.root / "m/1/model.onnx", ns=(future, future))
    changes: list[tuple[str, Callable[[], None]]] = [
        ("m/1", lambda: repository.write_version("m", 1, two, store)),
        ("m/2", lambda: repository.write_version("m", 2, one, store)),
        ("m/config.pbtxt", lambda: repository.write_config("m", CONFIG)),
        ("m/config.pbtxt", lambda: repository.write_config("m", CONFIG + " ")),
        ("m", lambda: repository.remove_version("m", 2)),
        ("m/1", lambda: repository.touch("m")),
        ("m/2", lambda: repository.write_version("m", 2, one, store)),
    ]
    for path, change in changes:
        before = repository.observe("m").newest_ns
        change()
        assert newest_ns(repository.root / path) > before >= future


def test_older_bytes_put_back_with_their_old_times_are_seen_and_replaced_by_newer_ones(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    good, planted = artifact(store, model_onnx=b"good"), artifact(store, model_onnx=b"evil")
    repository.write_version("m", 1, good, store)
    file = repository.root / "m/1/model.onnx"
    old = file.stat().st_mtime_ns - 10**15
    file.write_bytes(b"evil")
    os.utime(file, ns=(old, old))
    assert seen(repository) == (None, {1: planted}, ())
    before = repository.observe("m").newest_ns
    repository.write_version("m", 1, good, store)
    assert seen(repository) == (None, {1: good}, ())
    assert newest_ns(repository.root / "m/1") > before


def test_same_size_other_bytes_are_noticed_at_once_and_after_the_digests_are_remembered(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    good, evil = artifact(store, model_onnx=b"good"), artifact(store, model_onnx=b"evil")
    repository.write_version("m", 1, good, store)
    file = repository.root / "m/1/model.onnx"
    times = file.stat()
    assert seen(repository)[1] == {1: good}
    with file.open("r+b") as stream:  # in place, within one tick of the clock, its mtime put back
        stream.write(b"evil")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert seen(repository)[1] == {1: evil}
    time.sleep(2.1)
    assert seen(repository)[1] == {1: evil}  # remembered from here on
    with file.open("r+b") as stream:
        stream.write(b"good")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert seen(repository)[1] == {1: good}


def test_an_unchanged_file_is_not_read_again_once_its_times_have_settled(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    repository.write_version("m", 1, artifact(store, model_onnx=b"x" * 8_000_000), store)
    time.sleep(2.1)
    amounts = []
    for _ in range(2):
        before = bytes_read()
        repository.observe("m")
        amounts.append(bytes_read() - before > 8_000_000)
    assert amounts == [True, False]


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("name", ["../models", "a/b", "", ".", "a\nb", "$(x)", "-x"])
def test_names_that_reach_elsewhere_are_refused_by_every_method(
    repository: LocalRepository, store: ObjectArtifactStore, name: str
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: repository.observe(name),
        lambda: repository.write_version(name, 1, artifact(store, x=b""), store),
        lambda: repository.write_config(name, ""),
        lambda: repository.remove_version(name, 1),
        lambda: repository.remove_strays(name),
        lambda: repository.remove_model(name),
        lambda: repository.touch(name),
        lambda: repository.fence(name, 1, wait_seconds=0),
    ]
    for call in calls:
        with pytest.raises(NameInvalid):
            call()


def test_a_place_for_staging_that_cannot_work_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    elsewhere = Path("/dev/shm") / f"tritonctl-test-{os.getpid()}"
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    elsewhere.mkdir()
    try:
        (tmp_path / ".tritonctl-models").mkdir()
        (tmp_path / ".tritonctl-models/staging").symlink_to(elsewhere)
        with pytest.raises(SettingsInvalid, match="on another file system"):
            LocalRepository(tmp_path / "models").write_config("m", CONFIG)
    finally:
        elsewhere.rmdir()


def test_repositories_side_by_side_share_neither_locks_nor_staging(tmp_path: Path) -> None:
    prod, canary = (LocalRepository(tmp_path / name) for name in ("prod", "canary"))
    for repository in (prod, canary):
        repository.root.mkdir()
    with prod.fence("m", 500, wait_seconds=1), canary.fence("m", 3, wait_seconds=1):
        prod.write_config("m", CONFIG)
        canary.write_config("m", CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".tritonctl-canary",
        ".tritonctl-prod",
        "canary",
        "prod",
    ]
    assert (prod.staging, canary.staging) == (
        tmp_path / ".tritonctl-prod/staging",
        tmp_path / ".tritonctl-canary/staging",
    )


def test_every_name_of_a_repository_finds_the_same_locks(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "models")
    with (
        LocalRepository(tmp_path / "models").fence("m", 2, wait_seconds=1),
        pytest.raises(OperationTimedOut),
        LocalRepository(tmp_path / "x/../link").fence("m", 3, wait_seconds=0),
    ):
        raise AssertionError("two were inside")


def test_a_disk_that_refuses_is_an_error_of_ours_and_leaves_nothing(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    repository.root.rmdir()
    with pytest.raises(RepositoryFailed) as caught:
        repository.write_version("m", 1, artifact(store, model_onnx=b"one"), store)
    assert caught.value.details == {"errno": 2}
    assert leftovers(repository) == []


def test_a_write_that_fails_half_way_leaves_what_was_there(
    repository: LocalRepository, store: ObjectArtifactStore
) -> None:
    one = artifact(store, model_onnx=b"one")
    repository.write_version("m", 1, one, store)
    missing = Manifest((*one.files, FileEntry("z.onnx", 1, "sha256:" + "0" * 64)))
    before = repository.observe("m")
    with pytest.raises(Exception, match="holds no blob"):
        repository.write_version("m", 1, missing, store)
    assert repository.observe("m") == before
    assert leftovers(repository) == []


def test_only_old_remnants_of_our_own_are_cleaned(repository: LocalRepository) -> None:
    (repository.staging / "tritonctl-dead/1").mkdir(parents=True)
    (repository.staging / "tritonctl-dead/1/model.onnx").write_bytes(b"half")
    (repository.staging / "theirs").mkdir()
    assert repository.clean_staging(older_than_seconds=60) == 0
    time.sleep(0.05)
    assert repository.clean_staging(older_than_seconds=0.01) == 1
    assert leftovers(repository) == ["theirs"]
    assert repository.clean_staging(older_than_seconds=0) == 0


def write_for_ever(base: Path, manifests: list[Manifest]) -> None:
    repository = LocalRepository(base / "models")
    store = ObjectArtifactStore.local(base / "artifacts")
    while True:
        for manifest in manifests:
            repository.write_version("m", 1, manifest, store)
            repository.write_config("m", CONFIG + "#" * len(manifest.files))
            repository.write_version("m", 2, manifest, store)
            repository.remove_version("m", 2)


def test_a_writer_killed_anywhere_leaves_whole_versions_a_whole_config_and_only_staged_garbage(
    repository: LocalRepository, store: ObjectArtifactStore, tmp_path: Path
) -> None:
    manifests = [
        artifact(store, model_onnx=b"one" * 50_000),
        artifact(store, model_onnx=b"two" * 50_000, data__weights=b"w" * 100_000),
    ]
    spawn = multiprocessing.get_context("spawn")
    for attempt in range(4):
        writer = spawn.Process(target=write_for_ever, args=(tmp_path, manifests))
        writer.start()
        while repository.observe("m").config_text in {None, CONFIG}:
            time.sleep(0.001)
        time.sleep(0.017 * attempt)
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        files = repository.observe("m")
        assert files.strays == ()
        assert set(files.versions.values()) <= set(manifests)
        assert files.config_text in {CONFIG + "#", CONFIG + "##"}
        repository.write_version("m", 1, manifests[0], store)
        repository.remove_version("m", 2)
        repository.write_config("m", CONFIG)
        assert seen(repository) == (CONFIG, {1: manifests[0]}, ())
    time.sleep(0.05)
    repository.clean_staging(older_than_seconds=0.01)
    assert leftovers(repository) == []
