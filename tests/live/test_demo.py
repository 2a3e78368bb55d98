# Acceptance 1: the demo as a person runs it: told whole, and leaving nothing behind, also when it is interrupted.
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psutil
import pytest

from controlplane.triton.runtime.find import TritonRuntime

pytestmark = pytest.mark.timeout(600)

CHAPTERS = [
    "1. A model is registered",
    "2. Nothing goes live without a second pair of eyes",
    "3. The live model reads handwriting",
    "4. A setting is tuned while it serves",
    "5. A better version takes over",
    "6. A change goes wrong and undoes itself",
    "7. Back to the first revision, byte for byte",
    "8. Which config is right is measured, not guessed",
    "9. Somebody rewrites history, and is found out",
]


Play = Callable[..., "Played"]


@dataclass
class Played:
    """One run of the demo, its temporary files below `temporary`; `prefixes` are those of its servers' shared memory."""

    temporary: Path
    output: str = ""
    status: int | None = None
    prefixes: set[str] = field(default_factory=set)

    def left(self) -> list[str]:
        """Files, processes and shared memory that are still there."""
        found = [str(path) for path in self.temporary.iterdir()]
        found += [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(tuple(self.prefixes))]
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
            if process.pid != os.getpid() and any(str(self.temporary) in word for word in words):
                found.append(" ".join(process.info["cmdline"] or ["?"]))
        return found


@pytest.fixture
def play(runtime: TritonRuntime, tmp_path: Path) -> Play:
    """Run the demo in a pipe, and send it a signal when the output has the words that are given."""
    assert runtime.environment is not None
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    (home / "runtime").symlink_to(runtime.environment.directory.parent)

    def run(signal_at: str = "", number: signal.Signals = signal.SIGINT) -> Played:
        played = Played(temporary)
        log = tmp_path / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "controlplane", "demo"],
                env={**os.environ, "TRITONCTL_HOME": str(home), "TMPDIR": str(temporary)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while process.poll() is None:
                for state in chain(temporary.glob("*/servers/*/state.json"), temporary.glob("*/bench/state.json")):
                    played.prefixes.add(json.loads(state.read_text())["shm_prefix"])
                if signal_at and signal_at in log.read_text():
                    os.killpg(process.pid, number)  # as a terminal does
                    signal_at = ""
                time.sleep(0.1)
        played.status, played.output = process.returncode, log.read_text()
        return played

    return run


def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(play: Play) -> None:
    played = play()
    assert played.status == 0, played.output
    assert re.findall(r"^\d\. .*", played.output, re.MULTILINE) == CHAPTERS
    assert re.findall(r"^   chapter (\d) took [\d.]+ s$", played.output, re.MULTILINE) == list("123456789")
    assert re.search(r"^All was as told: \d+ commands and \d+ checks in \d+ s\.$", played.output, re.MULTILINE)
    assert re.findall(r"the live server reads (\d+) right", played.output) == ["463", "492", "492", "463"]
    assert not re.search(r"[\x1b\r]", played.output)
    assert len(played.prefixes) == 2  # the server that serves, and the one that the sweep measured on
    assert played.left() == []


def test_an_interrupted_demo_leaves_nothing_behind(play: Play) -> None:
    played = play("journal")
    assert played.status == 130, played.output
    assert played.output.rstrip().endswith("stopping, and removing what was made …")
    assert len(played.prefixes) == 1
    assert played.left() == []


def test_a_killed_demo_leaves_its_files_and_nothing_that_runs(play: Play) -> None:
    played = play("1. A model", signal.SIGKILL)
    assert played.status == -signal.SIGKILL
    end = time.monotonic() + 120
    while len(left := played.left()) > 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert left == [str(path) for path in played.temporary.glob("tritonctl-demo-*")]
    assert len(left) == len(played.prefixes) == 1
