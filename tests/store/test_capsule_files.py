# The file of a capsule: written from an artifact store, read from whoever wrote it.
from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.canonical import canonical_bytes, digest_bytes
from controlplane.errors import ArtifactCorrupt, CapsuleInvalid, NotFound
from controlplane.services.capsule_files import open_capsule, write_capsule
from controlplane.storage.artifacts import ObjectArtifactStore
from tests.unit.domain.test_capsules import a_capsule

BYTES = {digest_bytes(data): data for data in (b"abc", b"weights" * 200)}


@pytest.fixture
def store(tmp_path: Path) -> ObjectArtifactStore:
    found = ObjectArtifactStore.local(tmp_path / "artifacts", max_blob_bytes=1 << 20)
    for data in BYTES.values():
        found.add_stream([data])
    return found


@pytest.fixture
def whole(store: ObjectArtifactStore, tmp_path: Path) -> Path:
    path = tmp_path / "whole.capsule"
    with path.open("wb") as file:
        write_capsule(replace(a_capsule(), blobs={name: len(data) for name, data in BYTES.items()}), store, file)
    return path


def entries(path: Path) -> list[tuple[str, bytes]]:
    """As any other program unpacks it."""
    with tarfile.open(path) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def packed(path: Path, content: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_capsule_is_an_ordinary_tar_that_gives_back_what_went_in(whole: Path) -> None:
    names = ["capsule.json", *sorted(f"blobs/{name.removeprefix('sha256:')}" for name in BYTES)]
    assert [name for name, _ in entries(whole)] == names
    with open_capsule(whole) as opened:
        assert {name: b"".join(opened.blob(name)) for name in opened.capsule.blobs} == BYTES
        assert opened.verify() == ()
    assert json.loads(entries(whole)[0][1])["schema"] == "triton-controlplane/capsule/1"


def test_the_same_capsule_gives_the_same_bytes(whole: Path, store: ObjectArtifactStore) -> None:
    with open_capsule(whole) as opened:
        again = io.BytesIO()
        write_capsule(opened.capsule, store, again)
    assert again.getvalue() == whole.read_bytes()


def test_bytes_that_the_store_does_not_have_or_that_changed_there_are_no_capsule(store: ObjectArtifactStore) -> None:
    with pytest.raises(NotFound):
        write_capsule(a_capsule(), store, io.BytesIO())
    with pytest.raises(ArtifactCorrupt):
        write_capsule(replace(a_capsule(), blobs={next(iter(BYTES)): 4}), store, io.BytesIO())


def test_altered_bytes_are_named_and_never_given_out_as_whole(whole: Path, tmp_path: Path) -> None:
    content = entries(whole)
    name, data = content[1]
    path = packed(tmp_path / "altered", [content[0], (name, data[:-1] + b"!"), content[2]])
    sha256 = f"sha256:{name.removeprefix('blobs/')}"
    with open_capsule(path) as opened:
        assert opened.verify() == (f"the bytes of {sha256} are {digest_bytes(data[:-1] + b'!')}",)
        with pytest.raises(CapsuleInvalid):
            b"".join(opened.blob(sha256))


@pytest.mark.parametrize("length", [0, 100, 512, 2000, -1025, -1500])
def test_a_file_that_was_cut_off_is_refused(whole: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(whole.read_bytes()[:length])
    with pytest.raises(CapsuleInvalid), open_capsule(path):
        pass


def hostile(name: str) -> Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]:
    return {
        "another first": lambda content: content[::-1],
        "twice": lambda content: [*content, content[1]],
        "a stranger": lambda content: [*content, ("blobs/" + "f" * 64, b"x")],
        "a path": lambda content: [*content, ("../../etc/cron.d/x", b"x")],
        "an absolute path": lambda content: [*content, ("/etc/passwd", b"x")],
        "missing": lambda content: content[:-1],
        "another size": lambda content: [content[0], (content[1][0], content[1][1] + b"more"), content[2]],
        "no JSON": lambda content: [("capsule.json", b"{"), *content[1:]],
        "no capsule": lambda content: [("capsule.json", b"[]"), *content[1:]],
        "floats": lambda content: [
            ("capsule.json", b'{"schema": "triton-controlplane/capsule/1", "x": 1.5}'),
            *content[1:],
        ],
        "deep": lambda content: [("capsule.json", b"[" * 100_000), *content[1:]],
        "huge number": lambda content: [("capsule.json", b"[" + b"9" * 5000 + b"]"), *content[1:]],
    }[name]


@pytest.mark.parametrize(
    "name",
    ["another first", "twice", "a stranger", "a path", "an absolute path", "missing", "another size", "no JSON", "no capsule",
     "floats", "deep", "huge number"],
)  # fmt: skip
def test_a_hostile_file_is_refused_and_nothing_is_written(whole: Path, tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "hostile", hostile(name)(entries(whole)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CapsuleInvalid), open_capsule(path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_packed_or_extended_forms_are_refused(whole: Path, tmp_path: Path) -> None:
    link = tarfile.TarInfo("blobs/" + "f" * 64)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = tmp_path / "link"
    path.write_bytes(whole.read_bytes()[:-1024] + link.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    longer = packed(tmp_path / "pax", [*entries(whole), ("b" * 300, b"x")], tarfile.PAX_FORMAT)
    packed_up = tmp_path / "gz"
    with tarfile.open(packed_up, "w:gz") as tar:
        tar.add(whole, "capsule.json")
    for file in (path, longer, packed_up, tmp_path, tmp_path / "none"):
        with pytest.raises(CapsuleInvalid), open_capsule(file):
            pass


def test_an_entry_that_says_more_than_there_is_reads_no_more_than_that(whole: Path, tmp_path: Path) -> None:
    """A document of 8 GiB, which is not there: refused by its size before anything is read."""
    info = tarfile.TarInfo("capsule.json")
    info.size = (8 << 30) - 1
    path = tmp_path / "large"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + whole.read_bytes()[512:])
    with pytest.raises(CapsuleInvalid, match="may have"), open_capsule(path):
        pass


def test_what_follows_the_end_is_no_part_of_a_capsule(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "more"
    path.write_bytes(whole.read_bytes() + b"hidden")
    with pytest.raises(CapsuleInvalid, match="follows after the end"), open_capsule(path):
        pass


def test_a_document_has_one_form(whole: Path, tmp_path: Path) -> None:
    content = entries(whole)
    document = content[0][1]
    for other in (
        document.replace(b'"schema":', b'"schema" :'),
        document.replace(b'"control_plane":', b'"control_plane":"0.9","control_plane":', 1),
    ):
        assert canonical_bytes(json.loads(other)) == document
        with (
            pytest.raises(CapsuleInvalid, match="one form"),
            open_capsule(packed(tmp_path / "x", [("capsule.json", other), *content[1:]])),
        ):
            pass
