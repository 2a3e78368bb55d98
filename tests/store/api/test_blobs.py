# Uploads: content-addressed, resumable, and nothing kept that is not what it says.
from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clients.control import uploads
from clients.control.errors import ApiError
from clients.control.types import File
from tests.store.api.conftest import MAX_ARTIFACT_BYTES, Api

DATA = os.urandom(100_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PATH = f"/v1/blobs/{SHA256}"


def _file(tmp_path: Path, data: bytes = DATA) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(data)
    return path


def test_what_was_uploaded_is_there_and_is_not_sent_again(api: Api, tmp_path: Path) -> None:
    author = api.as_("author")
    done: list[int] = []
    expected = File("model.onnx", len(DATA), SHA256)
    assert author.uploads.upload(_file(tmp_path), "model.onnx", progress=done.append) == expected
    with api.http("author") as client:
        assert client.head(PATH).status_code == 200
    assert author.uploads.upload(_file(tmp_path), "model.onnx", progress=done.append) == expected
    assert done == [len(DATA), len(DATA)]


def test_an_upload_goes_on_where_it_was_broken_off(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api.http("author") as client:
        first = client.put(PATH, content=DATA[:40_000], headers={"Content-Range": f"bytes 0-39999/{len(DATA)}"})
        asked = client.head(PATH)
    assert (first.status_code, first.headers["Upload-Offset"]) == (202, "40000")
    assert (asked.status_code, asked.headers["Upload-Offset"]) == (404, "40000")
    monkeypatch.setattr(uploads, "PIECE_BYTES", 25_000)
    done: list[int] = []
    api.as_("author").uploads.upload(_file(tmp_path), "model.onnx", progress=done.append)
    assert done == [40_000, 25_000, 25_000, 10_000]
    assert list((api.settings.home / "uploads").iterdir()) == []


def test_a_piece_that_does_not_follow_says_where_to_go_on(api: Api) -> None:
    with api.http("author") as client:
        answer = client.put(PATH, content=DATA[50:60], headers={"Content-Range": f"bytes 50-59/{len(DATA)}"})
    assert (answer.status_code, answer.json()["code"], answer.json()["details"]) == (409, "conflict", {"offset": 0})


@pytest.mark.parametrize("headers", [{}, {"Content-Range": "bytes 0-99999/100000"}])
def test_other_bytes_than_the_name_says_are_refused_and_not_kept(api: Api, headers: dict[str, str]) -> None:
    with api.http("author") as client:
        answer = client.put(PATH, content=bytes(len(DATA)), headers=headers)
        after = client.head(PATH)
    assert (answer.status_code, answer.json()["code"]) == (422, "artifact.invalid")
    assert (after.status_code, after.headers["Upload-Offset"]) == (404, "0")


@pytest.mark.parametrize(
    ("header", "content", "status"),
    [
        ("bytes 0-9", b"0123456789", 422),
        ("bytes 9-0/100", b"0123456789", 422),
        ("bytes 0-99/100", b"short", 422),
        ("bytes 0-9/100", b"longer than it said", 422),
        (f"bytes 0-9/{MAX_ARTIFACT_BYTES + 1}", b"0123456789", 413),
    ],
)
def test_a_piece_that_is_not_what_it_says_is_refused(api: Api, header: str, content: bytes, status: int) -> None:
    with api.http("author") as client:
        assert client.put(PATH, content=content, headers={"Content-Range": header}).status_code == status


def test_a_file_over_the_limit_is_refused(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        api.as_("author").uploads.upload(_file(tmp_path, bytes(MAX_ARTIFACT_BYTES + 1)), "model.onnx")
    assert (caught.value.code, caught.value.status) == ("input.too_large", 413)


@pytest.mark.parametrize("name", ["sha256:00", "md5:" + "0" * 32, "sha256:" + "G" * 64])
def test_a_name_that_is_no_digest_is_refused(api: Api, name: str) -> None:
    with api.http("author") as client:
        assert client.put(f"/v1/blobs/{name}", content=b"").json()["code"] == "input.invalid"


def test_who_may_not_upload_is_told_in_words(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="viewer may not") as refused:
        api.as_("viewer").uploads.upload(_file(tmp_path), "model.onnx")
    assert (refused.value.code, refused.value.exit_code) == ("access.permission_denied", 3)
    api.tokens["stranger"] = "tcp_wrong"
    with pytest.raises(ApiError) as unknown:
        api.as_("stranger").uploads.upload(_file(tmp_path), "model.onnx")
    assert (unknown.value.code, unknown.value.exit_code) == ("access.unauthenticated", 3)
    assert unknown.value.hint
