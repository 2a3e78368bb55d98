# The artifact store: what goes in comes out, whole or not at all.
from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.errors import ArtifactCorrupt, ArtifactInvalid, NameInvalid, NotFound
from controlplane.storage.artifacts import CHUNK_BYTES, ObjectArtifactStore

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectArtifactStore:
    """Two stores of obstore: what holds for both is not the file system's doing."""
    return ObjectArtifactStore(
        MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "store", mkdir=True)
    )


@pytest.fixture
def local(tmp_path: Path) -> ObjectArtifactStore:
    return ObjectArtifactStore.local(tmp_path / "store")


def files_below(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir())


def test_a_stream_is_named_by_its_digest_and_read_back(store: ObjectArtifactStore) -> None:
    assert store.has(ABC) is False
    assert store.add_stream([b"a", b"", b"bc"]) == (ABC, 3)
    assert store.has(ABC) is True
    assert b"".join(store.read(ABC)) == b"abc"


def test_an_empty_blob_is_a_blob(store: ObjectArtifactStore) -> None:
    assert store.add_stream([]) == (EMPTY, 0)
    assert b"".join(store.read(EMPTY)) == b""


def test_adding_a_blob_twice_is_harmless(store: ObjectArtifactStore) -> None:
    assert store.add_stream([b"abc"]) == store.add_stream([b"abc"], expected_sha256=ABC)
    assert b"".join(store.read(ABC)) == b"abc"


def test_a_stream_that_is_not_what_it_should_be_leaves_nothing(local: ObjectArtifactStore, tmp_path: Path) -> None:
    data = b"x" * (3 * CHUNK_BYTES)
    with pytest.raises(ArtifactCorrupt):
        local.add_stream([data], expected_sha256=ABC)
    assert files_below(tmp_path / "store") == []


def test_a_stream_that_breaks_off_leaves_nothing(local: ObjectArtifactStore, tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * CHUNK_BYTES
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        local.add_stream(breaking())
    assert files_below(tmp_path / "store") == []


def test_a_blob_over_the_limit_is_refused_before_it_is_all_read(tmp_path: Path) -> None:
    store = ObjectArtifactStore.local(tmp_path / "store", max_blob_bytes=10)

    def endless() -> Iterator[bytes]:
        while True:
            yield b"1234"

    with pytest.raises(ArtifactInvalid, match="larger than the limit of 10 bytes"):
        store.add_stream(endless())
    assert files_below(tmp_path / "store") == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:abc", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:../../" + "0" * 58]
)
def test_what_is_no_digest_is_refused(store: ObjectArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactInvalid, match="is not a digest"):
        store.has(digest)


def test_an_unknown_digest_is_not_found(store: ObjectArtifactStore) -> None:
    with pytest.raises(NotFound):
        list(store.read(ABC))


def test_altered_bytes_are_noticed_on_reading_and_healed_by_adding_them_again(
    local: ObjectArtifactStore, tmp_path: Path
) -> None:
    local.add_stream([b"abc"])
    blob = tmp_path / "store/blobs/sha256/ba" / ABC.removeprefix("sha256:")
    blob.write_bytes(b"abd")
    with pytest.raises(ArtifactCorrupt):
        list(local.read(ABC))
    with pytest.raises(ArtifactCorrupt):
        local.fetch(Manifest((FileEntry("model.onnx", 3, ABC),)), _made(tmp_path / "out"))
    assert files_below(tmp_path / "out") == []
    local.add_stream([b"abc"])
    assert b"".join(local.read(ABC)) == b"abc"


def test_a_directory_becomes_a_manifest_and_is_fetched_as_it_was(store: ObjectArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "weights").mkdir(parents=True)
    (source / "model.onnx").write_bytes(b"abc")
    (source / "weights" / "w.bin").write_bytes(b"")
    manifest = store.add_directory(source)
    assert manifest == Manifest((FileEntry("model.onnx", 3, ABC), FileEntry("weights/w.bin", 0, EMPTY)))
    target = _made(tmp_path / "out")
    store.fetch(manifest, target)
    assert files_below(target) == ["model.onnx", "weights/w.bin"]
    assert (target / "model.onnx").read_bytes() == b"abc"


def test_links_and_names_that_triton_may_not_see_are_refused_before_anything_is_stored(
    local: ObjectArtifactStore, tmp_path: Path
) -> None:
    source = _made(tmp_path / "in")
    (source / "a.bin").write_bytes(b"abc")
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactInvalid, match="link is not a plain file"):
        local.add_directory(source)
    (source / "link").unlink()
    for name in ("new\nline", 'quo"te', "$(touch x)", "a..b", "-o", ".hidden", "semi;colon", "é"):
        (source / name).write_bytes(b"")
        with pytest.raises(NameInvalid):
            local.add_directory(source)
        (source / name).unlink()
    with pytest.raises(ArtifactInvalid, match="holds no file"):
        local.add_directory(_made(tmp_path / "empty"))
    assert files_below(tmp_path / "store") == []


def test_a_link_a_pipe_and_a_missing_file_are_refused(local: ObjectArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        with pytest.raises(ArtifactInvalid):
            local.add_file(tmp_path / name, "model.onnx")


def test_fetching_a_blob_that_is_gone_says_so_and_leaves_no_half_file(
    store: ObjectArtifactStore, tmp_path: Path
) -> None:
    target = _made(tmp_path / "out")
    with pytest.raises(NotFound):
        store.fetch(Manifest((FileEntry("model.onnx", 3, ABC),)), target)
    assert files_below(target) == []


def test_a_sweep_removes_what_is_old_and_not_needed(local: ObjectArtifactStore, tmp_path: Path) -> None:
    local.add_stream([b"abc"])
    kept, _ = local.add_stream([b"kept"])
    (tmp_path / "store/staging").mkdir(exist_ok=True)
    (tmp_path / "store/staging/torn").write_bytes(b"half")
    (tmp_path / "store/staging/torn#1").write_bytes(b"half")
    now = datetime.now(UTC)
    later = now + timedelta(hours=1)
    assert local.sweep(lambda _: {kept}, older_than=now - timedelta(hours=1)) == {}
    before = files_below(tmp_path / "store")
    assert local.sweep(lambda _: {kept}, older_than=later, dry_run=True) == {ABC: 3}
    assert files_below(tmp_path / "store") == before
    assert local.sweep(lambda _: {kept}, older_than=later) == {ABC: 3}
    assert files_below(tmp_path / "store") == ["blobs/sha256/" + kept[7:9] + "/" + kept[7:]]


def test_a_blob_that_is_touched_while_a_sweep_goes_on_stays(store: ObjectArtifactStore) -> None:
    store.add_stream([b"abc"])
    time.sleep(0.05)  # a file's time is that of the last tick
    older_than = datetime.now(UTC)
    time.sleep(0.05)

    def nobody(_: Collection[str]) -> set[str]:
        store.touch(ABC)
        return set()

    assert store.sweep(nobody, older_than=older_than) == {}
    assert b"".join(store.read(ABC)) == b"abc"


def test_a_touch_tells_the_size_and_of_an_unknown_blob_nothing(store: ObjectArtifactStore) -> None:
    assert store.touch(ABC) is None
    store.add_stream([b"abc"])
    assert store.touch(ABC) == 3


def test_what_a_touch_found_no_sweep_of_the_same_moment_takes(local: ObjectArtifactStore, tmp_path: Path) -> None:
    blob = tmp_path / "store/blobs/sha256/ba" / ABC.removeprefix("sha256:")
    older_than = datetime.now(UTC) - timedelta(hours=1)
    outcomes = set()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(300):
            local.add_stream([b"abc"])
            os.utime(blob, (1, 1))
            sweeping = pool.submit(local.sweep, lambda _: set(), older_than=older_than)
            touching = pool.submit(local.touch, ABC)
            outcomes.add((touching.result(), bool(sweeping.result()), local.has(ABC)))
    assert outcomes <= {(3, False, True), (None, True, False), (None, False, True)}


def test_a_discarding_takes_nothing_that_another_had_set_aside(local: ObjectArtifactStore, tmp_path: Path) -> None:
    kept, _ = local.add_stream([b"kept"])
    local.add_stream([b"abc"])
    trash = _made(tmp_path / "store/trash") / kept[7:]
    (tmp_path / "store/blobs/sha256" / kept[7:9] / kept[7:]).rename(trash)
    assert local.discard({ABC}, lambda _: set()) == [ABC]
    assert local.has(kept)


def test_a_discarded_blob_is_gone_and_discarding_it_twice_is_harmless(store: ObjectArtifactStore) -> None:
    store.add_stream([b"abc"])
    assert store.discard({ABC}, lambda _: set()) == [ABC]
    assert store.discard({ABC}, lambda _: set()) == []
    assert store.has(ABC) is False


def test_a_blob_that_becomes_needed_while_it_is_discarded_is_put_back(store: ObjectArtifactStore) -> None:
    store.add_stream([b"abc"])
    answers = iter([set(), {ABC}])
    there: list[bool] = []

    def needed(_: Collection[str]) -> set[str]:
        there.append(store.has(ABC))
        return next(answers)

    assert store.discard({ABC}, needed) == []
    assert there == [True, False]
    assert b"".join(store.read(ABC)) == b"abc"


def test_eight_writers_of_the_same_blob_leave_one_whole_blob(store: ObjectArtifactStore) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    seen: list[tuple[str, int]] = []
    threads = [threading.Thread(target=lambda: seen.append(store.add_stream([data]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = "sha256:" + hashlib.sha256(data).hexdigest()
    assert seen == [(expected, len(data))] * 8
    assert b"".join(store.read(expected)) == data


def test_a_killed_writer_leaves_no_blob(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from controlplane.storage.artifacts import ObjectArtifactStore\n"
        "def chunks():\n"
        "    for n in range(1000):\n"
        "        yield bytes(1 << 20)\n"
        "        if n == 20: print('half', flush=True); time.sleep(60)\n"
        "ObjectArtifactStore.local(Path(sys.argv[1])).add_stream(chunks())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "store")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        time.sleep(0.2)
        writer.send_signal(signal.SIGKILL)
    store = ObjectArtifactStore.local(tmp_path / "store")
    assert not (tmp_path / "store/blobs").exists()
    store.sweep(lambda _: set(), older_than=datetime.now(UTC) + timedelta(seconds=1))
    assert files_below(tmp_path / "store") == []


def test_a_gigabyte_passes_through_in_a_few_mebibytes_of_memory(tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    with source.open("wb") as file:
        file.truncate(1 << 30)
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from controlplane.domain.artifacts import Manifest\n"
        "from controlplane.storage.artifacts import ObjectArtifactStore\n"
        "store = ObjectArtifactStore.local(Path(sys.argv[1])); out = Path(sys.argv[3]); out.mkdir()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "entry = store.add_file(Path(sys.argv[2]), 'big.bin')\n"
        "store.fetch(Manifest((entry,)), out)\n"
        "print(entry.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "store"), str(source), str(tmp_path / "out")]
    size, grown_kib = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert size == 1 << 30
    assert grown_kib < 64 * 1024


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
