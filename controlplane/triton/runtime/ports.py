# Free loopback ports for a server.
from __future__ import annotations

import random
import socket
from pathlib import Path

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.state import HOST, Ports

_LOWEST = 20000
_TRIES = 200
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def choose_ports() -> Ports:
    """Three free ports, below those the kernel gives to outgoing connections: a restarted server finds its own still
    free. Another process can take one before the server does; the launcher then chooses again."""
    ceiling = int(_RANGE.read_text().split()[0])
    pool = range(_LOWEST, ceiling) if ceiling > _LOWEST + 1000 else range(_LOWEST, 65536)
    found: list[int] = []
    for port in random.sample(pool, _TRIES):
        if is_free(port):
            found.append(port)
        if len(found) == 3:
            return Ports(*found)
    raise RuntimeUnavailable(
        f"no free ports between {pool.start} and {pool.stop}", hint="give the server's ports, or stop what holds them"
    )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
