# Reading the fingerprint of this machine: what /proc, /sys, nvidia-smi, git and the installed packages tell.
"""What is not told is None, never 0 and never an error: a machine that hides something can still be measured on."""

from __future__ import annotations

import csv
import io
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import controlplane
from controlplane.domain.fingerprints import Fingerprint, Gpu, Host, Serving

PACKAGES = ("grpcio", "hpack", "numpy", "onnx", "onnxruntime", "protobuf", "psutil", "scipy", "tritonclient")
_SECONDS = 10
_QUERY = {
    "name": "model",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "clocks.current.sm": "clock_mhz",
    "clocks.current.memory": "clock_memory_mhz",
    "clocks.max.sm": "clock_most_mhz",
    "clocks.max.memory": "clock_memory_most_mhz",
    "power.limit": "power_limit_mw",
    "mig.mode.current": "mig",
}
"""What nvidia-smi is asked for, and the field of Gpu that it answers. Serial numbers and UUIDs are of no use to others."""


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """Of all processors since the machine started, in ticks: in all, and taken away by the hypervisor."""

    whole: int
    stolen: int

    @classmethod
    def now(cls, root: Path = Path("/")) -> ProcessorTime | None:
        """None where the kernel does not count it."""
        first = (_read(root / "proc/stat") or "").partition("\n")[0].split()
        if len(first) < 9 or first[0] != "cpu":
            return None
        # user nice system idle iowait irq softirq steal; guest time, which follows, is in user already.
        ticks = [int(part) for part in first[1:9]]
        return cls(sum(ticks), ticks[7])


def stolen_ppm(before: ProcessorTime | None, after: ProcessorTime | None) -> int | None:
    """The share stolen between two readings, in millionths; None where it cannot be told, as between two in one tick."""
    if before is None or after is None or after.whole <= before.whole:
        return None
    return round(1_000_000 * max(after.stolen - before.stolen, 0) / (after.whole - before.whole))


def take(
    serving: Serving, *, local: bool = True, host: Host | None = None, packages: Iterable[str] = PACKAGES
) -> Fingerprint:
    """Of a measurement taken by this process. `host` is the server's machine; for a `local` server it may be read by
    `read_host` once and be given its `steal_ppm` later (dataclasses.replace)."""
    if local and host is None:
        host = read_host()
    return Fingerprint(
        host,
        serving,
        local=local,
        packages=installed(packages),
        control_plane=controlplane.__version__,
        commit=commit(Path(controlplane.__file__).parents[1]),
    )


def read_host(root: Path = Path("/"), nvidia_smi: str | None = "nvidia-smi") -> Host:
    """This machine. `root` is where its /proc, /sys and /dev are; `nvidia_smi` a program's name or path, None for none."""
    model, cores, threads = _processors(_read(root / "proc/cpuinfo") or "")
    return Host(
        model,
        cores,
        threads,
        _usable(root),
        _governor(root),
        _memory(_read(root / "proc/meminfo") or ""),
        _gpus(root, nvidia_smi),
        _read(root / "proc/sys/kernel/osrelease") or platform.release() or None,
    )


def installed(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Those that are installed, by name."""
    found = []
    for name in sorted(names):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def commit(checkout: Path) -> str | None:
    """The commit that `checkout` is at, with `-dirty` where tracked files were changed since; None when it is not the top of a
    git checkout, as an installed package is not, even inside somebody else's."""
    if not (checkout / ".git").exists():
        return None
    return _said_by(["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])


def _processors(cpuinfo: str) -> tuple[str | None, int | None, int | None]:
    """Model, cores, logical processors."""
    entries = [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in cpuinfo.split("\n\n")
    ]
    logical = [entry for entry in entries if "processor" in entry]
    places = {(entry.get("physical id"), entry["core id"]) for entry in logical if "core id" in entry}
    model = next((entry["model name"] for entry in logical if entry.get("model name")), None)
    if model is None:  # ARM gives numbers alone
        parts = ("CPU implementer", "CPU part", "CPU variant")
        model = next((" ".join(f"{part} {entry[part]}" for part in parts if part in entry) for entry in logical), None)
    return model or None, len(places) or None, len(logical) or None


def _usable(root: Path) -> int | None:
    """Thousandths of processors that affinity and a quota leave to this process; a container sees its own group at the top."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    most = 1000 * len(os.sched_getaffinity(0))
    quota = (_read(root / "sys/fs/cgroup/cpu.max") or "").split()
    if not quota:
        old = root / "sys/fs/cgroup/cpu"
        quota = [_read(old / f"cpu.cfs_{part}_us") or "" for part in ("quota", "period")]
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        most = min(most, 1000 * int(quota[0]) // int(quota[1]))
    return most


def _governor(root: Path) -> str | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return " and ".join(sorted({name for name in map(_read, files) if name})) or None


def _memory(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return 1024 * int(line.split()[1])
    return None


def _gpus(root: Path, nvidia_smi: str | None) -> tuple[Gpu, ...] | None:
    """nvidia-smi tells most; the driver's own files tell the models; without a driver there is nothing to compute on."""
    program = nvidia_smi and shutil.which(nvidia_smi)
    if program:
        fields = ",".join(_QUERY)
        told = _said_by([program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
        rows = [row for row in csv.reader(io.StringIO(told or ""), skipinitialspace=True) if row]
        if rows and all(len(row) == len(_QUERY) for row in rows):
            return tuple(_gpu(dict(zip(_QUERY.values(), row, strict=True))) for row in rows)
    driver, devices = root / "proc/driver/nvidia", list((root / "dev").glob("nvidia[0-9]*"))
    if not driver.exists() or not devices:  # a container sees the host's driver, and only the devices that it was given
        return ()
    number = _driver_version(_read(driver / "version") or "")
    models = [_field(_read(path) or "", "Model") for path in sorted(driver.glob("gpus/*/information"))]
    known = tuple(Gpu(model, number) for model in models if model)
    return known if len(known) == len(models) == len(devices) else None


def _gpu(told: Mapping[str, str]) -> Gpu:
    return Gpu(
        told["model"].strip(),
        _told(told["driver"]),
        memory_mib=_number(told["memory_mib"]),
        clock_mhz=_number(told["clock_mhz"]),
        clock_memory_mhz=_number(told["clock_memory_mhz"]),
        clock_most_mhz=_number(told["clock_most_mhz"]),
        clock_memory_most_mhz=_number(told["clock_memory_most_mhz"]),
        power_limit_mw=_number(told["power_limit_mw"], 1000),
        mig=_told(told["mig"]),
    )


def _told(text: str) -> str | None:
    """`[N/A]`, `[Not Supported]` and the like say that there is nothing to say."""
    text = text.strip()
    return None if not text or text.startswith("[") or text in {"N/A", "Not Supported"} else text


def _number(text: str, scale: int = 1) -> int | None:
    told = _told(text)
    try:
        return None if told is None else round(float(told) * scale)
    except ValueError:
        return None


def _driver_version(text: str) -> str | None:
    """`NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug …`: the first word with a digit and a dot."""
    words = text.partition("\n")[0].split()
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _field(text: str, name: str) -> str | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip() or None
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _said_by(command: list[str]) -> str | None:
    """The output of a program that ended well in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
