# Retries, time limits and errors of the connection, against a real HTTP server that misbehaves on demand.
from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clients.control.decode import decode
from clients.control.errors import ApiError
from clients.control.transport import Connection
from clients.control.types import Principal, Tensor

Answer = Callable[[BaseHTTPRequestHandler], None]


class Scripted(ThreadingHTTPServer):
    """Answers each request with the next of its script; `seen` are method, path and idempotency key."""

    script: list[Answer]
    seen: list[tuple[str, str, str | None]]


class Handler(BaseHTTPRequestHandler):
    def handle_any(self) -> None:
        assert isinstance(self.server, Scripted)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers.get("Idempotency-Key")))
        self.server.script.pop(0)(self)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  # names of http.server

    def log_message(self, *_: object) -> None:
        pass


def say(status: int, body: object, kind: str = "application/json", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = json.dumps(body).encode() if kind.endswith("json") else str(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted(("127.0.0.1", 0), Handler)
    made.script, made.seen = [], []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def connection(server: Scripted) -> Iterator[Connection]:
    made = Connection(f"http://127.0.0.1:{server.server_address[1]}", "token", timeout_seconds=30)
    yield made
    made.close()


def test_a_lost_answer_is_asked_for_again_with_the_same_key(server: Scripted, connection: Connection) -> None:
    server.script = [hang_up, hang_up, say(201, {"id": 1})]
    assert connection.post("/v1/changes", {"reason": "x"}) == {"id": 1}
    assert [(method, path) for method, path, _ in server.seen] == [("POST", "/v1/changes")] * 3
    keys = {key for _, _, key in server.seen}
    assert len(keys) == 1
    assert None not in keys


def test_a_request_that_is_not_idempotent_is_sent_once(server: Scripted, connection: Connection) -> None:
    server.script = [hang_up]
    with pytest.raises(ApiError) as caught:
        connection.request("POST", "/v1/x", json={})
    assert (caught.value.code, caught.value.exit_code, len(server.seen)) == ("api.unreachable", 9, 1)


def test_the_third_failure_is_reported(server: Scripted, connection: Connection) -> None:
    server.script = [hang_up] * 3
    with pytest.raises(ApiError) as caught:
        connection.get("/v1/models")
    assert (caught.value.code, len(server.seen)) == ("api.unreachable", 3)


def test_an_answer_that_takes_too_long_is_not_asked_for_again(server: Scripted) -> None:
    released = threading.Event()

    def wait(_: BaseHTTPRequestHandler) -> None:
        released.wait(90)

    server.script = [wait]
    impatient = Connection(f"http://127.0.0.1:{server.server_address[1]}", "token", timeout_seconds=1)
    with pytest.raises(ApiError) as caught:
        impatient.post("/v1/changes", {})
    released.set()
    impatient.close()
    assert (caught.value.code, caught.value.exit_code, len(server.seen)) == ("operation.timed_out", 10, 1)


def test_a_problem_document_becomes_an_error_with_its_code(server: Scripted, connection: Connection) -> None:
    document = {"detail": "no", "code": "change.blocked", "exit_code": 6, "hint": "wait", "details": {"blockers": []}}
    server.script = [say(409, document, "application/problem+json")]
    with pytest.raises(ApiError) as caught:
        connection.get("/v1/changes/1")
    error = caught.value
    assert (error.message, error.code, error.status, error.exit_code, error.hint, error.details) == (
        "no",
        "change.blocked",
        409,
        6,
        "wait",
        {"blockers": []},
    )


def test_an_answer_of_something_else_than_our_api_is_said_so(server: Scripted, connection: Connection) -> None:
    server.script = [say(502, "<html>bad gateway</html>", "text/html")]
    with pytest.raises(ApiError) as caught:
        connection.get("/v1/models")
    assert (caught.value.code, caught.value.status, caught.value.exit_code) == ("api.unreachable", 502, 9)


def test_events_are_read_as_they_stand_and_signs_of_life_pass(server: Scripted, connection: Connection) -> None:
    text = ': hello\n\nevent: change\ndata: {"a":\ndata: 1}\n\ndata: plain\n\n'
    server.script = [say(200, text, "text/event-stream")]
    with connection.events("/v1/changes/1/events") as events:
        assert list(events) == [("", ""), ("change", '{"a":\n1}'), ("message", "plain")]


def test_checkpoints_are_handed_over_even_with_an_error(server: Scripted) -> None:
    seen: list[str] = []
    made = Connection(f"http://127.0.0.1:{server.server_address[1]}/", "t", on_checkpoint=seen.append)
    server.script = [say(200, {}, Tritonctl_Checkpoint="one"), say(404, {}, Tritonctl_Checkpoint="two")]
    made.get("/v1/models")
    with pytest.raises(ApiError):
        made.get("/v1/models")
    made.close()
    assert seen == ["one", "two"]


def test_trees_become_dataclasses_and_fields_of_a_newer_api_are_ignored() -> None:
    tree = {"name": "a", "kind": "person", "roles": ["admin"], "created_at": "t", "disabled_at": None, "new": 1}
    assert decode(Principal, tree) == Principal("a", "person", ("admin",), "t", None)
    assert decode(Tensor, {"name": "x", "datatype": "T", "dims": ["N", 4, None]}) == Tensor("x", "T", ("N", 4, None))
    with pytest.raises(KeyError):
        decode(Principal, {"name": "a"})
    with pytest.raises(TypeError):
        decode(Principal, {**tree, "name": 3})
