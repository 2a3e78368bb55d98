# A repository of the test's own, artifacts to put in it, and what is seen there.
from __future__ import annotations

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.servers import ModelFiles
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.triton.repository import LocalRepository

NOTHING = ModelFiles(config_text=None, versions={}, strays=(), newest_ns=0)
CONFIG = 'backend: "onnxruntime"\n'


def artifact(store: ObjectArtifactStore, **files: bytes) -> Manifest:
    """Names with `__` for `/` and `_onnx` for `.onnx`, because keywords have neither."""
    entries = []
    for name, data in files.items():
        sha256, size = store.add_stream([data])
        entries.append(FileEntry(name.replace("__", "/").replace("_onnx", ".onnx"), size, sha256))
    return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))


def seen(repository: LocalRepository, model: str = "m") -> tuple[str | None, dict[int, Manifest], tuple[str, ...]]:
    files = repository.observe(model)
    return files.config_text, dict(files.versions), files.strays


def leftovers(repository: LocalRepository) -> list[str]:
    return [path.name for path in repository.staging.iterdir()] if repository.staging.exists() else []
