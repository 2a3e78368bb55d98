# Ctrl-C on a command that waits: the user is told what became of it, and the next command.
from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

from clients.control import contexts
from clients.control.contexts import Context
from clients.control.types import NewChange, NewEnvironment, NewServer, NewVersion
from tests.store.api.conftest import Api


def tritonctl(home: Path, *arguments: str, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "controlplane", *arguments],
        env={**os.environ, "TRITONCTL_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def read(terminal: int, until: str | None = None) -> str:
    """What was written, up to and including `until` or up to the end."""
    seen = ""
    while until is None or until not in seen:
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:  # how Linux says that the other side of a terminal was closed
            break
    return seen


def test_an_interrupted_apply_goes_on_and_says_how_to_watch_it(api: Api, tmp_path: Path) -> None:
    home = tmp_path / "client"
    contexts.put(home / "context.toml", "author", Context(api.url, api.tokens["author"]), use=True)
    admin, author = api.as_("admin"), api.as_("author")
    admin.environments.create(NewEnvironment("prod"))
    admin.environments.set_policy("prod", {"approvals": 0})
    admin.environments.add_server("prod", NewServer("one", "127.0.0.1:1", str(tmp_path / "models")))
    (tmp_path / "model.py").write_text("opaque")
    file = author.uploads.upload(tmp_path / "model.py", "model.py")
    author.catalog.register("m", NewVersion(files=(file,), config='backend: "python"'))
    author.changes.propose(NewChange("prod", "m", "first", versions=(1,)))
    terminal, stderr = pty.openpty()
    running = tritonctl(home, "change", "apply", "1", stderr=stderr)
    os.close(stderr)
    assert "waiting for a worker" in read(terminal, until="waiting for a worker")
    running.send_signal(signal.SIGINT)
    said = read(terminal)
    os.close(terminal)
    assert "change 1 goes on without us; next: tritonctl change watch 1" in said
    assert running.wait(timeout=90) == 130
    assert author.changes.get(1).summary.state == "applying"


def test_an_interrupted_sweep_goes_on_and_says_how_to_watch_or_end_it(api: Api, tmp_path: Path, model: str) -> None:
    home = tmp_path / "client"
    contexts.put(home / "context.toml", "author", Context(api.url, api.tokens["author"]), use=True)
    author = api.as_("author")
    file = author.uploads.upload(Path(model), "model.onnx")
    author.catalog.register("double", NewVersion(files=(file,)))
    terminal, stderr = pty.openpty()
    running = tritonctl(home, "sweep", "run", "double", stderr=stderr)
    os.close(stderr)
    assert "sweep 1  [----" in read(terminal, until="waits for a worker")
    running.send_signal(signal.SIGINT)
    said = read(terminal)
    os.close(terminal)
    assert "sweep 1 goes on without us; next: tritonctl sweep watch 1, or tritonctl sweep cancel 1" in said
    assert running.wait(timeout=90) == 130
    assert author.sweeps.get(1).state == "queued"


def test_an_interrupted_request_without_an_answer_says_that_it_is_not_known(tmp_path: Path) -> None:
    home = tmp_path / "client"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        contexts.put(
            home / "context.toml", "author", Context(f"http://127.0.0.1:{silent.getsockname()[1]}", "t"), use=True
        )
        running = tritonctl(home, "change", "apply", "7", stderr=subprocess.PIPE)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4096).startswith(b"POST /v1/changes/7/application ")
            said = interrupted(running)
    assert b"not known whether it was sent; next: tritonctl change show 7\n" in said
    assert running.returncode == 130


def interrupted(running: subprocess.Popen[bytes]) -> bytes:
    """What it says on stderr when somebody presses Ctrl-C until it ends: Python drops an interrupt that meets it while it
    destroys an object."""
    for _ in range(6):
        running.send_signal(signal.SIGINT)
        try:
            return running.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it does not end")
