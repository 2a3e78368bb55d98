# The grpcio transports against a real gRPC server of a few lines: every call ends once, whatever the server does.
from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2

from clients.load.calls import Call
from clients.load.frames import frame
from clients.load.grpc_status import NAMES
from clients.load.stream_sender import STREAM
from clients.load.transports import Compression, Kind, Transport, Via, joined, open_transport
from tests.unit.load.peers import PATH, SETTINGS, prefixed

Say = Callable[[service_pb2.ModelInferRequest], Iterator[service_pb2.ModelStreamInferResponse]]
MESSAGE = prefixed(service_pb2.ModelInferRequest(model_name="m").SerializeToString())


@contextmanager
def serving(method: str, handler: grpc.RpcMethodHandler, port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service, name = method[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    bound = server.add_insecure_port(joined(host, port))
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


def streaming(say: Say) -> grpc.RpcMethodHandler:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            for response in say(service_pb2.ModelInferRequest.FromString(request)):
                yield response.SerializeToString()

    return grpc.stream_stream_rpc_method_handler(answer)


def response(
    name: str, *, final: bool | None, error: str = "", output: bool = True
) -> service_pb2.ModelStreamInferResponse:
    said = service_pb2.ModelStreamInferResponse(error_message=error)
    said.infer_response.id = name
    if output:
        said.infer_response.outputs.add(name="Y", datatype="FP32", shape=[0])
    if final is not None:
        said.infer_response.parameters["triton_final_response"].bool_param = final
    return said


@contextmanager
def sending(
    port: int, via: Via, *, connections: int = 1, keep: bool = False, connect: bool = True, host: str = "127.0.0.1"
) -> Iterator[Transport]:
    address = (host, port)
    transport = open_transport(address, PATH, (), via, connections=connections, keep=keep, clock=time.monotonic_ns)
    if connect:
        transport.connect()
    try:
        yield transport
    finally:
        transport.close()


def ask(transport: Transport, count: int, seconds: float = 60) -> list[Call]:
    now = time.monotonic_ns()
    for tag in range(count):
        transport.issue(Call(tag, now, now, MESSAGE))
    ended: list[Call] = []
    end = time.monotonic() + seconds
    while len(ended) < count and time.monotonic() < end:
        ended += transport.turn(0.05)
    return sorted(ended, key=lambda call: call.tag)


def outcomes(calls: list[Call]) -> list[tuple[str, str, int]]:
    return [
        (NAMES[call.status.code], call.status.message, len(call.times or ()))
        for call in calls
        if call.status is not None
    ]


def test_every_request_of_a_stream_has_an_id_of_its_own_and_asks_for_the_end() -> None:
    seen: list[tuple[str, bool]] = []

    def say(request: service_pb2.ModelInferRequest) -> Iterator[service_pb2.ModelStreamInferResponse]:
        seen.append((request.id, request.parameters["triton_enable_empty_final_response"].bool_param))
        yield response(request.id, final=True)

    with serving(STREAM, streaming(say)) as port, sending(port, Via("stream")) as transport:
        assert outcomes(ask(transport, 3)) == [("OK", "", 1)] * 3
    assert seen == [("1", True), ("2", True), ("3", True)]


def test_errors_of_requests_end_them_and_no_others() -> None:
    def say(request: service_pb2.ModelInferRequest) -> Iterator[service_pb2.ModelStreamInferResponse]:
        name = request.id
        if name == "1":  # before the model: nothing says whether it is the last
            yield response(name, final=None, error="no such model", output=False)
        elif name == "2":  # the model's, with an end of its own
            yield response(name, final=False)
            yield response(name, final=False, error="no luck", output=False)
            yield response(name, final=True, output=False)
        elif name == "3":
            yield response(name, final=True, error="no luck either", output=False)
        else:
            yield response(name, final=False)
            yield response(name, final=True)

    with serving(STREAM, streaming(say)) as port, sending(port, Via("stream")) as transport:
        assert outcomes(ask(transport, 4)) == [
            ("UNKNOWN", "no such model", 0),
            ("UNKNOWN", "no luck", 1),
            ("UNKNOWN", "no luck either", 0),
            ("OK", "", 2),
        ]
        assert (transport.in_flight, transport.reconnects) == (0, 0)


def test_a_stream_that_the_server_ends_fails_what_is_in_it_and_is_opened_again() -> None:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = service_pb2.ModelInferRequest.FromString(next(requests))
        next(requests)
        yield response(first.id, final=True).SerializeToString()
        if int(first.id) < 3:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    handler = grpc.stream_stream_rpc_method_handler(answer)
    with serving(STREAM, handler) as port, sending(port, Via("stream")) as transport:
        assert outcomes(ask(transport, 2)) == [("OK", "", 1), ("RESOURCE_EXHAUSTED", "enough", 0)]
        assert outcomes(ask(transport, 2)) == [("OK", "", 1), ("UNAVAILABLE", "the server ended the stream", 0)]
        assert transport.reconnects == 1


def test_what_comes_for_a_request_that_was_given_up_is_not_looked_at() -> None:
    def say(request: service_pb2.ModelInferRequest) -> Iterator[service_pb2.ModelStreamInferResponse]:
        if request.id == "1":
            time.sleep(1.5)
        yield response(request.id, final=True)

    with serving(STREAM, streaming(say)) as port, sending(port, Via("stream")) as transport:
        transport.issue(Call(0, 1, 1, MESSAGE))
        assert transport.turn(0.1) == []
        (late,) = transport.expire(2)
        assert outcomes([late]) == [("DEADLINE_EXCEEDED", "no answer in time", 0)]
        assert outcomes(ask(transport, 1)) == [("OK", "", 1)]


@pytest.mark.parametrize("via", [Via("grpcio"), Via("stream")], ids=str)
def test_no_server_is_a_failure_of_each_call_and_a_pause_before_the_next(via: Via) -> None:
    with serving(PATH, grpc.unary_unary_rpc_method_handler(lambda request, context: request)) as port:
        pass
    with sending(port, via, connect=False) as transport:
        calls = ask(transport, 3)
        assert [name for name, _, _ in outcomes(calls)] == ["UNAVAILABLE"] * 3
        assert transport.retry_at > time.monotonic_ns() - 60 * 10**9
        assert transport.in_flight == 0


@pytest.mark.parametrize("kind", ["http2", "grpcio"])
def test_an_address_of_ipv6_is_reached(kind: Kind) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    with (
        serving(PATH, grpc.unary_unary_rpc_method_handler(answer), host="::1") as port,
        sending(port, Via(kind), host="::1") as transport,
    ):
        assert [name for name, _, _ in outcomes(ask(transport, 3))] == ["OK"] * 3


def test_calls_go_over_connections_of_their_own() -> None:
    peers: set[str] = set()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        peers.add(context.peer())
        return request

    with (
        serving(PATH, grpc.unary_unary_rpc_method_handler(answer)) as port,
        sending(port, Via("grpcio"), connections=3, keep=True) as transport,
    ):
        calls = ask(transport, 9)
    assert [name for name, _, _ in outcomes(calls)] == ["OK"] * 9
    assert {bytes(call.body or b"") for call in calls} == {MESSAGE}
    assert len(peers) == 3


@pytest.mark.parametrize(("compression", "small"), [("none", False), ("gzip", True), ("deflate", True)])
def test_requests_are_compressed_as_asked(compression: Compression, small: bool) -> None:
    """A peer that never answers takes what comes, up to the windows of 64 KiB that it grants."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = open_transport(
            listener.getsockname(), PATH, (), Via("grpcio", compression=compression), connections=1, keep=False,
            clock=time.monotonic_ns,
        )  # fmt: skip
        transport.issue(Call(0, 1, 1, prefixed(bytes(60_000))))
        peer, _ = listener.accept()
        with peer:
            peer.sendall(frame(SETTINGS, 0, 0))
            peer.settimeout(2)
            count = 0
            with contextlib.suppress(TimeoutError):
                while count < 60_000:
                    count += len(peer.recv(65536))
        transport.close()
    assert (count < 5_000) is small


def test_calls_that_have_no_answer_at_the_end_are_handed_back() -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(1.5)
        return request

    with serving(PATH, grpc.unary_unary_rpc_method_handler(answer)) as port, sending(port, Via("grpcio")) as transport:
        call = Call(0, 1, 1, MESSAGE)
        transport.issue(call)
        assert transport.turn(0.05) == []
        assert transport.close() == [call]
