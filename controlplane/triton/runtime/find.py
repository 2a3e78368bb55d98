# Which tritonserver to run: a given binary, or the one of the runtime environment.
from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.interpreter import GIVE_AN_ADDRESS
from controlplane.triton.runtime.paths import REQUIREMENTS

MARKER = "installed.json"
TRITON_VERSION = "2.51.0"


@dataclass(frozen=True, slots=True)
class RuntimeEnvironment:
    """A virtual environment with the server's wheel. `python` is "3.11" or "3.12"."""

    directory: Path
    python: str
    numpy: str
    onnxruntime: str

    @property
    def site_packages(self) -> Path:
        return self.directory / "lib" / f"python{self.python}" / "site-packages"

    @property
    def triton(self) -> Path:
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def binary(self) -> Path:
        return self.triton / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        return self.triton / "python_backend_stubs" / self.python / "triton_python_backend_stub"

    def check(self) -> None:
        """Raises RuntimeUnavailable when a part is missing, or numpy 2 is in it: the server's Python backend would
        report READY and return empty tensors."""
        for part in (self.binary, self.stub):
            if not os.access(part, os.X_OK):
                raise _broken(self.directory, f"{part} is missing")
        present = [d.version for d in distributions(name="numpy", path=[str(self.site_packages)])]
        if len(present) != 1 or int(present[0].split(".")[0]) >= 2:
            raise _broken(self.directory, f"it needs numpy below 2 and has {', '.join(present) or 'none'}")


@dataclass(frozen=True, slots=True)
class TritonRuntime:
    """A server binary. `environment` is None for a given binary, which then brings its own backends."""

    binary: Path
    environment: RuntimeEnvironment | None


def environment_directory(directory: Path) -> Path:
    """Named by the lock file's digest, so that an upgrade never pulls files from under a running server."""
    return directory.absolute() / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]


def installed(directory: Path) -> RuntimeEnvironment | None:
    """The whole and usable environment below `directory`, or None when there is none or only a partial one."""
    target = environment_directory(directory)
    try:
        fields = json.loads((target / MARKER).read_text())
        found = RuntimeEnvironment(target, fields["python"], numpy=fields["numpy"], onnxruntime=fields["onnxruntime"])
        found.check()
    except (OSError, ValueError, KeyError, RuntimeUnavailable):
        return None
    return found


def find(directory: Path, tritonserver: Path | None = None) -> TritonRuntime:
    """`tritonserver` when it is given, else the environment below `directory`. Raises RuntimeUnavailable."""
    if tritonserver is not None:
        if not (tritonserver.is_file() and os.access(tritonserver, os.X_OK)):
            raise RuntimeUnavailable(
                f"{tritonserver} is not a program that can be run",
                hint=f"give the path of a tritonserver binary, {GIVE_AN_ADDRESS}",
            )
        return TritonRuntime(tritonserver.absolute(), None)
    environment = installed(directory)
    if environment is None:
        raise RuntimeUnavailable(
            f"there is no embedded Triton in {directory}", hint=f"run 'tritonctl runtime install', {GIVE_AN_ADDRESS}"
        )
    return TritonRuntime(environment.binary, environment)


def info(directory: Path, tritonserver: Path | None = None) -> dict[str, str]:
    """What `tritonctl runtime info` shows. Raises RuntimeUnavailable as `find` does."""
    runtime = find(directory, tritonserver)
    if runtime.environment is None:
        return {"source": "given binary", "tritonserver": str(runtime.binary)}
    return {
        "source": "runtime environment",
        "tritonserver": str(runtime.binary),
        "triton": TRITON_VERSION,
        "environment": str(runtime.environment.directory),
        "python": runtime.environment.python,
        "numpy": runtime.environment.numpy,
        "onnxruntime": runtime.environment.onnxruntime,
    }


def _broken(directory: Path, why: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        f"the runtime environment {directory} cannot be used: {why}",
        hint=f"remove it and run 'tritonctl runtime install', {GIVE_AN_ADDRESS}",
    )
