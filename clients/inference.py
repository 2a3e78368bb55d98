# Typed inference against a Triton server over gRPC: numpy tensors in and out. It stands alone.
"""Tensors travel in the `raw_*_contents` fields. Protobuf would copy each of them twice more, so only the small head of
a message goes through protobuf and the tensors are put behind it, or taken from behind it, as the wire format lays
them down: a message's fields may come in any order, and a bytes field is its tag, its length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

Tensor = NDArray[np.generic]
Parameter = bool | int | str

_SERVICE = "/inference.GRPCInferenceService/"
_RAW_INPUT = b"\x3a"  # field 7 of ModelInferRequest, length-delimited
_RAW_OUTPUT = 0x32  # field 6 of ModelInferResponse, length-delimited
_LENGTH = struct.Struct("<I")

_DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_DATATYPES = {(dtype.kind, dtype.itemsize): name for name, dtype in _DTYPES.items()}

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton answers pings that come more often than every five minutes with GOAWAY.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that restarts is found again at once; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 250),
)

_RECONNECT_SECONDS = 0.5  # two of the longest pauses between attempts


class InferenceError(Exception):
    """The server, or the way to it, refused. `code` is gRPC's status name, such as `NOT_FOUND` or `DEADLINE_EXCEEDED`;
    `INVALID_ARGUMENT` may come from this side too, for an array that has no Triton datatype."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes. Without `root` the system's authorities count; `certificate` and `key` are for mutual TLS."""

    root: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The arrays are the caller's own: writable, contiguous. BF16 arrives as float32, which holds it exactly."""

    model: str
    version: str
    request_id: str
    outputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a served model takes under a name; -1 is any length, as for a batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def open_channel(address: str, tls: Tls | None = None, *, own_connection: bool = False) -> grpc.Channel:
    """A channel to `host:port`. It connects with the first call, and is safe to share between threads. Channels to one
    address share a connection, but for those that want their own."""
    options = (*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)) if own_connection else _OPTIONS
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(tls.root, tls.key, tls.certificate)
    return grpc.secure_channel(address, credentials, options=options)


class InferenceClient:
    """Safe to share between threads. Every call has a deadline in seconds, connecting included.

    `metadata` goes with every call: lower-case keys, such as `triton-grpc-protocol-<key>` of a restricted protocol.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.address = address
        self.channel = open_channel(address, tls)
        self.metadata = tuple(metadata)
        # Without serializers the messages pass as the bytes that they are.
        self._infer = self.channel.unary_unary(_SERVICE + "ModelInfer")
        self._live = self.channel.unary_unary(
            _SERVICE + "ServerLive",
            request_serializer=service_pb2.ServerLiveRequest.SerializeToString,
            response_deserializer=service_pb2.ServerLiveResponse.FromString,
        )
        self._ready = self.channel.unary_unary(
            _SERVICE + "ModelReady",
            request_serializer=service_pb2.ModelReadyRequest.SerializeToString,
            response_deserializer=service_pb2.ModelReadyResponse.FromString,
        )
        self._metadata = self.channel.unary_unary(
            _SERVICE + "ModelMetadata",
            request_serializer=service_pb2.ModelMetadataRequest.SerializeToString,
            response_deserializer=service_pb2.ModelMetadataResponse.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()

    def live(self, *, deadline_seconds: float) -> bool:
        """False when the server says so, or says nothing. A server that refuses to connect is asked for half a second,
        so that one which has just come back is not missed."""
        for patience in (False, True):
            timeout = min(deadline_seconds, _RECONNECT_SECONDS) if patience else deadline_seconds
            try:
                answer = self._live(
                    service_pb2.ServerLiveRequest(), timeout=timeout, metadata=self.metadata, wait_for_ready=patience
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    return False
            else:
                return bool(answer.live)
        return False

    def ready(self, model: str, *, version: int | None = None, deadline_seconds: float) -> bool:
        request = service_pb2.ModelReadyRequest(name=model, version="" if version is None else str(version))
        try:
            answer = self._ready(request, timeout=deadline_seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            raise InferenceError(error.code().name, error.details() or "") from None
        return bool(answer.ready)

    def inputs(self, model: str, *, version: int | None = None, deadline_seconds: float) -> tuple[TensorSpec, ...]:
        """What is served takes these; no `version` means the highest that is ready. Raises InferenceError."""
        request = service_pb2.ModelMetadataRequest(name=model, version="" if version is None else str(version))
        try:
            answer = self._metadata(request, timeout=deadline_seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            raise InferenceError(error.code().name, error.details() or "") from None
        return tuple(TensorSpec(item.name, item.datatype, tuple(item.shape)) for item in answer.inputs)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Tensor],
        *,
        deadline_seconds: float,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        sequence: tuple[int, bool, bool] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Answer:
        """One answer. No `version` means the highest that is ready, no `outputs` all of them; `sequence` is (id, start,
        end). Raises InferenceError."""
        request = encode_request(
            model,
            inputs,
            version=version,
            outputs=outputs,
            request_id=request_id,
            sequence=sequence,
            parameters=parameters,
        )
        try:
            response = self._infer(request, timeout=deadline_seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            raise InferenceError(error.code().name, error.details() or "") from None
        return decode_response(response)


def encode_request(
    model: str,
    inputs: Mapping[str, Tensor],
    *,
    version: int | None = None,
    outputs: Sequence[str] = (),
    request_id: str = "",
    sequence: tuple[int, bool, bool] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
) -> bytes:
    """A serialized ModelInferRequest, its tensors copied once."""
    head = service_pb2.ModelInferRequest(
        model_name=model, model_version="" if version is None else str(version), id=request_id
    )
    chosen: dict[str, Parameter] = dict(parameters or {})
    if sequence is not None:
        number, start, end = sequence
        chosen |= {"sequence_id": number, "sequence_start": start, "sequence_end": end}
    for key, value in chosen.items():
        slot = head.parameters[key]
        if isinstance(value, bool):
            slot.bool_param = value
        elif isinstance(value, int):
            slot.int64_param = value
        else:
            slot.string_param = value
    tail: list[bytes | memoryview] = []
    for name, array in inputs.items():
        datatype, raw, size = _raw_of(name, array)
        head.inputs.add(name=name, datatype=datatype, shape=array.shape)
        tail += (_RAW_INPUT + _varint(size), raw)
    for name in outputs:
        head.outputs.add(name=name)
    return b"".join((head.SerializeToString(), *tail))


def decode_response(data: bytes) -> Answer:
    """Raises InferenceError for a response whose tensors do not fit their shapes."""
    head, raws = _split(data)
    if len(raws) != len(head.outputs):
        raise InferenceError("INTERNAL", f"{len(head.outputs)} outputs announced, {len(raws)} raw contents received")
    arrays: dict[str, Tensor] = {}
    for output, raw in zip(head.outputs, raws, strict=True):
        try:
            arrays[output.name] = _array_of(output.datatype, raw).reshape(tuple(output.shape))
        except (ValueError, KeyError, struct.error) as error:
            raise InferenceError(
                "INTERNAL",
                f"output {output.name!r}: {len(raw)} bytes are no {output.datatype} {list(output.shape)}: {error}",
            ) from None
    return Answer(head.model_name, head.model_version, head.id, arrays)


def _raw_of(name: str, array: Tensor) -> tuple[str, bytes | memoryview, int]:
    """Datatype, the bytes to send, and how many they are."""
    kind = array.dtype.kind
    if kind in "OSU":
        raw = _encode_strings(name, array)
        return "BYTES", raw, len(raw)
    if array.dtype.name == "bfloat16":  # ml_dtypes' type; it lends no buffer
        return "BF16", np.asarray(array, order="C").view(np.uint16).data, array.nbytes
    datatype = _DATATYPES.get((kind, array.dtype.itemsize))
    if datatype is None:
        raise InferenceError("INVALID_ARGUMENT", f"input {name!r}: Triton has no datatype for numpy's {array.dtype}")
    return datatype, np.asarray(array, dtype=_DTYPES[datatype], order="C").data, array.nbytes


def _encode_strings(name: str, array: Tensor) -> bytes:
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        if isinstance(item, str):
            text = item.encode()
        elif isinstance(item, bytes):
            text = item
        else:
            raise InferenceError("INVALID_ARGUMENT", f"input {name!r}: {type(item).__name__} is neither bytes nor str")
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _array_of(datatype: str, raw: memoryview) -> Tensor:
    if datatype == "BYTES":
        return _decode_strings(raw)
    # One copy: inside the message a tensor may lie at an odd address, which numpy bears but is slow with.
    own = bytearray(raw)
    if datatype == "BF16":
        return (np.frombuffer(own, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(own, _DTYPES[datatype])


def _decode_strings(raw: memoryview) -> Tensor:
    items: list[bytes] = []
    at, end = 0, len(raw)
    while at < end:
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + size > end:
            raise ValueError(f"a string of {size} bytes passes the end")
        items.append(bytes(raw[at : at + size]))
        at += size
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _split(data: bytes) -> tuple[service_pb2.ModelInferResponse, list[memoryview]]:
    """The response without its tensors, and the tensors where they lie in `data`."""
    view, at = memoryview(data), 0
    heads: list[memoryview] = []
    raws: list[memoryview] = []
    while at < len(data):
        start = at
        tag, at = _read_varint(data, at)
        if tag & 7 != 2:  # no field of today's protocol; protobuf knows how to skip it
            whole = service_pb2.ModelInferResponse.FromString(data)
            return whole, [memoryview(raw) for raw in whole.raw_output_contents]
        size, at = _read_varint(data, at)
        if tag == _RAW_OUTPUT:
            raws.append(view[at : at + size])
        else:
            heads.append(view[start : at + size])
        at += size
    return service_pb2.ModelInferResponse.FromString(b"".join(heads)), raws
