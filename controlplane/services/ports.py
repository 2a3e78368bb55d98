# The Protocols for what has more than one real implementation or must be faked at the wire.
"""Nothing here is called inside a transaction. Every call has a deadline; what raises is said on each method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Golden, Inspection, Version
from controlplane.domain.environments import Proof, ServerSpec
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.golden import GoldenCase
from controlplane.domain.latency_gates import LatencyGate, LatencySeen
from controlplane.domain.servers import Backend, ModelFiles, VersionState
from controlplane.domain.sweep_rounds import Measurement, RoundOrder, RoundResult
from controlplane.domain.sweeps import Sweep
from controlplane.domain.tensors import Tensors
from controlplane.domain.webhooks import Outcome


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

    def touch(self, sha256: str) -> int | None:
        """The size of a blob whose time is as of now renewed, so that no sweep takes it; None when it is not here."""
        ...

    def read(self, sha256: str) -> Iterator[bytes]:
        """Chunks of a blob, verified as they pass: raises ArtifactCorrupt after the last chunk of altered bytes, and
        NotFound for an unknown digest."""
        ...

    def discard(self, blobs: Collection[str], needed: Callable[[Collection[str]], Collection[str]]) -> list[str]:
        """Delete those of `blobs` that are not `needed`; return what was deleted.

        A blob may become needed at this very moment. So it is set aside first, `needed` is asked again, and only then
        it is deleted or put back; whoever comes to need a blob looks afterwards whether it is there, and adds it again.
        """
        ...

    def sweep(
        self, needed: Callable[[Collection[str]], Collection[str]], *, older_than: datetime, dry_run: bool = False
    ) -> dict[str, int]:
        """The same for every blob, and remnants of uploads, last written before `older_than`; the sizes of what was
        deleted, or would be. Adding a blob again or touching it renews its time, and what is renewed while the sweep
        goes on stays."""
        ...

    def fetch(self, manifest: Manifest, directory: Path) -> None:
        """Write every file of the manifest below `directory` (which exists and is empty), verified and fsynced.
        Raises ArtifactCorrupt or NotFound, and ArtifactInvalid for a manifest with a wrong size."""
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

    def check_path(self, path: str) -> None:
        """Raises ConfigPathInvalid for a place that no config has, whatever is set in it."""
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

    def inspect(
        self, directory: Path, *, samples: Path | None, store: ArtifactStore, opaque_config: JsonObject | None = None
    ) -> Inspection:
        """`directory` holds the version's files (`model.onnx` and its external data). With `opaque_config`, the user's
        own config of another backend, nothing but the samples is looked into. Raises ModelInvalid or ArtifactInvalid;
        the golden's blob is in `store` when it returns."""
        ...


class Server(Protocol):
    """One tritonserver. Raises ServerUnreachable, ServerRefused unless said otherwise."""

    def alive(self) -> bool: ...

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

    def latency(
        self,
        model: str,
        version: int,
        gate: LatencyGate,
        inputs: Sequence[Tensors],
        *,
        seed: int,
        go_on: Callable[[], None],
    ) -> LatencySeen:
        """Sends `inputs` in turns at the gate's rate, until its percentile is known. What `go_on`, called a few times a
        second, raises ends it at once. Raises nothing for what the model does: the verdict says it."""
        ...

    def cache_hits(self, model: str, version: int) -> int:
        """Requests that the response cache answered since the version was loaded; 0 where there is no cache."""
        ...

    def probed_instances(self, model: str, version: int) -> Mapping[str, int] | None:
        """Probe requests answered, by instance; None where the backend does not say."""
        ...


class ModelRepository(Protocol):
    """Triton's model repository of one server, on disk. Every method is idempotent and leaves, when it is killed, what
    Triton can read: whatever is new is staged outside, fsynced and renamed in, and is newer than all it replaces."""

    def observe(self, model: str) -> ModelFiles:
        """Hash what is there; digests of unchanged files (same inode, size and times) are remembered between calls."""
        ...

    def write_version(self, model: str, number: int, manifest: Manifest, store: ArtifactStore) -> None:
        """Put the version directory in place. A directory with other bytes is moved out first, never edited."""
        ...

    def remove_version(self, model: str, number: int) -> None: ...

    def write_beside(self, model: str, beside: Manifest, store: ArtifactStore) -> None:
        """Make these, and no other, the files beside the config."""
        ...

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

    def clean_staging(self) -> int:
        """Remove what killed writers left in the staging directory, hours ago; how many entries there were."""
        ...

    def fence(self, model: str, token: int, *, wait_seconds: float) -> AbstractContextManager[None]:
        """Hold the lock file beside the repository for one effect. Raises LeaseLost when a greater token has been here,
        and OperationTimedOut when another process holds it longer than `wait_seconds`."""
        ...


class Prober(Protocol):
    """Finds out whether every instance of a served version answers."""

    def __call__(
        self, server: Server, model: str, version: int, *, config: JsonObject, inputs: Tensors, seconds: float
    ) -> Proof:
        """`config` is the loaded one, `inputs` a golden case. SHOWN: every instance was seen to answer. FAILED: a request
        failed or did not return. SKIPPED: all answered, but the backend does not say which instance did."""
        ...


class Keeper(Protocol):
    """Power over a server that we launched; there is none over any other."""

    def kill(self, model: str) -> None:
        """SIGKILL the server for the sake of `model`, and keep it down until `release`."""
        ...

    def held(self) -> str | None:
        """The model for whose sake it is kept down."""
        ...

    def release(self) -> None:
        """Let it start again, and return when it is alive. Raises ServerUnreachable."""
        ...

    def backends(self, model: str) -> Collection[Backend]:
        """The model's backend processes as they are now."""
        ...

    def kill_stale(self, backends: Collection[Backend]) -> int:
        """SIGKILL those that still live after the time that draining takes; how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One server as the engine sees it. `keeper` is None for a server that we did not launch."""

    spec: ServerSpec
    server: Server
    repository: ModelRepository
    keeper: Keeper | None


class Connector(Protocol):
    """Opens servers by their spec; the same spec gives the same connection."""

    def __call__(self, spec: ServerSpec) -> Target: ...


class GoldenReader(Protocol):
    """Reads recorded inferences from the artifact store."""

    def __call__(self, golden: Golden) -> Sequence[GoldenCase]: ...


class ConfigGenerator(Protocol):
    """Writes a complete config for a version."""

    def __call__(self, version: Version, *, embedded: bool) -> JsonObject:
        """`embedded`: for our own server on this host. Raises InvalidInput for an opaque version."""
        ...


class MachineReader(Protocol):
    """Looks at the machine of a server."""

    def __call__(self, spec: ServerSpec) -> Fingerprint | None:
        """As a bench on that machine would have it; without the host where that is another one. None where the server does not
        answer in time."""
        ...


class Bench(Protocol):
    """One server that candidates are measured on, held while a sweep runs; nobody else measures there meanwhile. What is loaded
    stays loaded between rounds, until another round does not want it."""

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """By digest, of all that it measured on so far."""
        ...

    def measure(
        self,
        order: RoundOrder,
        store: ArtifactStore,
        *,
        done: Callable[[Measurement], None],
        go_on: Callable[[], None],
    ) -> RoundResult:
        """Load the order's models under scratch names, measure its blocks in their order, and tell each to `done` the moment it
        ends. A candidate that cannot be loaded or measured is in `failed`, its blocks are `not_measured`, and the
        round goes on. What `go_on`, called a few times a second, raises ends the round at once. Raises ServerUnreachable or
        RuntimeUnavailable when the bench itself is gone and does not come back."""
        ...


class BenchOpener(Protocol):
    """Opens the bench of a sweep; leaving the context stops and cleans what was started."""

    def __call__(self, sweep: Sweep) -> AbstractContextManager[Bench]: ...


class Poster(Protocol):
    """Sends letters to receivers that we know nothing about."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """One POST, redirects not followed, done within its deadline whatever the receiver does. Raises nothing for what
        a receiver does: the outcome says it."""
        ...
