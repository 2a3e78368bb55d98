# Which Python can carry the server's Python backend: a version it has a stub for, and a shared library to load.
from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controlplane.errors import RuntimeUnavailable

USABLE_VERSIONS = ("3.12", "3.11")
MINIMUM_GLIBC = (2, 35)
GIVE_AN_ADDRESS = "or give the address of a Triton server that runs elsewhere"

_PROBE = """
import ctypes, json, os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
name = "libpython%s.so.1.0" % version
found = None
for candidate in (os.path.join(sysconfig.get_config_var("LIBDIR") or "", name), name):
    try:
        ctypes.CDLL(candidate)
    except OSError:
        continue
    found = candidate
    break
try:
    import ensurepip, venv
    pip = True
except ImportError:
    pip = False
print(json.dumps({"version": version, "library": found, "venv": pip, "executable": sys.executable}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`library` is libpython's path, or its bare name where the loader finds it by itself."""

    executable: Path
    version: str
    library: str


def check_platform() -> None:
    """Raises RuntimeUnavailable where the server's binary cannot run at all."""
    libc, version = platform.libc_ver()
    machine = platform.machine()
    if sys.platform != "linux" or machine not in {"x86_64", "aarch64"} or libc != "glibc":
        raise RuntimeUnavailable(
            f"the embedded Triton runs on Linux with glibc on x86_64 or aarch64, not on {sys.platform} {machine} {libc}",
            hint=f"use such a machine, {GIVE_AN_ADDRESS}",
        )
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_GLIBC:
        wanted = ".".join(str(part) for part in MINIMUM_GLIBC)
        raise RuntimeUnavailable(
            f"the embedded Triton needs glibc {wanted} or newer; this machine has {version}",
            hint=f"use a newer distribution (Debian 12, Ubuntu 22.04), {GIVE_AN_ADDRESS}",
        )


def choose_interpreter() -> Interpreter:
    """The first usable of: the Python that runs us, then those on PATH. Raises RuntimeUnavailable with every refusal."""
    refusals: list[str] = []
    for executable in _candidates():
        found = _probe(executable)
        if isinstance(found, Interpreter):
            return found
        refusals.append(f"{executable}: {found}")
    raise RuntimeUnavailable(
        f"the embedded Triton needs Python {' or '.join(sorted(USABLE_VERSIONS))}; none of these will do: "
        + ("; ".join(refusals) or "there is none on PATH"),
        hint="install Python 3.11 or 3.12 with its venv module and shared library "
        f"(Debian: apt-get install python3 python3-venv libpython3-dev), {GIVE_AN_ADDRESS}",
    )


def _candidates() -> Iterator[Path]:
    seen: set[Path] = set()
    base = getattr(sys, "_base_executable", sys.executable)
    names = [base, *(f"python{version}" for version in USABLE_VERSIONS), "python3"]
    for name in names:
        path = shutil.which(name)
        if path is None or Path(path).resolve() in seen:
            continue
        seen.add(Path(path).resolve())
        yield Path(path)


def _probe(executable: Path) -> Interpreter | str:
    """The interpreter, or why it will not do. Version managers put stand-ins on PATH, so only running it tells."""
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run ({error})"
    if done.returncode != 0:
        return f"does not run (exit status {done.returncode})"
    answer = json.loads(done.stdout)
    version = str(answer["version"])
    if version not in USABLE_VERSIONS:
        return f"is Python {version}"
    if not answer["venv"]:
        return f"is Python {version} without the venv and ensurepip modules"
    if answer["library"] is None:
        return f"is Python {version} without the shared library libpython{version}.so.1.0"
    return Interpreter(Path(answer["executable"]), version, str(answer["library"]))


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
