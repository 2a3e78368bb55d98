# The backend processes of a model's instances on a server of ours.
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from controlplane.triton.runtime.processes import stubs
from tests.live.servers import LiveTriton


def backends(triton: LiveTriton, model: str) -> list[int]:
    """Their process ids."""
    found = []
    for pid in stubs(triton.process.state.shm_prefix):
        with suppress(psutil.NoSuchProcess):
            command = psutil.Process(pid).cmdline()
            if Path(command[0]).name == "triton_python_backend_stub" and f"/{model}/" in " ".join(command):
                found.append(pid)
    return sorted(found)
