# Acceptance 2: README's tour, as it stands there: every fenced command against a real `tritonctl up`.
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.triton.runtime.find import TritonRuntime
from tests.live.conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
RUNTIME = Path(os.environ.get("TRITONCTL_TEST_RUNTIME") or CHECKOUT / "build" / "runtime")


@dataclass(frozen=True, slots=True)
class Typed:
    """One command of the tour; `status` is what its comment `# exit status N` says, else 0."""

    line: str
    status: int


@dataclass(frozen=True, slots=True)
class Seen:
    line: str
    status: int
    text: str


def tour() -> list[Typed]:
    """The `sh` blocks of the section; the block before them, without a language, sets up both terminals."""
    section = README.partition("## A tour in five minutes")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    typed = []
    for line in lines:
        promised = re.search(r"# exit status (\d+)", line)
        typed.append(Typed(line, int(promised[1]) if promised else 0))
    return typed


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, runtime: TritonRuntime) -> dict[str, str]:
    """Environment of both terminals: this environment's programs first, a home of its own, no other settings."""
    home = tmp_path_factory.mktemp("tour")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRITONCTL_")}
    (home / "tritonctl-tour").mkdir()
    (home / "tritonctl-tour" / "runtime").symlink_to(RUNTIME)  # 320 MB that need not be fetched again
    return {
        **ours,
        "HOME": str(home),
        "TRITONCTL_HOME": str(home / "tritonctl-tour"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Another installation on this machine may have the usual port.
        "TRITONCTL_API__PORT": "0",
    }


@pytest.fixture(scope="module")
def up(terminal: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """The first terminal."""
    log = tmp_path_factory.mktemp("up") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tour()[0].line.split(),
            cwd=CHECKOUT,
            env=terminal,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - ignored under nohup
        )
    deadline = time.monotonic() + 200
    while "Ctrl-C stops everything" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(120)


@pytest.fixture(scope="module")
def seen(up: subprocess.Popen[bytes], terminal: dict[str, str]) -> list[Seen]:
    """The second terminal: everything after `tritonctl up`, in order."""
    found = []
    for typed in tour()[1:]:
        done = subprocess.run(
            ["bash", "-c", typed.line], cwd=CHECKOUT, env=terminal, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=250,
        )  # fmt: skip
        found.append(Seen(typed.line, done.returncode, done.stdout))
    return found


def texts(seen: list[Seen], beginning: str) -> list[str]:
    return [each.text for each in seen if each.line.startswith(beginning)]


def digits(answer: str) -> tuple[str, str]:
    """Version and digits that `infer` printed."""
    version = re.search(r"^version +(\d+)$", answer, re.MULTILINE)
    row = re.search(r"^digit +int64 +8, 1 +([\d ]+)$", answer, re.MULTILINE)
    assert version
    assert row
    return version[1], row[1].strip()


def test_every_command_of_the_tour_ends_as_the_readme_says(seen: list[Seen]) -> None:
    wrong = [(each, typed.status) for each, typed in zip(seen, tour()[1:], strict=True) if each.status != typed.status]

    assert wrong == []
    assert len(seen) > 20


def test_the_unapproved_change_is_refused_for_lack_of_approval(seen: list[Seen]) -> None:
    assert (
        "error [change.blocked]: change 1 may not be applied: 0 of 1 approvals"
        in texts(seen, "tritonctl change apply 1")[0]
    )


def test_the_live_model_answers_by_the_version_that_was_deployed_and_rolled_back_to(seen: list[Seen]) -> None:
    first, second, again = (digits(text) for text in texts(seen, "tritonctl infer"))

    assert (first[0], second[0], again[0]) == ("1", "2", "1")
    assert again == first
    assert second[1] != first[1]


def test_the_tuned_setting_goes_in_place(seen: list[Seen]) -> None:
    (proposed,) = texts(seen, "tritonctl change propose digits --env local --set")

    assert "in place" in proposed
    assert 'instance_group["cpu"].count: 1 → 2' in proposed


def test_drift_is_reported_and_mended(seen: list[Seen]) -> None:
    edited, mended = texts(seen, "tritonctl drift")

    assert "config.pbtxt differs" in edited
    assert "no drift in local" in mended


def test_sweep_acceptance_9_the_sweeps_choice_is_deployed_with_its_evidence_and_taken_back(seen: list[Seen]) -> None:
    (swept,) = texts(seen, "echo")
    (proposed,) = texts(seen, "tritonctl sweep propose")
    (taken_back,) = texts(seen, "tritonctl change apply 7")

    chosen = re.search(r"^chosen: (1\.\d+)", swept, re.MULTILINE)
    assert chosen, swept
    assert f"evidence: trial {chosen[1]}" in proposed
    assert "applied" in taken_back


def test_the_audit_log_of_the_tour_is_intact(seen: list[Seen]) -> None:
    (verdict,) = texts(seen, "tritonctl audit verify")

    assert "the audit log is intact" in verdict


def test_interrupting_the_first_terminal_stops_everything(seen: list[Seen], up: subprocess.Popen[bytes]) -> None:
    up.send_signal(signal.SIGINT)

    assert up.wait(120) == 0
