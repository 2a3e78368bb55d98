# A supervised server comes back after every death, on the same ports, with what its repository holds.
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime import processes
from controlplane.triton.runtime.find import TritonRuntime
from controlplane.triton.runtime.keeper import ServerKeeper
from controlplane.triton.runtime.launch import LaunchOptions
from controlplane.triton.runtime.state import read_state
from controlplane.triton.runtime.supervise import Supervisor
from tests.live.onnx_graphs import graph
from tests.live.runtime.models import ask, config_text, put
from tests.live.servers import LiveTriton

SOFTMAX = graph("softmax")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def supervisor(runtime: TritonRuntime, tmp_path: Path, repository: Path) -> Iterator[Supervisor]:
    made = Supervisor(LaunchOptions(tmp_path / "home", repository, runtime))
    yield made
    made.stop(0)


def tick_until_restarted(supervisor: Supervisor, within_seconds: float) -> float:
    """Seconds from when the death is seen until a new server was started."""
    began = time.monotonic()
    while not supervisor.tick():
        assert time.monotonic() - began < within_seconds
        time.sleep(0.005)
    return time.monotonic() - began


def test_a_killed_server_comes_back_and_serves_its_repository(
    supervisor: Supervisor, tmp_path: Path, repository: Path
) -> None:
    server = LiveTriton(supervisor.server, tmp_path / "home", repository, None)
    put(server, SOFTMAX, "m", config_text(SOFTMAX))
    supervisor.start(90)
    assert not supervisor.tick()
    first = supervisor.server.state
    found = read_state(tmp_path / "home")
    assert found == first
    found.kill()  # as another process does, that heals a stuck server
    assert processes.shared_memory(first.shm_prefix) == []
    tick_until_restarted(supervisor, 60)
    supervisor.server.wait_ready(90)
    assert supervisor.server.ports == first.ports
    assert supervisor.server.state.generation == 2
    assert ask(server, "m", SOFTMAX.inputs, ["y"])["y"].shape == (3, 4)


def test_what_a_crashed_server_left_is_removed(supervisor: Supervisor, tmp_path: Path, repository: Path) -> None:
    put(LiveTriton(supervisor.server, tmp_path / "home", repository, None), SOFTMAX, "m", config_text(SOFTMAX))
    supervisor.start(90)
    state = supervisor.server.state
    assert state.pid is not None
    for stub in processes.stubs(state.shm_prefix):
        os.kill(stub, signal.SIGSTOP)
    os.kill(state.pid, signal.SIGKILL)
    tick_until_restarted(supervisor, 60)
    assert list(processes.stubs(state.shm_prefix)) == []
    assert processes.shared_memory(state.shm_prefix) == []


def test_each_restart_in_a_row_waits_longer(supervisor: Supervisor) -> None:
    supervisor.start(90)
    waits = []
    for _ in range(3):
        supervisor.server.kill()
        waits.append(tick_until_restarted(supervisor, 60))
    assert all(wait >= delay for wait, delay in zip(waits, (0.1, 0.2, 0.4), strict=True))


def test_a_first_start_that_fails_leaves_nothing_running(
    runtime: TritonRuntime, tmp_path: Path, repository: Path
) -> None:
    options = LaunchOptions(tmp_path / "home", repository, runtime, extra_arguments=("--no-such-option",))
    supervisor = Supervisor(options)
    with pytest.raises(RuntimeUnavailable, match="exited with status 1 before it was ready"):
        supervisor.start(90)
    assert not supervisor.server.state.alive()


def test_a_first_start_lets_go_of_what_a_worker_that_died_held_down(supervisor: Supervisor, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ServerKeeper(home, tmp_path / "models", alive=lambda: False).kill("m")
    supervisor.start(90)
    supervisor.server.kill()
    tick_until_restarted(supervisor, 60)


def test_a_repository_that_is_not_there_is_named(supervisor: Supervisor, repository: Path) -> None:
    repository.rmdir()
    with pytest.raises(RuntimeUnavailable, match=f"there is no model repository {repository}"):
        supervisor.start(90)


def test_a_running_supervisor_stops_when_it_is_told(supervisor: Supervisor) -> None:
    stopping = threading.Event()
    supervisor.start(90)
    threading.Timer(0.3, stopping.set).start()
    supervisor.run(stopping)
    assert supervisor.server.poll() == 0
    assert not supervisor.server.state.alive()
