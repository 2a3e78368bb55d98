# The server's own view of a run: its statistics before and after, and its metrics endpoint while it lasts.
from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2, service_pb2

from clients.inference import InferenceClient, InferenceError, TensorSpec
from clients.load.sequences import Ids

Seen = TypeVar("Seen")
_COUNTS_SECONDS, _COUNTS_PAUSE = 1.0, 0.02
_SERVICE = "/inference.GRPCInferenceService/"
_GAUGE = re.compile(r"^(nv_[a-z_]+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)
WATCHED = (
    "nv_cpu_utilization",
    "nv_cpu_memory_used_bytes",
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
)
METRICS_PORT = 8002
PARTS = ("queue", "input", "infer", "output", "total")
"""Of a request's time in the server: the last is all of it, with what lies between the others."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What the server counted. Nanoseconds are sums over the successful requests; `batches` are executions by batch size."""

    succeeded: int = 0
    failed: int = 0
    inferences: int = 0
    executions: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    cache_hits: int = 0
    batches: Mapping[int, int] = field(default_factory=dict)

    def __sub__(self, before: Shares) -> Shares:
        numbers = {name: getattr(self, name) - getattr(before, name) for name in Shares.__slots__ if name != "batches"}
        batches = {size: count - before.batches.get(size, 0) for size, count in self.batches.items()}
        return Shares(**numbers, batches={size: count for size, count in sorted(batches.items()) if count})

    def __add__(self, other: Shares) -> Shares:
        numbers = {name: getattr(self, name) + getattr(other, name) for name in Shares.__slots__ if name != "batches"}
        sizes = sorted({*self.batches, *other.batches})
        return Shares(
            **numbers, batches={size: self.batches.get(size, 0) + other.batches.get(size, 0) for size in sizes}
        )

    def mean_us(self, part: str) -> float | None:
        """Of one request, in µs; None when none succeeded."""
        return float(getattr(self, f"{part}_ns")) / self.succeeded / 1000 if self.succeeded else None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model takes and gives, as the server says; `versions` are those that are ready. `most_rows` is its largest batch, 0
    when it takes none: then the first dimension is no batch. `sequences`: how it knows them, None when it is not stateful."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: tuple[int, ...]
    most_rows: int
    decoupled: bool
    sequences: Ids | None

    @property
    def batched(self) -> bool:
        return self.most_rows > 0


def added(shares: Mapping[str, Shares] | None) -> Shares | None:
    """Of several models together."""
    return None if shares is None else sum(shares.values(), Shares())


def server_name(client: InferenceClient, *, deadline_seconds: float) -> str:
    """Such as `triton 2.51.0`. Raises InferenceError."""
    answer = _ask(client, "ServerMetadata", service_pb2.ServerMetadataRequest(), deadline_seconds)
    return f"{answer.name} {answer.version}"


def facts(client: InferenceClient, model: str, *, version: int | None, deadline_seconds: float) -> ModelFacts:
    """Raises InferenceError."""
    which = {"name": model, "version": "" if version is None else str(version)}
    metadata = _ask(client, "ModelMetadata", service_pb2.ModelMetadataRequest(**which), deadline_seconds)
    config = _ask(client, "ModelConfig", service_pb2.ModelConfigRequest(**which), deadline_seconds).config
    return ModelFacts(
        _specs(metadata.inputs),
        _specs(metadata.outputs),
        tuple(sorted(int(one) for one in metadata.versions)),
        most_rows=config.max_batch_size,
        decoupled=config.model_transaction_policy.decoupled,
        sequences=_ids(config.sequence_batching) if config.HasField("sequence_batching") else None,
    )


def _specs(tensors: Iterable[service_pb2.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one.name, one.datatype, tuple(one.shape)) for one in tensors)


def _ids(batching: model_config_pb2.ModelSequenceBatching) -> Ids:
    control = model_config_pb2.ModelSequenceBatching.Control
    types = [
        model_config_pb2.DataType.Name(one.data_type)
        for item in batching.control_input
        for one in item.control
        if one.kind == control.CONTROL_SEQUENCE_CORRID
    ]
    kinds: dict[str, Ids] = {"TYPE_INT32": "int32", "TYPE_UINT32": "int32", "TYPE_STRING": "string"}
    return kinds.get(types[0], "int64") if types else "int64"


def ready_models(client: InferenceClient, *, deadline_seconds: float) -> list[str]:
    """Raises InferenceError, also where the server's index is restricted."""
    answer = _ask(client, "RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True), deadline_seconds)
    return sorted({one.name for one in answer.models})


def statistics(client: InferenceClient, model: str, *, version: int | None, deadline_seconds: float = 5.0) -> Shares:
    """All versions together, or one. Raises InferenceError."""
    request = service_pb2.ModelStatisticsRequest(name=model, version="" if version is None else str(version))
    answer = _ask(client, "ModelStatistics", request, deadline_seconds)
    batches: dict[int, int] = {}
    for one in answer.model_stats:
        for batch in one.batch_stats:
            batches[int(batch.batch_size)] = batches.get(int(batch.batch_size), 0) + int(batch.compute_infer.count)
    stats = [one.inference_stats for one in answer.model_stats]
    return Shares(
        succeeded=sum(int(s.success.count) for s in stats),
        failed=sum(int(s.fail.count) for s in stats),
        inferences=sum(int(one.inference_count) for one in answer.model_stats),
        executions=sum(int(one.execution_count) for one in answer.model_stats),
        total_ns=sum(int(s.success.ns) for s in stats),
        queue_ns=sum(int(s.queue.ns) for s in stats),
        input_ns=sum(int(s.compute_input.ns) for s in stats),
        infer_ns=sum(int(s.compute_infer.ns) for s in stats),
        output_ns=sum(int(s.compute_output.ns) for s in stats),
        cache_hits=sum(int(s.cache_hit.count) for s in stats),
        batches=batches,
    )


def settled(read: Callable[[], Seen], enough: Callable[[Seen], bool]) -> Seen:
    """What the server says once that is `enough`, or after a second: it counts an answer a moment after it gave it."""
    end = time.monotonic() + _COUNTS_SECONDS
    while not enough(seen := read()) and time.monotonic() < end:
        time.sleep(_COUNTS_PAUSE)
    return seen


def _ask(client: InferenceClient, method: str, request: Message, deadline_seconds: float) -> Any:
    """A call that the client has no method for; the answer is the method's response."""
    call = client.channel.unary_unary(
        _SERVICE + method,
        request_serializer=type(request).SerializeToString,
        response_deserializer=getattr(service_pb2, f"{method}Response").FromString,
    )
    try:
        return call(request, timeout=deadline_seconds, metadata=client.metadata)
    except grpc.RpcError as error:
        raise InferenceError(error.code().name, error.details() or "") from None


class Gauges:
    """Samples the metrics endpoint every second, in a thread. A gauge that the server does not have has no entry: not
    available is not 0."""

    def __init__(self, url: str | None, seconds: float = 1.0) -> None:
        self._url = url
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: dict[str, list[float]] = {}
        """By gauge and label, such as `nv_gpu_utilization{gpu_uuid="GPU-1"}`."""

    def __enter__(self) -> Self:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._url is not None:
            self._thread.join()

    def _watch(self) -> None:
        wait = 0.0
        while not self._done.wait(wait):
            wait = self._seconds
            try:
                with urllib.request.urlopen(str(self._url), timeout=2) as answer:  # noqa: S310  # the user's own URL
                    text = answer.read(10_000_000).decode()
            except (OSError, ValueError):
                continue
            for name, labels, value in _GAUGE.findall(text):
                if name in WATCHED:
                    key = f"{name}{{{labels}}}" if labels else name
                    self.samples.setdefault(key, []).append(float(value))
