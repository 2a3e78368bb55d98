# A gRPC server that answers anything, and counts.
from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from clients.load.jobs import Target


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Answers anything, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def service(self, handler_call_details: object) -> object:
        def answer(_request: bytes, _context: object) -> bytes:
            with self._lock:
                self.count += 1
            return b"yes"

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def echoing() -> Iterator[tuple[Echo, Target]]:
    handler = Echo()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, Target("127.0.0.1", port)
    server.stop(0)
