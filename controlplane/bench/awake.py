# Keeps the processors awake while a bench measures: on each a process that runs only while nothing else wants to.
"""A virtual processor that has nothing to do is given away, and gets its place back late. On a shared host this took up to 70 % of
the time at loads that leave pauses, and 0 to 5 % with these. What is measured is then what a busy machine answers: a
fingerprint says so, and leaves the class of those that were not kept awake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from controlplane.bench.fingerprint import read_host
from controlplane.errors import RuntimeUnavailable

_SPIN = """
import os, sys, time
for _ in range(100):
    try:
        with open("/proc/self/autogroup", "w") as group:
            group.write("19")
    except FileNotFoundError:
        break
    except BlockingIOError:
        time.sleep(0.1)
    else:
        break
else:
    sys.exit("no nice value for its group in 10 s")
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
print("awake", flush=True)
while os.getppid() == int(sys.argv[2]):
    for _ in range(100_000):
        pass
"""
"""Linux shares processors out among sessions first, and only within one by the kind of the process: beside a server in another session, one of the
lowest kind would get half of them. So each has a session of its own, of the lowest weight; the kernel lets ordinary users set ten a second."""


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
    with ExitStack() as stack:
        spinning = [stack.enter_context(_spinning([*words, str(cpu), str(os.getpid())])) for cpu in cpus]
        for cpu, one in zip(cpus, spinning, strict=True):
            assert one.stdout is not None
            if one.stdout.readline() != "awake\n":
                assert one.stderr is not None
                raise RuntimeUnavailable(
                    f"processor {cpu} cannot be kept awake: {one.stderr.read().strip()}",
                    hint="leave sweeps.keep_awake out of the settings",
                )
        yield


@contextmanager
def _spinning(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as one:
        try:
            yield one
        finally:
            one.kill()
