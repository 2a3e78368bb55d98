# How calls travel: the face that all ways have, and which of them serves what is asked for.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from clients.inference import Tls
from clients.load.calls import Call
from clients.load.errors import LoadInputError
from clients.load.http2 import Http2
from clients.load.sender import Sender
from clients.load.shared_memory import Slots

Kind = Literal["http2", "grpcio", "stream"]
Compression = Literal["none", "gzip", "deflate"]


class Transport(Protocol):
    """Every call that is issued is answered once, with a status: by `turn`, by `expire`, or at last by `close`."""

    @property
    def reconnects(self) -> int:
        """Connections that were made again; grpcio makes its own again without a word, and leaves this at 0."""

    @property
    def in_flight(self) -> int: ...

    @property
    def retry_at(self) -> int:
        """By the clock: before then new calls would fail at once, for want of a connection. 0 when none is missing."""

    def connect(self) -> None: ...

    def issue(self, call: Call) -> None: ...

    def turn(self, seconds: float) -> list[Call]:
        """Wait at most so long for answers, and return the calls that ended."""

    def expire(self, before: int) -> list[Call]:
        """Give up the calls that were sent before that time."""

    def close(self) -> list[Call]:
        """Hang up; the calls that have no answer."""


@dataclass(frozen=True, slots=True)
class Via:
    """Without a `kind`, the cheapest that can do the rest: `http2`, which is ours and speaks plain text only, else `grpcio`.
    `stream` is one ModelStreamInfer call for each connection, the only way to decoupled models."""

    kind: Kind | None = None
    tls: Tls | None = field(default=None, repr=False)
    compression: Compression = "none"

    def __post_init__(self) -> None:
        if self.kind == "http2" and not self._plain:
            raise LoadInputError(
                "our own HTTP/2 sends in plain text, and TLS or compression was asked for", "--transport grpcio"
            )

    @property
    def _plain(self) -> bool:
        return self.tls is None and self.compression == "none"

    @property
    def chosen(self) -> Kind:
        return self.kind or ("http2" if self._plain else "grpcio")

    def __str__(self) -> str:
        secured = " over TLS" if self.tls is not None else ""
        return self.chosen + secured + (f" with {self.compression}" if self.compression != "none" else "")


def open_transport(
    address: tuple[str, int],
    path: str,
    metadata: tuple[tuple[str, str], ...],
    via: Via,
    *,
    connections: int,
    keep: bool,
    clock: Callable[[], int],
    shared: Slots | None = None,
) -> Transport:
    """`path` is that of one call; a stream has its own. `keep`: the answers are wanted, in `Call.body`."""
    if shared is not None and shared.tails:
        from clients.load.slot_sender import SlotSender

        inner = open_transport(address, path, metadata, via, connections=connections, keep=keep, clock=clock)
        return SlotSender(inner, shared, keep=keep)
    host, port = address
    target = joined(host, port)
    if via.chosen == "http2":
        return Sender(address, connections, lambda: Http2(target, path, metadata, keep=keep), clock=clock)
    if via.chosen == "stream":
        from clients.load.stream_sender import StreamSender

        return StreamSender(target, metadata, via, connections=connections, keep=keep, clock=clock)
    from clients.load.grpc_sender import GrpcSender

    return GrpcSender(target, path, metadata, via, connections=connections, keep=keep, clock=clock)


def joined(host: str, port: int) -> str:
    """An address as gRPC and HTTP write it: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
