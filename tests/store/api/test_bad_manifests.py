# Lists of files that no directory can hold are refused and leave nothing; what was found here stays for a day.
from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from clients.control.types import NewEnvironment, NewServer
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.catalog import Inspection, Model, Version
from tests.store.api.conftest import Api
from tests.store.clock import NOON
from tests.store.test_acceptance_bad_input import counted

pytestmark = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)

DATA = b"cat\ndog\n"
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
OTHER = f"sha256:{hashlib.sha256(b'').hexdigest()}"
"""Of no blob."""
File = tuple[str, int, str]
BAD: dict[str, tuple[File, ...]] = {
    "a file that is a directory too": (("labels", 8, SHA256), ("labels/x", 8, SHA256)),
    "a file deep below a file": (("labels", 8, SHA256), ("labels-b", 8, SHA256), ("labels/x/y", 8, SHA256)),
    "one path twice": (("labels", 8, SHA256), ("labels", 8, SHA256)),
    "another size": (("labels", 9, SHA256),),
    "a negative size": (("labels", -5, SHA256),),
    "no digest": (("labels", 8, "sha256:../../etc/passwd"),),
}


def _body(files: tuple[File, ...]) -> list[dict[str, str | int]]:
    return [{"path": path, "size": size, "sha256": sha256} for path, size, sha256 in files]


def _blobs(api: Api) -> list[Path]:
    return [path for path in (api.settings.home / "artifacts").rglob("*") if path.is_file()]


@pytest.fixture
def furnished(api: Api, tmp_path: Path) -> Api:
    """With a version to propose, and DATA in the store."""
    admin = api.as_("admin")
    admin.environments.create(NewEnvironment("prod", policy={"approvals": 1}))
    admin.environments.add_server("prod", NewServer("one", "127.0.0.1:1", str(tmp_path / "models")))
    plan = Manifest((FileEntry("model.plan", 1, f"sha256:{1:064x}"),))
    with api.storage.write() as unit:
        unit.catalog.ensure_model(Model("digits", "author", "", (), NOON))
        unit.catalog.add_version(Version("digits", 1, plan, Inspection(None, None, "tensorrt"), "", "author", NOON))
    with api.http("author") as client:
        assert client.put(f"/v1/blobs/{SHA256}", content=DATA).status_code == 200
    return api


@pytest.mark.parametrize("files", BAD.values(), ids=BAD.keys())
def test_acceptance_9_a_version_of_files_that_cannot_be_is_refused(furnished: Api, files: tuple[File, ...]) -> None:
    before = counted(furnished.storage)
    with furnished.http("author") as client:
        answer = client.post("/v1/models/other/versions", json={"files": _body(files)})
    assert (answer.status_code, answer.json()["code"]) == (422, "artifact.invalid"), answer.text
    assert counted(furnished.storage) == before


@pytest.mark.parametrize("files", BAD.values(), ids=BAD.keys())
def test_acceptance_9_files_beside_a_config_that_cannot_be_are_refused(furnished: Api, files: tuple[File, ...]) -> None:
    wish = {"environment": "prod", "model": "digits", "reason": "r", "versions": [1], "config": 'backend: "tensorrt"'}
    before = counted(furnished.storage)
    with furnished.http("author") as client:
        answer = client.post("/v1/changes", json={**wish, "beside": _body(files)})
        assert (answer.status_code, answer.json()["code"]) == (422, "artifact.invalid"), answer.text
        assert counted(furnished.storage) == before
        good = client.post("/v1/changes", json={**wish, "beside": _body((("labels.txt", 8, SHA256),))})
    assert good.status_code == 201, good.text


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"files": _body((("model.onnx", 9, SHA256),))}, 422),
        ({"files": _body((("model.onnx", 8, SHA256), ("w.bin", 0, OTHER)))}, 404),
        ({"files": _body((("model.onnx", 8, SHA256),)), "samples": OTHER}, 404),
    ],
    ids=["another size", "one was never uploaded", "the samples were never uploaded"],
)
def test_acceptance_9_a_registration_whose_files_cannot_be_read_leaves_no_blob(
    furnished: Api, wish: dict[str, object], status: int
) -> None:
    with furnished.http("author") as client:
        assert client.post("/v1/models/other/versions", json=wish).status_code == status
    assert _blobs(furnished) == []


def test_samples_that_are_no_digest_are_refused(furnished: Api) -> None:
    with furnished.http("author") as client:
        wish = {"files": _body((("model.onnx", 8, SHA256),)), "samples": "../samples"}
        answer = client.post("/v1/models/other/versions", json=wish)
    assert (answer.status_code, answer.json()["code"]) == (422, "artifact.invalid")


def test_what_a_sender_or_a_proposal_found_here_is_not_pruned_for_a_day(furnished: Api) -> None:
    (blob,) = _blobs(furnished)
    days_ago = time.time() - 2 * 24 * 3600
    admin = furnished.as_("admin").catalog
    os.utime(blob, (days_ago, days_ago))
    with furnished.http("author") as client:
        assert client.head(f"/v1/blobs/{SHA256}").status_code == 200
    assert admin.prune(apply=True).blobs == ()
    os.utime(blob, (days_ago, days_ago))
    furnished.services.blobs.manifest([FileEntry("labels.txt", 8, SHA256)])
    assert admin.prune(apply=True).blobs == ()
    os.utime(blob, (days_ago, days_ago))
    assert admin.prune(apply=True).blobs == (SHA256,)
    assert _blobs(furnished) == []
