# Posting letters to the receivers of webhooks, over HTTP.
from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

import controlplane
from controlplane.domain.webhooks import Outcome, off_limits

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpPoster:
    """`seconds` is the deadline of a whole POST: a receiver that answers byte by byte is left as well. Nothing of an
    answer is read but its status, and no redirection is followed.

    Unless `link_local`, a name that leads to a link-local address or to a cloud's metadata service is refused, and what
    was looked up once is what is connected to: a name that changes meanwhile leads nowhere else. Through a proxy it is
    the proxy that looks names up, and its rules that count."""

    def __init__(self, seconds: float = 5.0, *, link_local: bool = False) -> None:
        self._seconds = seconds
        self._link_local = link_local

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Takes a tenth of a second to make, so it is made for the first letter and kept."""
        return httpx.create_ssl_context()

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        return asyncio.run(self._within_time(url, headers, body))

    async def _within_time(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        agent = {"User-Agent": f"triton-controlplane/{controlplane.__version__}"}
        try:
            async with asyncio.timeout(self._seconds):
                return await self._post(url, {**agent, **headers}, body)
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(None, f"no answer within {self._seconds:g} seconds")
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome(None, f"{type(error).__name__}: {error}")

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        parts = urlsplit(url)
        proxied = _proxied(parts)
        if self._link_local or proxied:
            return await self._send(url, headers, body, by_proxy=proxied)
        addresses = await _addresses(parts)
        for address in addresses:
            if off_limits(address):
                return Outcome(
                    None,
                    f"{address} is link-local or a cloud's metadata service: letters go there only where "
                    "TRITONCTL_WEBHOOKS__LINK_LOCAL is true",
                )
        for address in addresses[:-1]:
            try:
                return await self._send(url, headers, body, at=address, among=len(addresses))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # a host may have several, and not answer at each
        return await self._send(url, headers, body, at=addresses[-1])

    async def _send(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        at: str | None = None,
        among: int = 1,
        by_proxy: bool = False,
    ) -> Outcome:
        """To the address `at`, one of so many, in the name of the URL's host."""
        named, extensions, to = dict(headers), {}, httpx.URL(url)
        if at is not None:
            named["Host"] = urlsplit(url).netloc
            extensions["sni_hostname"] = to.host
            to = to.copy_with(host=at)
        limits = httpx.Timeout(self._seconds, connect=self._seconds / among)
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=limits, trust_env=by_proxy) as client,
            client.stream("POST", to, headers=named, content=body, extensions=extensions) as answer,
        ):
            return Outcome(answer.status_code)


def _proxied(parts: SplitResult) -> bool:
    """Whether the environment puts a proxy on the way; never to this very machine."""
    host, proxies = parts.hostname or "", getproxies()
    return host not in _LOOPBACK and bool({parts.scheme, "all"} & set(proxies)) and not proxy_bypass(host)


async def _addresses(parts: SplitResult) -> list[str]:
    """All that the host's name leads to, at least one. Raises OSError."""
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
