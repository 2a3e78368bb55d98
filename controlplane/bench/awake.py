# Keeps the processors awake while a bench measures: on each a process that runs only while nothing else wants to.
"""A virtual processor that has nothing to do is given away, and gets its place back late. On a shared host this took up to 70 % of
the time at loads that leave pauses, and 0 to 5 % with these. What is measured is then what a busy machine answers: a
fingerprint says so, and leaves the class of those that were not kept awake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.bench.fingerprint import read_host
from controlplane.errors import RuntimeUnavailable

_SPIN = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
while os.getppid() == int(sys.argv[2]):
    for _ in range(100_000):
        pass
"""


@contextmanager
def kept_awake() -> Iterator[None]:
    """They end with this process, however that ends. Raises RuntimeUnavailable where they would use up a processor quota."""
    if not hasattr(os, "SCHED_IDLE"):
        raise RuntimeUnavailable(
            "the processors of this system cannot be kept awake", hint="leave sweeps.keep_awake out of the settings"
        )
    cpus, usable = sorted(os.sched_getaffinity(0)), read_host(nvidia_smi=None).usable_millicpus
    if usable is not None and usable < 1000 * len(cpus):
        raise RuntimeUnavailable(
            f"keeping {len(cpus)} processors awake would use up the quota of {usable / 1000:g}",
            hint="leave sweeps.keep_awake out of the settings, or lift the container's processor quota",
        )
    words = [sys.executable, "-I", "-S", "-c", _SPIN]
    spinning = [subprocess.Popen([*words, str(cpu), str(os.getpid())]) for cpu in cpus]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()
