# One Triton server over gRPC: what it has loaded, load and unload, inference.
"""Triton refuses a wrong key, and everything while it stops, with the status that gRPC uses for a lost connection. They are
told apart by what can be asked: a server whose health answers, and which refuses the same call twice, has refused it.
Every call here may be made twice: a load of what is loaded does nothing, and equal loads under way are one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from clients.inference import InferenceClient, InferenceError, Tls
from controlplane.domain.canonical import JsonObject
from controlplane.domain.latency_gates import LatencyGate, LatencySeen
from controlplane.domain.names import check_name
from controlplane.domain.servers import VersionState
from controlplane.domain.tensors import Tensors
from controlplane.errors import (
    InferenceFailed,
    LoadFailed,
    LoadUnknown,
    ServerError,
    ServerRefused,
    ServerUnreachable,
)
from controlplane.triton.config_fields import tree_of
from controlplane.triton.latency import measure_latency
from controlplane.triton.probe_counts import counted_probes
from controlplane.triton.server_log import ServerLog, poll_failure

Response = TypeVar("Response")

_HEALTH_SECONDS = 5.0
_CALL_SECONDS = 10.0
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class TritonServer:
    """The `Server` of services/ports.py. Safe to share between threads; it connects with the first call.

    `key` is the name and the value of the restricted protocols' key. `log` is the server's log file, where it is on this
    machine: Triton keeps the reason why a directory cannot be read only there. `probes` is where the backends of a server
    that we launched count the probes that they answered; those of other servers count none.
    """

    def __init__(
        self,
        address: str,
        *,
        key: tuple[str, str] | None = None,
        tls: Tls | None = None,
        log: Path | None = None,
        probes: Path | None = None,
    ) -> None:
        self.address = address
        self._metadata = () if key is None else ((f"triton-grpc-protocol-{key[0]}", key[1]),)
        self._tls = tls
        self._client = InferenceClient(address, tls=tls, metadata=self._metadata)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._client.channel)
        self._probes = probes
        self._log = None if log is None else ServerLog(log)

    def close(self) -> None:
        self._client.close()

    def alive(self) -> bool:
        return self._client.live(deadline_seconds=_HEALTH_SECONDS)

    def versions(self, model: str) -> Sequence[VersionState]:
        return self.models().get(model, ())

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        index = self._ask(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), "repository index")
        found: dict[str, list[VersionState]] = {}
        for entry in index.models:
            states = found.setdefault(entry.name, [])
            if entry.version:  # without one it says only that there is a directory
                states.append(VersionState(int(entry.version), entry.state, entry.reason))
        return {name: sorted(states, key=lambda state: state.number) for name, states in sorted(found.items())}

    def config(self, model: str) -> JsonObject | None:
        try:
            answer = self._ask(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=model), "model config")
        except ServerError:
            if any(state.state == "READY" for state in self.versions(model)):
                raise
            return None
        return tree_of(answer.config)

    def load(self, model: str, *, deadline_seconds: float) -> None:
        # Asked first, because only before the load is sent does an unreachable server mean that nothing was done.
        if not self.alive():
            raise self._unreachable("it does not answer")
        request = service_pb2.RepositoryModelLoadRequest(model_name=check_name(model, "model"))
        mark = 0 if self._log is None else self._log.end()
        try:
            self._call(self._stub.RepositoryModelLoad, request, deadline_seconds)
        except grpc.RpcError as error:
            status, said = error.code(), error.details() or ""
        else:
            return
        if status is grpc.StatusCode.DEADLINE_EXCEEDED or status in _LOST:
            raise LoadUnknown(
                f"loading {model!r} on {self.address} did not end "
                + (
                    f"within {deadline_seconds:g} s"
                    if status not in _LOST
                    else f"before the connection was lost: {said}"
                ),
                hint="Triton goes on with it; change no file of the model until its index settles or it restarts",
                details={"model": model, "grpc_status": status.name},
            )
        cause = None if self._log is None else poll_failure(self._log.since(mark), model)
        raise LoadFailed(
            f"Triton at {self.address} did not load {model!r}: {said}" + (f"; its log says: {cause}" if cause else ""),
            hint="what served before serves on; mend the config or the version it names",
            details={"model": model, "grpc_status": status.name, "answer": said, "cause": cause},
        )

    def unload(self, model: str) -> None:
        request = service_pb2.RepositoryModelUnloadRequest(model_name=check_name(model, "model"))
        self._ask(self._stub.RepositoryModelUnload, request, f"unload of {model!r}")

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
        try:
            answer = self._client.infer(
                model,
                inputs,
                version=version,
                outputs=outputs,
                deadline_seconds=deadline_seconds,
                request_id=request_id,
                sequence=sequence,
            )
        except InferenceError as error:
            # A full queue and a stopped scheduler say UNAVAILABLE too, from a server that is there.
            if error.code == grpc.StatusCode.UNAVAILABLE.name and not self.alive():
                raise self._unreachable(error.message) from None
            raise InferenceFailed(
                f"{model!r} version {version or 'highest'} at {self.address} did not answer: {error}",
                hint=f"see whether it is ready, and what its log says; the deadline was {deadline_seconds:g} s",
                details={"model": model, "version": version, "grpc_status": error.code},
            ) from None
        return answer.outputs

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
        hits = self.cache_hits(model, version)
        seen = measure_latency(
            self.address,
            model,
            version,
            gate,
            inputs,
            metadata=self._metadata,
            tls=self._tls,
            sequences="sequence_batching" in (self.config(model) or {}),
            seed=seed,
            go_on=go_on,
        )
        return replace(seen, cached=max(0, self.cache_hits(model, version) - hits))

    def cache_hits(self, model: str, version: int) -> int:
        request = service_pb2.ModelStatisticsRequest(name=model, version=str(version))
        answer = self._ask(self._stub.ModelStatistics, request, f"statistics of {model!r} version {version}")
        return sum(entry.inference_stats.cache_hit.count for entry in answer.model_stats)

    def probed_instances(self, model: str, version: int) -> Mapping[str, int] | None:
        return None if self._probes is None else counted_probes(self._probes, model, version)

    def _ask(self, call: Callable[..., Response], request: object, what: str) -> Response:
        try:
            return self._call(call, request, _CALL_SECONDS)
        except grpc.RpcError as error:
            status, said = error.code(), error.details() or ""
        if status in _LOST or status is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise self._unreachable(f"{what}: {said}")
        raise ServerError(
            f"Triton at {self.address} answered {status.name} to {what}: {said}",
            hint="see the server's log",
            details={"grpc_status": status.name},
        )

    def _call(self, call: Callable[..., Response], request: object, deadline_seconds: float) -> Response:
        """Raises ServerRefused, or the RpcError; UNAVAILABLE then means that the server is gone."""
        for last in (False, True):
            try:
                return call(request, timeout=deadline_seconds, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not self.alive():
                    raise
                said = error.details() or ""
            if last:
                break
        raise ServerRefused(
            f"Triton at {self.address} refused: {said}",
            hint="check the admin key of the server's entry, and that it runs with --model-control-mode=explicit",
        )

    def _unreachable(self, said: str) -> ServerUnreachable:
        return ServerUnreachable(
            f"no Triton can be reached at {self.address}: {said}",
            hint="see that the server runs, and that address and TLS settings are right",
            details={"address": self.address},
        )
