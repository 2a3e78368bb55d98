# What a run asks: which models of which server, by which way, with requests that were serialized before anything is measured.
from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from clients.inference import InferenceClient, InferenceError, Tls
from clients.load.errors import LoadInputError, ModelNotReady, ServerUnreachable
from clients.load.measure import Target
from clients.load.options import Options
from clients.load.requests import Asked, Wanted, traffic
from clients.load.server import ModelFacts, facts, ready_models, server_name
from clients.load.traffic import Traffic
from clients.load.transports import Via, joined

PORT = 8001
_SECONDS = 10.0
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?")
_HEADER = re.compile(r"(?P<key>[a-z0-9_.-]+)=(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Served:
    """`versions` are those that are ready; without a `version` the highest of them answers."""

    name: str
    version: int | None
    versions: tuple[int, ...]

    @property
    def answering(self) -> int | None:
        """None where the server does not say."""
        return self.version or max(self.versions, default=None)


@dataclass(frozen=True, slots=True)
class Subject:
    """`server` is its name and release. `models` and the parts of the traffic are in the same order."""

    target: Target
    server: str
    models: tuple[Served, ...]
    batch: int
    traffic: Traffic = field(repr=False)

    @property
    def address(self) -> str:
        return joined(self.target.host, self.target.port)

    def client(self) -> InferenceClient:
        return InferenceClient(self.address, tls=self.target.via.tls, metadata=self.target.metadata)


def prepare(options: Options) -> Subject:
    """Raises LoadInputError."""
    host, port = address(options.url)
    headers = tuple(header(text) for text in options.headers)
    tls = _tls(options)
    asked = [Asked.parse(text) for text in options.models]
    wanted = Wanted.read(options, [one.name for one in asked])
    via = Via(options.transport, tls, options.compression)
    with InferenceClient(joined(host, port), tls=tls, metadata=headers) as client:
        server = _greeted(client, tls is not None)
        found = [(one, _found(client, one)) for one in asked]
        made = traffic(client, found, options, wanted)
    models = tuple(Served(one.name, one.version, facts.versions) for one, facts in found)
    return Subject(Target(host, port, metadata=headers, via=_streamed(via, found)), server, models, options.batch, made)


def address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"] or PORT) > 65535:
        raise LoadInputError(
            f"{text!r} is no address", "HOST:PORT of the server's gRPC endpoint, such as 127.0.0.1:8001"
        )
    return match["host"].strip("[]"), int(match["port"] or PORT)


def header(text: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise LoadInputError(f"{text!r} is no header", "KEY=VALUE, the key in small letters")
    return match["key"], match["value"]


def _tls(options: Options) -> Tls | None:
    files = (options.tls_root, options.tls_certificate, options.tls_key)
    if not options.tls and not any(files):
        return None
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise LoadInputError("a certificate and its key go together", "--tls-certificate FILE --tls-key FILE")
    return Tls(*(None if file is None else _read(file) for file in files))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise LoadInputError(f"{file} cannot be read: {error.strerror}", "a file in PEM format") from None


def _streamed(via: Via, found: list[tuple[Asked, ModelFacts]]) -> Via:
    """A decoupled model answers on a stream only."""
    decoupled = [asked.name for asked, facts in found if facts.decoupled]
    if decoupled and via.kind not in (None, "stream"):
        raise LoadInputError(f"{decoupled[0]} is decoupled: it answers on a stream only", "--transport stream")
    return replace(via, kind="stream") if decoupled else via


def _greeted(client: InferenceClient, secured: bool) -> str:
    try:
        return server_name(client, deadline_seconds=_SECONDS)
    except InferenceError as error:
        raise ServerUnreachable(
            f"no Triton answers at {client.address}: {error}",
            "give the address of its gRPC endpoint, whose port is 8001 by default: --url HOST:PORT"
            + (", without --tls where it speaks plain text" if secured else ""),
        ) from None


def _found(client: InferenceClient, asked: Asked) -> ModelFacts:
    try:
        if client.ready(asked.name, version=asked.version, deadline_seconds=_SECONDS):
            return facts(client, asked.name, version=asked.version, deadline_seconds=_SECONDS)
        why = "it is not ready"
    except InferenceError as error:
        why = error.message
    wanted = asked.name if asked.version is None else f"{asked.name} version {asked.version}"
    try:
        ready = ready_models(client, deadline_seconds=_SECONDS)
        hint = f"ready are {', '.join(ready)}" if ready else "no model is ready there"
    except InferenceError as error:
        hint = f"which models are ready it tells only those who may ask ({error.message}): --header KEY=VALUE"
    raise ModelNotReady(f"{client.address} does not serve {wanted}: {why}", hint)
