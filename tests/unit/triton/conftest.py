# A repository of the test's own, and a store with artifacts to put in it.
from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.repository import LocalRepository


@pytest.fixture
def store(tmp_path: Path) -> ObjectArtifactStore:
    return ObjectArtifactStore.local(tmp_path / "artifacts")


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    (tmp_path / "models").mkdir()
    return LocalRepository(tmp_path / "models")
