# Posting letters to the receivers of webhooks, over HTTP.
from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urlsplit

import httpx

import controlplane
from controlplane.domain.webhooks import Outcome

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpPoster:
    """`seconds` is the deadline of a whole POST: a receiver that answers byte by byte is left as well. Nothing of an
    answer is read but its status."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Takes a tenth of a second to make, so it is made for the first letter and kept."""
        return httpx.create_ssl_context()

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        return asyncio.run(self._post(url, headers, body))

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        agent = {"User-Agent": f"triton-controlplane/{controlplane.__version__}"}
        # A proxy of the environment is never on the way to this very machine.
        proxied = urlsplit(url).hostname not in _LOOPBACK
        try:
            async with (
                asyncio.timeout(self._seconds),
                httpx.AsyncClient(verify=self._tls, timeout=self._seconds, trust_env=proxied) as client,
                client.stream("POST", url, headers={**agent, **headers}, content=body) as answer,
            ):
                return Outcome(answer.status_code)
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(None, f"no answer within {self._seconds:g} seconds")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome(None, f"{type(error).__name__}: {error}")
