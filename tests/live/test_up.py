# `tritonctl up` as people run it: one process that carries an installation, and the command line beside it.
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import parser

from controlplane.triton.runtime.find import TritonRuntime

TRITONCTL = [sys.executable, "-m", "controlplane"]


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclass
class Up:
    home: Path
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITONCTL_")}
        self.environment = {**kept, "TRITONCTL_HOME": str(self.home), "TRITONCTL_API__PORT": "0"}

    @property
    def output(self) -> Path:
        return self.home.parent / "up.out"

    def start(self) -> None:
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*TRITONCTL, "up"], env=self.environment, stdout=output, stderr=output, text=True
            )
        until(self._started, 200, "tritonctl up")

    def _started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()
        return "Ctrl-C stops everything" in self.output.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(90)
        self.process = None
        return status

    def children(self) -> dict[str, psutil.Process]:
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except psutil.ZombieProcess:  # it has just died
                continue
            if len(words) > 3:
                found[Path(words[0]).name if "tritonserver" in words[0] else words[3]] = child
        return found

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [*TRITONCTL, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    def answers(self) -> bool:
        done = subprocess.run([*TRITONCTL, "model", "list"], env=self.environment, capture_output=True, check=False)
        return done.returncode == 0

    def answer(self, model: str) -> float:
        source = self.home.parent / "x.npz"
        np.savez(source, x=np.ones((1, 4), np.float32))
        answer = json.loads(self.run("infer", model, "--env", "local", "--input", str(source), "-o", "json"))
        return float(answer["outputs"]["y"]["data"][0][0])

    def register(self, model: str, factor: float) -> None:
        body = f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}"
        graph = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}')
        path = self.home.parent / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        self.run("model", "register", model, str(path))


def make(runtime: TritonRuntime, directory: Path) -> Iterator[Up]:
    home = directory / "home"
    home.mkdir()
    assert runtime.environment is not None
    (home / "runtime").symlink_to(runtime.environment.directory.parent)  # not installed anew for each test
    made = Up(home)
    made.start()
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


@pytest.fixture(scope="module")
def up(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for all tests that leave it running."""
    yield from make(runtime, tmp_path_factory.mktemp("up"))


@pytest.fixture
def own_up(runtime: TritonRuntime, tmp_path: Path) -> Iterator[Up]:
    yield from make(runtime, tmp_path)


def test_a_model_is_deployed_changed_and_rolled_back_by_hand(up: Up) -> None:
    up.register("double", 2.0)
    up.run(
        "change", "propose", "double", "--env", "local", "--version", "1", "--config", "generated", "--reason", "first"
    )
    assert "error [change.blocked]: change 1 may not be applied: 0 of 1 approvals" in up.run(
        "change", "apply", "1", status=6
    )
    up.run("change", "approve", "1", status=3)  # its author is no approver
    up.run("change", "approve", "1", "--context", "approver")
    up.run("change", "apply", "1")
    assert up.answer("double") == 2.0
    up.register("double", 3.0)
    up.run("environment", "policy", "local", "--approvals", "0", "--context", "admin")
    up.run("change", "propose", "double", "--env", "local", "--version", "2", "--reason", "better", "--apply")
    assert up.answer("double") == 3.0
    up.run("rollback", "double", "--env", "local", "--reason", "worse")
    assert up.answer("double") == 2.0
    revisions = json.loads(up.run("revision", "list", "double", "--env", "local", "-o", "json"))["items"]
    assert [(r["number"], [v["number"] for v in r["versions"]]) for r in revisions] == [(3, [1]), (2, [2]), (1, [1])]
    assert "the audit log is intact" in up.run("audit", "verify")


def test_a_second_one_in_the_same_home_is_refused(up: Up) -> None:
    assert f"error [conflict]: tritonctl up runs in {up.home} already" in up.run("up", status=5)


@pytest.mark.parametrize("name", ["api", "worker", "tritonserver"])
def test_a_child_that_dies_is_started_again(up: Up, name: str) -> None:
    old = up.children()[name]
    old.kill()
    until(lambda: (now := up.children().get(name)) is not None and now.pid != old.pid, 90, f"another {name}")
    until(up.answers, 120, "an answer")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_it(own_up: Up, number: signal.Signals) -> None:
    children = own_up.children()
    assert sorted(children) == ["api", "tritonserver", "worker"]
    status = own_up.stop(number)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(children.values(), timeout=60)
    assert alive == []


def test_started_again_it_goes_on_where_it_was_on_another_port_if_need_be(own_up: Up) -> None:
    own_up.register("double", 2.0)
    own_up.run("environment", "policy", "local", "--approvals", "0", "--context", "admin")
    wish = ("--version", "1", "--config", "generated", "--reason", "first", "--apply")
    own_up.run("change", "propose", "double", "--env", "local", *wish)
    assert "tritonctl model register digits" in own_up.output.read_text()
    assert own_up.stop() == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own_up.environment["TRITONCTL_API__PORT"] = str(port)
        own_up.start()
        assert json.loads(own_up.run("context", "show", "-o", "json"))["api"] != f"http://127.0.0.1:{port}"
    told = own_up.output.read_text()
    assert "Everything runs.\n\n  home " in told
    assert "tritonctl model register digits" not in told  # the first steps were taken
    assert own_up.answer("double") == 2.0
    assert json.loads(own_up.run("principal", "show", "-o", "json"))["name"] == "author"
    tokens = json.loads(own_up.run("token", "list", "--context", "admin", "-o", "json"))["items"]
    assert len(tokens) == 3  # none was made anew


def test_only_the_owner_reads_what_is_secret(up: Up) -> None:
    for name in ("context.toml", "keys/audit.key", "keys/server-local.key"):
        assert (up.home / name).stat().st_mode & 0o077 == 0, name
    log = "".join(path.read_text() for path in (up.home / "log").iterdir())
    assert "tcp_" not in log
    assert (up.home / "keys/server-local.key").read_text() not in log
