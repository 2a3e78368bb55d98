# The Protocols for what has more than one real implementation or must be faked at the wire.
"""Nothing here is called inside a transaction. Every call has a deadline; what raises is said on each method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Inspection
from controlplane.domain.servers import ModelFiles, VersionState
from controlplane.domain.tensors import Tensors


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, aware, microseconds."""
        ...


class ArtifactStore(Protocol):
    """Content-addressed blobs. A blob is written once and never changes; writing it again is harmless."""

    def add_file(self, source: Path, path: str) -> FileEntry:
        """Stream a file in, holding at most a few MiB; the entry's path is `path`. Raises ArtifactInvalid."""
        ...

    def add_stream(self, chunks: Iterable[bytes], expected_sha256: str | None = None) -> tuple[str, int]:
        """Store a stream; return (`sha256:<hex>`, size). Raises ArtifactCorrupt when it is not `expected_sha256`, and
        keeps nothing then."""
        ...

    def has(self, sha256: str) -> bool: ...

    def read(self, sha256: str) -> Iterator[bytes]:
        """Chunks of a blob, verified as they pass: raises ArtifactCorrupt after the last chunk of altered bytes, and
        NotFound for an unknown digest."""
        ...

    def fetch(self, manifest: Manifest, directory: Path) -> None:
        """Write every file of the manifest below `directory` (which exists and is empty), verified and fsynced.
        Raises ArtifactCorrupt or NotFound."""
        ...


class ConfigCodec(Protocol):
    """Triton's ModelConfig as JSON trees: proto field names, 64-bit integers and floats as strings, enums by name,
    defaults left out."""

    def parse(self, text: str) -> JsonObject:
        """config.pbtxt to tree. Raises ConfigInvalid with line and column."""
        ...

    def render(self, config: JsonObject) -> str:
        """Tree to config.pbtxt, deterministic. Raises ConfigInvalid."""
        ...

    def check(self, config: JsonObject) -> JsonObject:
        """The same tree in its one normal form. Raises ConfigInvalid for unknown fields, wrong types and enums."""
        ...

    def set(self, config: JsonObject, path: str, text: str) -> JsonObject:
        """A new tree with the value at `path` replaced; `text` is read as the field's type asks (a message or list as
        JSON). Raises ConfigPathInvalid or ConfigInvalid."""
        ...

    def unset(self, config: JsonObject, path: str) -> JsonObject:
        """A new tree without what is at `path`. Raises ConfigPathInvalid when there is nothing."""
        ...


class Inspector(Protocol):
    """Validates artifacts in a child process with limits of time and memory."""

    def inspect(self, directory: Path, *, samples: Path | None, store: ArtifactStore) -> Inspection:
        """`directory` holds the version's files (`model.onnx` and its external data). Raises ModelInvalid or
        ArtifactInvalid; the golden's blob is in `store` when it returns."""
        ...


class Server(Protocol):
    """One tritonserver. Raises ServerUnreachable, ServerRefused unless said otherwise."""

    def alive(self) -> bool: ...

    def identity(self) -> JsonObject:
        """name, version, extensions."""
        ...

    def versions(self, model: str) -> Sequence[VersionState]:
        """What the index says of the model; empty when it was never loaded."""
        ...

    def models(self) -> Mapping[str, Sequence[VersionState]]: ...

    def config(self, model: str) -> JsonObject | None:
        """The loaded config as Triton reports it, in the codec's form; None when nothing is loaded."""
        ...

    def load(self, model: str, *, deadline_seconds: float) -> None:
        """Returns when Triton says it is done. Raises LoadFailed (with the log's reason where there is one) or
        LoadUnknown past the deadline."""
        ...

    def unload(self, model: str) -> None:
        """Returns at once; poll `versions`."""
        ...

    def infer(
        self,
        model: str,
        inputs: Tensors,
        *,
        version: int | None,
        outputs: Sequence[str],
        deadline_seconds: float,
        request_id: str = "",
        sequence: tuple[int, bool, bool] | None = None,
    ) -> Tensors:
        """Raises InferenceFailed. `sequence` is (id, start, end)."""
        ...

    def probed_instances(self, model: str, version: int) -> Mapping[str, int] | None:
        """Probe requests answered, by instance, from the metrics endpoint; None where the backend does not say."""
        ...


class ModelRepository(Protocol):
    """Triton's model repository of one server, on disk. Every method is idempotent and leaves, when it is killed, what
    Triton can read: whatever is new is staged outside, fsynced and renamed in, and is newer than all it replaces."""

    def observe(self, model: str) -> ModelFiles:
        """Hash what is there; digests of unchanged files (same inode, size and times) are remembered between calls."""
        ...

    def models(self) -> Sequence[str]: ...

    def write_version(self, model: str, number: int, manifest: Manifest, store: ArtifactStore) -> None:
        """Put the version directory in place. A directory with other bytes is moved out first, never edited."""
        ...

    def remove_version(self, model: str, number: int) -> None: ...

    def write_config(self, model: str, text: str) -> None: ...

    def remove_strays(self, model: str) -> None:
        """Move what does not belong out of the model's directory."""
        ...

    def remove_model(self, model: str) -> None:
        """Move the whole directory out of the repository, then delete it. Nothing to do when it is not there."""
        ...

    def touch(self, model: str) -> None:
        """Make config and version directories newer than any load, so that the next load is a full reload."""
        ...

    def fence(self, model: str, token: int, *, wait_seconds: float) -> AbstractContextManager[None]:
        """Hold the lock file beside the repository for one effect. Raises LeaseLost when a greater token has been here,
        and OperationTimedOut when another process holds it longer than `wait_seconds`."""
        ...
