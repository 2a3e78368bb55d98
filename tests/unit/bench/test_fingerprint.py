# Reading a machine: this one, and others by what their /proc, /sys and nvidia-smi say.
from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

import controlplane
from controlplane.bench.fingerprint import ProcessorTime, commit, installed, read_host, stolen_ppm, take
from controlplane.domain.fingerprints import Fingerprint, Gpu, Serving, same_class

XEON = """processor\t: {n}
model name\t: Intel(R) Xeon(R) Platinum 8480+
physical id\t: 0
core id\t\t: {core}
"""
SMI = """#!/bin/sh
case "$1" in --query-gpu=name,driver_version,memory.total,*) ;; *) exit 2;; esac
cat <<'END'
{rows}
END
exit {status}
"""
H200 = "NVIDIA H200, 550.90.07, 143771, 345, 3201, 1980, 3201, 700.00, Disabled"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def smi(tmp_path: Path, rows: str, status: int = 0) -> str:
    """A program that answers as nvidia-smi does."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(rows=rows, status=status))
    program.chmod(0o755)
    return str(program)


def test_this_machine_tells_what_psutil_and_the_kernel_tell() -> None:
    before = ProcessorTime.now()
    here = take(Serving("2.51.0"))
    assert here.host is not None

    assert here.host.threads == psutil.cpu_count()
    assert here.host.memory_bytes == psutil.virtual_memory().total
    assert here.host.kernel == os.uname().release
    assert here.host.usable_millicpus is not None
    assert 0 < here.host.usable_millicpus <= 1000 * len(os.sched_getaffinity(0))
    assert here.host.cpu_model
    assert (here.control_plane, here.local) == (controlplane.__version__, True)
    assert ("numpy", version("numpy")) in here.packages
    assert before is not None
    assert Fingerprint.from_json(here.to_json()) == here
    assert same_class(here, take(Serving("2.51.0"))) in {True, None}
    assert take(Serving(None), local=False).host is None


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
    cpus = "\n".join(XEON.format(n=n, core=n // 2) for n in range(4))
    root = machine(
        tmp_path,
        {
            "proc/cpuinfo": cpus,
            "proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n",
            "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
            "sys/fs/cgroup/cpu.max": "150 1000\n",
        },
    )
    host = read_host(root, None)

    assert (host.cpu_model, host.cores, host.threads) == ("Intel(R) Xeon(R) Platinum 8480+", 2, 4)
    assert (host.memory_bytes, host.kernel) == (16384 * 1024, "6.8.0-45-generic")
    assert host.governor == "performance and powersave"
    assert host.usable_millicpus == 150
    assert host.gpus == ()
    assert host.steal_ppm is None


def test_what_a_machine_does_not_tell_is_none_and_never_nothing(tmp_path: Path) -> None:
    host = read_host(tmp_path, None)

    assert (host.cpu_model, host.cores, host.threads, host.governor, host.memory_bytes) == (None,) * 5
    assert host.usable_millicpus == 1000 * len(os.sched_getaffinity(0))
    arm = machine(tmp_path, {"proc/cpuinfo": "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n"})
    assert read_host(arm, None).cpu_model == "CPU implementer 0x41 CPU part 0xd0c"
    assert (read_host(arm, None).cores, read_host(arm, None).threads) == (None, 1)
    old = machine(
        tmp_path, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1000\n"}
    )
    assert read_host(old, None).usable_millicpus == 500
    machine(old, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"})
    assert read_host(old, None).usable_millicpus == 1000 * len(os.sched_getaffinity(0))


def test_nvidia_smi_tells_clocks_driver_and_memory_and_what_it_cannot_tell_is_none(tmp_path: Path) -> None:
    silent = '"Tesla T4, passive", 535.104, [N/A], [Not Supported], N/A, [Unknown Error], , [N/A], [N/A]'
    host = read_host(tmp_path, smi(tmp_path, f"{H200}\n{silent}"))

    assert host.gpus == (
        Gpu("NVIDIA H200", "550.90.07", 143771, 345, 3201, 1980, 3201, 700_000, "Disabled"),
        Gpu("Tesla T4, passive", "535.104"),
    )


@pytest.mark.parametrize(("rows", "status"), [(H200, 9), ("No devices were found", 0), ("", 0)])
def test_without_an_answer_of_nvidia_smi_the_drivers_files_are_asked(tmp_path: Path, rows: str, status: int) -> None:
    program = smi(tmp_path, rows, status)
    assert read_host(tmp_path, program).gpus == ()

    machine(
        tmp_path,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31\nGCC\n",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ:   \t 16\n",
        },
    )
    assert read_host(tmp_path, program).gpus == ()  # the host's driver is seen in a container without devices too
    machine(tmp_path, {"dev/nvidia0": ""})
    assert read_host(tmp_path, program).gpus == (Gpu("NVIDIA H200", "550.90.07"),)
    machine(tmp_path, {"dev/nvidia1": ""})
    assert read_host(tmp_path, program).gpus is None


def test_stolen_time_is_a_share_of_what_passed_and_none_where_it_cannot_be_told(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/stat": "cpu  100 0 50 800 20 0 10 20 7 0\ncpu0 1 2\n"})
    before = ProcessorTime.now(tmp_path)
    machine(tmp_path, {"proc/stat": "cpu  150 0 50 840 20 0 10 30 9 0\n"})
    after = ProcessorTime.now(tmp_path)

    assert before == ProcessorTime(1000, 20)
    assert stolen_ppm(before, after) == 100_000
    assert stolen_ppm(before, before) is None
    assert stolen_ppm(None, after) is None
    machine(tmp_path, {"proc/stat": "cpu  1 2 3 4\n"})
    assert ProcessorTime.now(tmp_path) is None
    assert ProcessorTime.now(tmp_path / "nowhere") is None


def test_the_commit_is_that_of_the_checkout_itself_and_says_when_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    git("tag", "-a", "v1", "-m", "v1")
    head = git("rev-parse", "HEAD")

    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{head}-dirty"
    (tmp_path / "site-packages").mkdir()
    assert commit(tmp_path / "site-packages") is None


def test_only_installed_packages_are_named_in_order() -> None:
    assert installed(["psutil", "no-such-package-here", "numpy"]) == (
        ("numpy", version("numpy")),
        ("psutil", version("psutil")),
    )
