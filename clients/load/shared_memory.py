# System shared memory for a run: tensors lie in regions that client and server both see, and messages only name their places.
"""Two regions: one with the inputs of all messages, one with a slot for the outputs of each call in flight. They are made,
allocated in full and registered before the clock starts. Once the server has mapped them their names are removed from
/dev/shm, so nothing is left there whatever kills this process; sending processes reach the outputs through its file descriptor.
Only when this process itself is killed does the server keep the memory, until it ends or is told to unregister `load-*`.
A server that starts again has forgotten the regions: its calls fail from then on.
"""

from __future__ import annotations

import math
import mmap
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from tritonclient.grpc import service_pb2

from clients.inference import InferenceClient
from clients.load.errors import LoadInputError

_SERVICE = "/inference.GRPCInferenceService/"
_DIRECTORY = Path("/dev/shm")  # noqa: S108  # where shm_open looks
_PREFIX = 5
_ALIGNED = 64
_SECONDS = 60.0
_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the outputs of calls in flight go. `tails` are put behind requests, one for each slot; with none outputs come in
    the answers. `path` is the region's file, as long as its `Regions` are open."""

    tails: tuple[bytes, ...] = ()
    path: str = ""

    def part(self, number: int, count: int) -> Slots:
        """Of one process among so many."""
        return replace(self, tails=self.tails[number::count])


class Regions:
    """`with Regions(client, messages, slots=8) as shared:` puts the tensors of `messages` into shared memory; send
    `shared.messages` with `Target(..., shared=shared.slots)`.

    `slots` are the calls in flight of all processes together, and some more for calls that are given up: their slots are not
    used again, for the server may yet write there. `outputs` are bytes by name of an output; None asks each message once and
    takes the largest, {} leaves outputs in the answers. Raises LoadInputError where the server refuses or cannot see them.
    """

    def __init__(
        self,
        client: InferenceClient,
        messages: Sequence[bytes],
        *,
        slots: int,
        outputs: Mapping[str, int] | None = None,
    ) -> None:
        self._client = client
        self._name = f"load-{os.getpid()}-{secrets.token_hex(8)}"
        self._given = tuple(messages)
        self._count = slots
        self._outputs = outputs
        self._stack = ExitStack()
        self.messages: tuple[bytes, ...] = ()
        self.slots = Slots()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            outputs = self._measured() if self._outputs is None else self._outputs
            self._share_inputs(stack)
            if outputs:
                self._share_outputs(stack, outputs)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _measured(self) -> dict[str, int]:
        ask = self._client.channel.unary_unary(
            f"{_SERVICE}ModelInfer", response_deserializer=service_pb2.ModelInferResponse.FromString
        )
        largest: dict[str, int] = {}
        for message in self._given:
            try:
                answer = ask(message[_PREFIX:], timeout=_SECONDS, metadata=self._client.metadata)
            except grpc.RpcError as error:
                raise LoadInputError(
                    f"a request was refused, so the size of its outputs is not known: {error.details()}",
                    "mend the request, or give the bytes of each output",
                ) from None
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                largest[output.name] = max(len(raw), largest.get(output.name, 1))
        return largest

    def _share_inputs(self, stack: ExitStack) -> None:
        name, at = f"{self._name}-in", 0
        tensors: list[tuple[int, bytes]] = []
        messages = []
        for message in self._given:
            request = service_pb2.ModelInferRequest.FromString(message[_PREFIX:])
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
                _place(tensor.parameters, name, at, len(raw))
                tensors.append((at, raw))
                at = _aligned(at + len(raw))
            del request.raw_input_contents[:]
            body = request.SerializeToString()
            messages.append(b"\0" + len(body).to_bytes(4, "big") + body)
        size = max(at, 1)  # requests without inputs
        file = self._region(stack, name, size)
        with mmap.mmap(file, size) as memory:
            for place, raw in tensors:
                memory[place : place + len(raw)] = raw
        self.messages = tuple(messages)

    def _share_outputs(self, stack: ExitStack, outputs: Mapping[str, int]) -> None:
        name, at = f"{self._name}-out", 0
        tails = []
        for _ in range(self._count):
            tail = service_pb2.ModelInferRequest()
            for output, size in outputs.items():
                _place(tail.outputs.add(name=output).parameters, name, at, size)
                at = _aligned(at + size)
            tails.append(tail.SerializeToString())
        file = self._region(stack, name, at)
        self.slots = Slots(tuple(tails), f"/proc/{os.getpid()}/fd/{file}")

    def _region(self, stack: ExitStack, name: str, size: int) -> int:
        """A registered region's file, open as long as the stack."""
        path = _DIRECTORY / name
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            stack.callback(os.close, file)
            with ExitStack() as named:
                named.callback(path.unlink)
                os.posix_fallocate(file, 0, size)  # else the server would die of writing where there is no room
                self._register(stack, name, size)
        except OSError as error:
            raise LoadInputError(
                f"{size} bytes of shared memory: {error.strerror}", "fewer calls in flight, or smaller tensors"
            ) from None
        return file

    def _register(self, stack: ExitStack, name: str, size: int) -> None:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            self._call("SystemSharedMemoryRegister", request)
        except grpc.RpcError as error:
            raise LoadInputError(
                f"the server does not take shared memory: {error.details()}",
                "it has to run on this host, share its /dev/shm and its user, and allow the call, by --header KEY=VALUE "
                "where that is restricted",
            ) from None
        stack.callback(self._unregister, name)

    def _unregister(self, name: str) -> None:
        with suppress(grpc.RpcError):  # a server that is gone has forgotten it
            self._call("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name))

    def _call(self, method: str, request: object) -> None:
        call = self._client.channel.unary_unary(
            _SERVICE + method, request_serializer=lambda message: message.SerializeToString()
        )
        call(request, timeout=_SECONDS, metadata=self._client.metadata)


class Outputs:
    """Reads the outputs of answers in their slots; the answers do not say where these lie."""

    def __init__(self, slots: Slots) -> None:
        file = os.open(slots.path, os.O_RDONLY)
        try:
            self._memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        self._places = [
            {
                output.name: output.parameters[_OFFSET].int64_param
                for output in service_pb2.ModelInferRequest.FromString(tail).outputs
            }
            for tail in slots.tails
        ]

    def whole(self, slot: int, body: bytes) -> bytearray:
        """A gRPC message with its prefix, as if the outputs had come in it."""
        answer = service_pb2.ModelInferResponse.FromString(body[_PREFIX:])
        del answer.raw_output_contents[:]  # one without content for each output
        for output in answer.outputs:
            at = self._places[slot][output.name]
            end = self._end(output.datatype, at, math.prod(output.shape))
            answer.raw_output_contents.append(self._memory[at:end])
        data = answer.SerializeToString()
        return bytearray(b"\0" + len(data).to_bytes(4, "big") + data)

    def _end(self, datatype: str, at: int, count: int) -> int:
        if datatype != "BYTES":
            return at + count * (1 if datatype == "BOOL" else int(datatype.lstrip("UINTFPB")) // 8)
        for _ in range(count):
            at += 4 + int.from_bytes(self._memory[at : at + 4], "little")
        return at

    def close(self) -> None:
        self._memory.close()


def _place(parameters: Mapping[str, service_pb2.InferParameter], region: str, offset: int, size: int) -> None:
    parameters[_REGION].string_param = region
    parameters[_SIZE].int64_param = size
    if offset:
        parameters[_OFFSET].int64_param = offset


def _aligned(at: int) -> int:
    return -(-at // _ALIGNED) * _ALIGNED
