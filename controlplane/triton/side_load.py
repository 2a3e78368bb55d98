# Loading models beside what a server serves, from its repository or with the request, and taking them away again.
"""For scratch models: whoever asks may stop waiting at any time, and Triton then goes on with the load by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from clients.inference import InferenceClient, InferenceError
from controlplane.domain.canonical import JsonObject
from controlplane.errors import LoadFailed, LoadUnknown, ServerError, ServerRefused, ServerUnreachable

_CALL_SECONDS = 10.0
_HEALTH_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True)
class Content:
    """A model that is in no repository. `files` are by their path below the model's directory, such as `1/model.onnx`."""

    config: JsonObject
    files: Mapping[str, bytes]


class SideLoader:
    """On the server of `client`, which stays the caller's."""

    def __init__(self, client: InferenceClient) -> None:
        self._client = client
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(client.channel)

    def alive(self) -> bool:
        return self._client.live(deadline_seconds=_HEALTH_SECONDS)

    def load(
        self, model: str, *, content: Content | None = None, deadline_seconds: float, go_on: Callable[[], None]
    ) -> None:
        """From the server's repository, or as `content`. `go_on` is called a few times a second, and what it raises ends the wait.

        Raises LoadFailed with what Triton said; LoadUnknown at the deadline, Triton goes on then; ServerUnreachable when the
        server went away, and ServerRefused when it does not let us load.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if content is not None:
            request.parameters["config"].string_param = json.dumps(content.config)
            for path, data in content.files.items():
                request.parameters[f"file:{path}"].bytes_param = data
        call = self._stub.RepositoryModelLoad.future(
            request, timeout=deadline_seconds, metadata=self._client.metadata, wait_for_ready=True
        )
        try:
            while True:
                go_on()
                try:
                    call.result(timeout=_PAUSE_SECONDS)
                except grpc.FutureTimeoutError:
                    continue
                return
        except grpc.RpcError as error:
            raise self._failure(model, error, deadline_seconds) from None
        finally:
            call.cancel()

    def unload(self, model: str, *, go_on: Callable[[], None]) -> None:
        """Returns when it is no longer ready. Raises ServerUnreachable and ServerRefused, as `load` does."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        try:
            self._stub.RepositoryModelUnload(request, timeout=_CALL_SECONDS, metadata=self._client.metadata)
        except grpc.RpcError as error:
            raise self._failure(model, error, _CALL_SECONDS) from None
        while self.ready(model):
            go_on()
            time.sleep(_PAUSE_SECONDS)

    def ready(self, model: str) -> bool:
        """False also where nobody answers."""
        try:
            return self._client.ready(model, deadline_seconds=_CALL_SECONDS)
        except InferenceError:
            return False

    def loaded(self, prefix: str) -> list[str]:
        """Models of such names, those that are in no repository too, which the server's index does not list."""
        try:
            answer = self._stub.ModelStatistics(
                service_pb2.ModelStatisticsRequest(), timeout=_CALL_SECONDS, metadata=self._client.metadata
            )
        except grpc.RpcError as error:
            raise self._failure("", error, _CALL_SECONDS) from None
        return sorted({one.name for one in answer.model_stats if one.name.startswith(prefix)})

    def _failure(self, model: str, error: grpc.RpcError, seconds: float) -> ServerError:
        status, said = error.code(), error.details() or ""
        if status is grpc.StatusCode.DEADLINE_EXCEEDED and self.alive():
            return LoadUnknown(
                f"{self._client.address} did not load {model!r} within {seconds:g} s", details={"model": model}
            )
        if (status in _LOST or status is grpc.StatusCode.DEADLINE_EXCEEDED) and not self.alive():
            return ServerUnreachable(
                f"no Triton can be reached at {self._client.address}: {said}",
                hint="see that the server runs, and that address and TLS settings are right",
                details={"address": self._client.address},
            )
        if status in _LOST:
            return ServerRefused(
                f"Triton at {self._client.address} refused: {said}",
                hint="check the bench server's admin key, and that it runs with --model-control-mode=explicit",
            )
        return LoadFailed(said, details={"model": model, "grpc_status": status.name})
