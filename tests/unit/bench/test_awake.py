# Processors that a bench keeps awake: one spinner each, of the lowest kind, and none of them outlives its process.
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from controlplane.bench import awake
from controlplane.bench.awake import kept_awake
from controlplane.bench.fingerprint import read_host
from controlplane.errors import RuntimeUnavailable

KILLED = """
import os, signal
from controlplane.bench.awake import kept_awake
with kept_awake():
    print(os.getpid(), flush=True)
    signal.pause()
"""


def spinning(process: psutil.Process) -> list[psutil.Process]:
    return [one for one in process.children() if "SCHED_IDLE" in " ".join(one.cmdline())]


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def without_quota() -> None:
    usable = read_host(nvidia_smi=None).usable_millicpus
    if usable is not None and usable < 1000 * len(os.sched_getaffinity(0)):
        pytest.skip("a container with a processor quota")


@pytest.mark.usefixtures("without_quota")
def test_each_processor_has_one_that_runs_only_while_nothing_else_wants_to() -> None:
    here, cpus = psutil.Process(), sorted(os.sched_getaffinity(0))
    with kept_awake():
        assert within(30, lambda: all(os.sched_getscheduler(one.pid) == os.SCHED_IDLE for one in spinning(here)))
        assert within(30, lambda: sorted(one.cpu_affinity() for one in spinning(here)) == [[cpu] for cpu in cpus])
    assert spinning(here) == []


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel that does not group by session")
@pytest.mark.usefixtures("without_quota")
def test_none_shares_the_processors_with_a_session_on_equal_terms() -> None:
    """A server in a session of its own would have half of a processor otherwise, whatever kind the spinner is of."""
    with kept_awake():
        groups = [Path(f"/proc/{one.pid}/autogroup").read_text().split() for one in spinning(psutil.Process())]
    assert [nice for _, _, nice in groups] == ["19"] * len(os.sched_getaffinity(0))
    assert len({name for name, _, _ in groups}) == len(groups)


@pytest.mark.usefixtures("without_quota")
def test_they_end_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline()
        left = spinning(psutil.Process(killed.pid))
        assert left
        killed.kill()
    assert within(30, lambda: not any(one.is_running() for one in left))


def test_a_quota_that_they_would_use_up_is_not_spent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000")
    monkeypatch.setattr(awake, "read_host", lambda **_: read_host(tmp_path, nvidia_smi=None))
    with pytest.raises(RuntimeUnavailable, match=r"awake would use up the quota of 0\.5"), kept_awake():
        pass
