# A server on a real socket that speaks HTTP/2 as badly as a test wants, and counts the good answers that it gave.
from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from clients.load.frames import frame
from clients.load.http2 import PREFACE
from tests.unit.load.peers import DATA, END_STREAM, SETTINGS, Peer


class Talk:
    """One connection. `good` counts the answers that were sent whole to requests that had come whole."""

    def __init__(self, connection: socket.socket, number: int, *, plain: bool = True) -> None:
        self.number = number
        self.peer = Peer(plain=plain)
        self.good = 0
        self.asked = 0
        self._socket = connection
        self._rest = b""
        self._greeted = False

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, stream: int, data: bytes | None = None) -> None:
        self.send(self.peer.answer(stream) if data is None else data)
        self.good += 1

    def streams(self) -> Iterator[int]:
        """Of requests, as they come whole, until the client hangs up."""
        while data := self._socket.recv(1 << 16):
            self._rest += data
            if not self._greeted and len(self._rest) >= len(PREFACE):
                assert self._rest.startswith(PREFACE)
                self._rest, self._greeted = self._rest[len(PREFACE) :], True
            while self._greeted and len(self._rest) >= 9 + int.from_bytes(self._rest[:3], "big"):
                end = 9 + int.from_bytes(self._rest[:3], "big")
                kind, flags, stream = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9], "big")
                self._rest = self._rest[end:]
                if kind == DATA and flags & END_STREAM:
                    self.asked += 1
                    yield stream

    def linger(self) -> None:
        """Until the client hangs up, so that it reads all that was sent."""
        for _ in self.streams():
            pass


Script = Callable[[Talk], None]


class Hostile:
    """Runs the script on each connection, in a thread of its own."""

    def __init__(self, script: Script, *, greeting: bytes = frame(SETTINGS, 0, 0), plain: bool = True) -> None:
        self._script = script
        self._greeting = greeting
        self._plain = plain
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.talks: list[Talk] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def good(self) -> int:
        return sum(talk.good for talk in self.talks)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            talk = Talk(connection, len(self.talks), plain=self._plain)
            self.talks.append(talk)
            self._sockets.append(connection)
            thread = threading.Thread(target=self._run, args=(connection, talk), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, talk: Talk) -> None:
        with connection, suppress(OSError, StopIteration):  # the client hung up, as it may
            connection.sendall(self._greeting)
            self._script(talk)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def hostile(script: Script, *, greeting: bytes = frame(SETTINGS, 0, 0), plain: bool = True) -> Iterator[Hostile]:
    server = Hostile(script, greeting=greeting, plain=plain)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(30)
