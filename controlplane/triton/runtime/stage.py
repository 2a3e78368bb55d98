# Lays out the directories a server starts from: backends, an empty working directory, a log directory.
from __future__ import annotations

import shutil
from pathlib import Path

from controlplane.triton.runtime.find import RuntimeEnvironment
from controlplane.triton.runtime.paths import BACKEND


def stage_backends(environment: RuntimeEnvironment, target: Path) -> None:
    """Make `target` the --backend-directory anew; no server may be running on it.

    The library is copied, because Triton refuses one that a link leads out of the directory; the stub is linked,
    because it finds the CUDA library of its wheel relative to where it really lies.
    """
    shutil.rmtree(target, ignore_errors=True)
    python, onnxruntime = target / "python", target / "onnxruntime"
    python.mkdir(parents=True)
    onnxruntime.mkdir()
    source = environment.triton / "backends" / "python"
    shutil.copyfile(source / "libtriton_python.so", python / "libtriton_python.so")
    shutil.copyfile(source / "triton_python_backend_utils.py", python / "triton_python_backend_utils.py")
    (python / environment.stub.name).symlink_to(environment.stub)
    shutil.copyfile(BACKEND, onnxruntime / "model.py")


def stage_working_directory(target: Path) -> None:
    """An empty directory: backend processes import from the server's working directory before anything else."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
