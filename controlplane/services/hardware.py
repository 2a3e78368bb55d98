# Which hardware a config is generated for and checked against, and how that is said.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.environments import ServerSpec
from controlplane.domain.servers import HostFacts


@dataclass(frozen=True, slots=True)
class Hardware:
    """`host` is None where nobody knows it. `embedded`: our own server runs there, not NVIDIA's. `words` name what is
    assumed; `generating` is the same where something has to be assumed, because a config cannot be made without."""

    host: HostFacts | None
    embedded: bool
    words: str
    generating: str


def of_host(host: HostFacts) -> Hardware:
    """The control plane's own, for whoever names no environment."""
    words = f"this host, {_words(host)}"
    return Hardware(host, False, words, words)


def of_server(servers: Sequence[ServerSpec], host: HostFacts) -> Hardware:
    """A server that we launched runs on this host; of any other the hardware is not recorded. There is at least one."""
    server = servers[0]
    if server.home is not None:
        words = f"server {server.name}: this host, {_words(host)}"
        return Hardware(host, True, words, words)
    unknown = f"server {server.name}: not known, {server.address} is not ours"
    return Hardware(None, False, unknown, f"{unknown}; taken to be like this host, {_words(host)}")


def _words(host: HostFacts) -> str:
    cores = "1 core" if host.cpu_cores == 1 else f"{host.cpu_cores} cores"
    gpus = {0: "no GPU", 1: "1 GPU"}.get(host.gpus, f"{host.gpus} GPUs")
    return f"{cores}, {gpus}"
