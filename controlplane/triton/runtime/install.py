# Makes the runtime environment: a virtual environment of its own with the server's wheel, numpy < 2 and onnxruntime.
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.find import MARKER, RuntimeEnvironment, environment_directory, installed
from controlplane.triton.runtime.interpreter import GIVE_AN_ADDRESS, Interpreter, check_platform, choose_interpreter
from controlplane.triton.runtime.paths import REQUIREMENTS, TETHER, check_shell_safe

Progress = Callable[[str, float], None]

# Without the tether a killed installer's pip would write on, beside the next installer's.
_TETHERED = [sys.executable, "-I", "-S", str(TETHER)]


def install(directory: Path, *, progress: Progress) -> None:
    """Make the runtime environment below `directory` unless it is there and whole; `progress` gets words and 0..1.

    Safe to run twice, at once and after a crash: one installer at a time holds a lock, and an environment counts only
    when its marker, written last, is there. Raises RuntimeUnavailable.
    """
    directory = directory.absolute()
    check_shell_safe(directory, "the runtime environment")
    directory.mkdir(parents=True, exist_ok=True)
    with _only_installer(directory, progress):
        if installed(directory) is None:
            _make(directory, progress)
    progress("the runtime environment is ready", 1.0)


def _make(directory: Path, progress: Progress) -> None:
    check_platform()
    interpreter = choose_interpreter()
    target = environment_directory(directory)
    shutil.rmtree(target, ignore_errors=True)
    progress(f"making an environment on Python {interpreter.version}", 0.02)
    _run([str(interpreter.executable), "-I", "-m", "venv", str(target)], "make a virtual environment")
    _install_packages(target, progress)
    _link_library(target, interpreter)
    progress("checking what was installed", 0.95)
    _write_marker(target, _inspect(target, interpreter))


def _install_packages(target: Path, progress: Progress) -> None:
    wanted = sum(1 for line in REQUIREMENTS.read_text().splitlines() if "==" in line and not line.startswith("#"))
    command = [
        str(target / "bin" / "python"),
        "-I",
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--require-hashes",
        "--no-input",
    ]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    tail: list[str] = []
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            tail = [*tail[-19:], line.rstrip()]
            if line.startswith("Collecting "):
                seen += 1
                progress(f"fetching {line.split()[1]}", 0.05 + 0.6 * (seen - 1) / wanted)
            elif line.startswith("Installing collected packages"):
                progress("unpacking", 0.7)
    if pip.returncode != 0:
        raise RuntimeUnavailable(
            "the packages of the embedded Triton could not be installed: " + "\n".join(tail),
            hint=f"see to it that pip reaches a package index (its usual settings apply) and try again, {GIVE_AN_ADDRESS}",
        )


def _link_library(target: Path, interpreter: Interpreter) -> None:
    """A directory with libpython alone in it, so that the server's stubs load the library of *this* Python and nothing
    else from where that lies."""
    loader = target / "loader"
    loader.mkdir()
    if "/" in interpreter.library:
        (loader / Path(interpreter.library).name).symlink_to(Path(interpreter.library).resolve())


def _inspect(target: Path, interpreter: Interpreter) -> RuntimeEnvironment:
    code = "import json, numpy, onnxruntime; print(json.dumps([numpy.__version__, onnxruntime.__version__]))"
    versions = json.loads(_run([str(target / "bin" / "python"), "-I", "-c", code], "import numpy and onnxruntime"))
    found = RuntimeEnvironment(target, interpreter.version, numpy=versions[0], onnxruntime=versions[1])
    found.check()
    return found


def _write_marker(target: Path, found: RuntimeEnvironment) -> None:
    fields = {"python": found.python, "numpy": found.numpy, "onnxruntime": found.onnxruntime}
    fields["requirements"] = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    temporary = target / f"{MARKER}.new"
    with temporary.open("w") as stream:
        json.dump(fields, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(target / MARKER)


def _run(command: list[str], purpose: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeUnavailable(
            f"could not {purpose} for the embedded Triton: {(done.stderr or done.stdout).strip()[-2000:]}",
            hint=f"try again, {GIVE_AN_ADDRESS}",
        )
    return done.stdout


@contextmanager
def _only_installer(directory: Path, progress: Progress) -> Iterator[None]:
    with (directory / "install.lock").open("w") as lock:
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    progress("waiting for another installation", 0.0)
                waiting = True
                time.sleep(0.2)
        yield
