# One connection to the HTTP API: authentication, time limits, retries, errors.
from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from clients.control.decode import decode
from clients.control.errors import ApiError, unreachable
from clients.control.types import Page

T = TypeVar("T")
CHECKPOINT_HEADER = "Tritonctl-Checkpoint"
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.2
_MAKING_SECONDS = 600.0
"""What is downloaded is made before its first byte comes."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def segment(text: object) -> str:
    """A name or number as one segment of a URL's path."""
    return quote(str(text), safe="")


class Connection:
    """Not for sharing between threads. `on_checkpoint` gets the audit log's latest checkpoint (base64 of the signed
    note) of every answer that carries one, before the answer is returned, and may raise."""

    def __init__(
        self,
        api: str,
        token: str | None,
        *,
        timeout_seconds: float = 30.0,
        on_checkpoint: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.api = api.rstrip("/")
        self._on_checkpoint = on_checkpoint
        url = urlsplit(self.api)
        here = url.hostname in _LOOPBACK
        self._http = httpx.Client(
            base_url=self.api,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
            transport=transport,
            # A proxy of the environment is never on the way to this very machine.
            trust_env=not here,
            # Reading the certificates of all authorities takes longer than a command; plain HTTP has no use for them.
            verify=url.scheme == "https" or not here,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: object) -> Any:
        return self.request("GET", path, params=params).json()

    def page(self, kind: type[T], path: str, **params: object) -> Page[T]:
        tree = self.get(path, **params)
        return Page(tuple(decode(kind, item) for item in tree["items"]), tree["next"])

    def post(self, path: str, body: object = None, *, timeout_seconds: float | None = None) -> Any:
        """A POST with a fresh Idempotency-Key, so that a retry after a lost answer does the work once."""
        answer = self.request(
            "POST",
            path,
            json=_tree(body),
            headers={"Idempotency-Key": uuid.uuid4().hex},
            timeout_seconds=timeout_seconds,
        )
        return answer.json() if answer.content else None

    def put(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.request("PUT", path, json=_tree(body), headers=headers or {})
        return answer.json() if answer.content else None

    def patch(self, path: str, body: object) -> Any:
        return self.request("PATCH", path, json=_tree(body)).json()

    def delete(self, path: str) -> Any:
        answer = self.request("DELETE", path)
        return answer.json() if answer.content else None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        """The answer of a request that succeeded, or whose status is in `accept`. Raises ApiError for every other.

        It is sent again, at most twice, when no answer came and doing it twice is the same as doing it once.
        """
        headers = dict(headers or {})
        timeout = self._http.timeout if timeout_seconds is None else httpx.Timeout(timeout_seconds, connect=5.0)
        again = method in _IDEMPOTENT or "Idempotency-Key" in headers
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._http.request(
                    method, path, params=_texts(params), json=json, content=content, headers=headers, timeout=timeout
                )
            except httpx.TransportError as error:
                if again and attempt < _ATTEMPTS and not isinstance(error, httpx.TimeoutException):
                    time.sleep(_PAUSE_SECONDS * attempt)
                    continue
                raise self._lost(error) from None
            break
        self._judge(answer, accept)
        return answer

    def download(self, path: str, file: IO[bytes], **params: object) -> None:
        """The bytes of a GET, written as they come. Raises ApiError; what is in the file then is not whole."""
        try:
            timeout = httpx.Timeout(30.0, read=_MAKING_SECONDS)
            with self._http.stream("GET", path, params=_texts(params), timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                self._judge(answer, frozenset())
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except httpx.TransportError as error:
            raise self._lost(error) from None

    @contextmanager
    def events(self, path: str, **params: object) -> Iterator[Iterator[tuple[str, str]]]:
        """(event, data) of a stream of server-sent events, until the API ends it; both empty for its signs of life."""
        try:
            with self._http.stream(
                "GET", path, params=_texts(params), timeout=httpx.Timeout(30.0, read=60.0)
            ) as answer:
                if answer.is_error:
                    answer.read()
                self._judge(answer, frozenset())
                yield _events(answer)
        except httpx.TransportError as error:
            raise self._lost(error) from None

    def _judge(self, answer: httpx.Response, accept: frozenset[int]) -> None:
        checkpoint = answer.headers.get(CHECKPOINT_HEADER)
        if checkpoint and self._on_checkpoint:
            self._on_checkpoint(checkpoint)
        if not answer.is_success and answer.status_code not in accept:
            raise _problem(answer)

    def _lost(self, error: httpx.TransportError) -> ApiError:
        if isinstance(error, httpx.TimeoutException):
            return ApiError(
                f"{self.api} did not answer in time",
                code="operation.timed_out",
                exit_code=10,
                hint="it may still do it: look before you repeat it",
            )
        return unreachable(
            f"no connection to {self.api}: {error}", "start it with 'tritonctl up', or choose another context"
        )


def _tree(body: object) -> object:
    return asdict(body) if is_dataclass(body) and not isinstance(body, type) else body


def _texts(params: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (params or {}).items() if value is not None}


def _problem(answer: httpx.Response) -> ApiError:
    """What a problem+json document says; for anything else, what a proxy in between may have said. The answer to a HEAD
    names the type of a document that it does not carry."""
    if answer.content and answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        tree = answer.json()
        return ApiError(
            tree["detail"],
            code=tree["code"],
            status=answer.status_code,
            exit_code=tree.get("exit_code", 1),
            hint=tree.get("hint"),
            details=tree.get("details"),
        )
    return ApiError(
        f"{answer.request.method} {answer.request.url} was answered {answer.status_code} {answer.reason_phrase}",
        code="api.unreachable",
        status=answer.status_code,
        exit_code=9,
        hint="is this the address of a tritonctl API? a proxy may have answered",
    )


def _events(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    event, data = "message", list[str]()
    for line in answer.iter_lines():
        if not line:
            if data:
                yield event, "\n".join(data)
            event, data = "message", list[str]()
        elif line.startswith(":"):
            yield "", ""  # a sign of life: whoever waits may look at the clock
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
