# Receivers of webhooks: real HTTP servers on loopback ports that answer as a test says.
from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from controlplane.domain.webhooks import signature


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> str:
        return self.headers["tritonctl-event"]

    @property
    def delivery(self) -> str:
        return self.headers["tritonctl-delivery"]

    def signed_with(self, secret: str) -> bool:
        parts = dict(part.split("=") for part in self.headers["tritonctl-signature"].split(","))
        return parts["v1"] == signature(secret, int(parts["t"]), self.body)


@dataclass
class Receiver:
    """`answers` are the statuses of its first answers, then it is 204; `hold` keeps it from answering while it is set
    to an event that is not; `drip` makes it write its answer a byte at a time, with that pause in seconds."""

    url: str
    answers: list[int] = field(default_factory=list)
    letters: list[Received] = field(default_factory=list)
    hold: threading.Event | None = None
    drip: float | None = None
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int, seconds: float = 90) -> list[Received]:
        """The letters, when there are `count` of them."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.letters) >= count, seconds), self.letters
            return list(self.letters)


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.receiver.arrived:
            self.receiver.letters.append(found)
            status = self.receiver.answers.pop(0) if self.receiver.answers else 204
            self.receiver.arrived.notify_all()
        if self.receiver.hold is not None:
            self.receiver.hold.wait(120)
        try:
            self._answer(status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the sender had enough

    def _answer(self, status: int) -> None:
        if self.receiver.drip is not None:
            for letter in b"HTTP/1.1 204 No Content\r\nX-Slow: " + b"x" * 200:
                self.wfile.write(bytes([letter]))
                time.sleep(self.receiver.drip)
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.receiver.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that does not trust our certificate hangs up: that is what some tests are about."""


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Of a server on 127.0.0.1, signed by itself; and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both, public = directory / "server.pem", directory / "authority.pem"
    both.write_bytes(private + made.public_bytes(Encoding.PEM))
    public.write_bytes(made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, public


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        found = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}")
        handler.receiver = found  # type: ignore[attr-defined]  # of the class made above
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        if found.hold is not None:
            found.hold.set()
        server.shutdown()
        thread.join()
