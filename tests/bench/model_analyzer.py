# The rival of suite `sweep`: NVIDIA's Model Analyzer over one model, on the same tritonserver, and what it recommends.
"""It has a virtual environment of its own (`triton-model-analyzer` and `perf_analyzer`, both found on PATH), starts the server itself, as is
its default, and searches its own space with its own defaults; only the bound on p99 is given to it."""

from __future__ import annotations

import csv
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from controlplane.domain.canonical import JsonObject
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.runtime import processes
from controlplane.triton.runtime.find import RuntimeEnvironment
from controlplane.triton.runtime.ports import choose_ports
from controlplane.triton.runtime.stage import stage_backends, stage_working_directory

TOOLS = ("model-analyzer", "perf_analyzer")
MODES = ("quick", "optuna")
_LONGEST = 1200.0
_EXPORTED = "metrics-model-inference.csv"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`config` under the model's own name; None where nothing that was measured kept the bound, or the run failed: `message` says which."""

    mode: str
    seconds: float
    config: JsonObject | None
    message: str


def missing() -> list[str]:
    return [name for name in TOOLS if shutil.which(name) is None]


def recommend(
    mode: str, home: Path, environment: RuntimeEnvironment, model: Path, config: JsonObject, *, bound_ms: int
) -> Recommendation:
    """Of `model`, an ONNX file, with `config` as its base. `home` is made."""
    name, prefix = str(config["name"]), f"tritonctl_{secrets.token_hex(8)}_"
    (home / "models" / name / "1").mkdir(parents=True)
    shutil.copyfile(model, home / "models" / name / "1" / "model.onnx")
    (home / "models" / name / "config.pbtxt").write_text(PbtxtCodec().render(config))
    server, ports = _server(home, environment, prefix), choose_ports()
    command = [
        *(TOOLS[0], "profile", "--model-repository", str(home / "models"), "--profile-models", name),
        *("--run-config-search-mode", mode, "--latency-budget", str(bound_ms)),
        *("--output-model-repository-path", str(home / "tried"), "--override-output-model-repository"),
        *("--triton-launch-mode", "local", "--triton-server-path", str(server)),
        *("--triton-http-endpoint", f"127.0.0.1:{ports.http}", "--triton-grpc-endpoint", f"127.0.0.1:{ports.grpc}"),
        *("--triton-metrics-url", f"http://127.0.0.1:{ports.metrics}/metrics"),
        *("--export-path", str(home / "export"), "--checkpoint-directory", str(home / "checkpoints")),
        "--skip-detailed-reports",  # the table of results is one of the summary's
    ]
    (home / "export").mkdir()
    began = time.monotonic()
    try:
        status = _run(command, home / "model-analyzer.log")
    finally:
        processes.sweep(prefix)
    seconds = time.monotonic() - began
    if status is None:
        return Recommendation(mode, seconds, None, f"it did not end within {_LONGEST:g} s")
    if status != 0:
        return Recommendation(mode, seconds, None, f"it ended with status {status}, see {home / 'model-analyzer.log'}")
    variant = _best(home)
    if variant is None:
        return Recommendation(mode, seconds, None, f"nothing that it measured kept p99 within {bound_ms} ms")
    chosen = PbtxtCodec().parse((home / "tried" / variant / "config.pbtxt").read_text())
    chosen.pop("version_policy", None)
    return Recommendation(mode, seconds, {**chosen, "name": name}, variant)


def _server(home: Path, environment: RuntimeEnvironment, prefix: str) -> Path:
    """A script that starts the same server as a sweep's, with the arguments that it is given after our own."""
    stage_backends(environment, home / "backends")
    stage_working_directory(home / "cwd")
    script = home / "tritonserver"
    script.write_text(
        f"#!/bin/sh\ncd {home / 'cwd'}\n"
        f"exec env -i PATH={environment.directory}/bin:/usr/bin:/bin LD_LIBRARY_PATH={environment.directory}/loader "
        f"HOME={home / 'cwd'} LANG=C.UTF-8 CUDA_VISIBLE_DEVICES= {environment.binary} "
        f"--backend-directory={home / 'backends'} --backend-config=python,shm-region-prefix-name={prefix} "
        '--http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 "$@"\n'
    )
    script.chmod(0o755)
    return script


def _run(command: list[str], log: Path) -> int | None:
    """The exit status; None where it had to be killed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            return process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _best(home: Path) -> str | None:
    """The variant whose best load within the bound had the highest throughput, which is how it ranks them itself."""
    best: tuple[float, str] | None = None
    with (home / "export" / "results" / _EXPORTED).open(newline="") as text:
        for row in csv.DictReader(text, skipinitialspace=True):
            rate = next(float(value) for name, value in row.items() if name.startswith("Throughput"))
            if row["Satisfies Constraints"] == "Yes" and (best is None or rate > best[0]):
                best = (rate, row["Model Config Path"])
    return None if best is None else best[1]
