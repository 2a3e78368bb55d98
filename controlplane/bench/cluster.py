# A Dask cluster seen from the control plane: its address, the connection, and the workers that have a bench.
from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from controlplane.errors import InvalidInput, RuntimeUnavailable, ServerUnreachable

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10.0
_SCHEMES = {"dask": "tcp", "dask+tls": "tls"}


def scheduler_address(address: str) -> str:
    """As Dask writes it: `tcp://HOST:PORT` of `dask://HOST:PORT`."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in _SCHEMES or not host or not port.isdigit():
        raise InvalidInput(
            f"{address[:200]!r} is no address of a Dask scheduler",
            hint="write dask://HOST:PORT, or dask+tls://HOST:PORT",
        )
    return f"{_SCHEMES[scheme]}://{rest}"


def bench_workers(client: Client) -> list[str]:
    """The addresses of those that offer a slot. Raises OSError, ValueError or RuntimeError when the scheduler is away."""
    from controlplane.bench.slot import RESOURCE

    # not client.scheduler_info(), whose answer a timer may replace by one without workers
    scheduler = client.scheduler
    if scheduler is None:
        raise OSError("the client is closed")
    workers: Mapping[str, Mapping[str, Mapping[str, float]]] = client.sync(scheduler.identity, n_workers=-1)["workers"]
    return sorted(name for name, about in workers.items() if about.get("resources", {}).get(RESOURCE, 0) >= 1)


def check_installed() -> None:
    """Raises RuntimeUnavailable."""
    if importlib.util.find_spec("distributed") is None:
        raise RuntimeUnavailable(
            "the Dask executor needs the package distributed, which is not installed here",
            hint="pip install 'triton-controlplane[dask]'",
        )


def connect(address: str) -> Client:
    """Raises RuntimeUnavailable where Dask is not installed, ServerUnreachable where no scheduler answers."""
    check_installed()
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="tritonctl")
    except OSError as error:
        raise ServerUnreachable(
            f"no Dask scheduler answers at {address}: {error}", hint="start one: dask scheduler --port 8786"
        ) from None
