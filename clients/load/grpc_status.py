# How a call ended, by gRPC's codes: from trailers, from an HTTP status, from a reset stream.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED = 0, 1, 2, 4
PERMISSION_DENIED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 7, 8, 13, 14, 16

NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Status:
    """`code` is gRPC's number; `message` is empty where the server gave none."""

    code: int
    message: str = ""

    @property
    def name(self) -> str:
        return NAMES[self.code]


SUCCESS = Status(OK)

REFUSED = 7
OF_RESET = {
    0: Status(INTERNAL, "the stream was reset without an error"),
    REFUSED: Status(UNAVAILABLE, "the server refused the stream"),
    8: Status(CANCELLED, "the server cancelled the stream"),
    11: Status(RESOURCE_EXHAUSTED, "the server asked for calm"),
    12: Status(PERMISSION_DENIED, "the server asked for more security"),
} | {code: Status(INTERNAL, f"the stream was reset with code {code}") for code in (1, 2, 3, 4, 5, 6, 9, 10)}
"""By HTTP/2's error code, as "gRPC over HTTP2" maps them."""

_OF_HTTP = {
    "400": INTERNAL, "401": UNAUTHENTICATED, "403": PERMISSION_DENIED, "404": 12,
    "429": UNAVAILABLE, "502": UNAVAILABLE, "503": UNAVAILABLE, "504": UNAVAILABLE,
}  # fmt: skip


def of_headers(headers: Iterable[tuple[str, str]]) -> Status | None:
    """What a header block says of the end of a call: None when it says nothing, as the first block of a good answer."""
    fields = dict(headers)
    if "grpc-status" in fields:
        text = fields["grpc-status"]
        if not text.isascii() or not text.isdigit() or int(text[:9]) >= len(NAMES):
            return Status(UNKNOWN, f"the server sent grpc-status {text[:40]!r}")
        message = unquote(fields.get("grpc-message", ""), errors="replace")
        return Status(int(text), message) if int(text) or message else SUCCESS
    http = fields.get(":status", "200")
    if http != "200":
        return Status(_OF_HTTP.get(http, UNKNOWN), f"the server answered with HTTP status {http}")
    if ":status" in fields and not fields.get("content-type", "").startswith("application/grpc"):
        return Status(UNKNOWN, f"the server answered with content type {fields.get('content-type', '')!r}")
    return None
