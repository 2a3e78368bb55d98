# A server starts, answers, stops and dies without leaving anything behind.
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime import processes
from controlplane.triton.runtime.find import TRITON_VERSION, TritonRuntime, find
from controlplane.triton.runtime.launch import LaunchOptions, TritonProcess
from controlplane.triton.runtime.state import ServerState, read_state
from tests.live.onnx_graphs import graph
from tests.live.runtime.models import ask, config_text, load, put, serve
from tests.live.servers import LiveTriton, MakeTriton

SOFTMAX = graph("softmax")


def stub_of(server: LiveTriton) -> int:
    found = list(processes.stubs(server.process.state.shm_prefix))
    assert len(found) == 1
    return found[0]


def assert_nothing_left(state: ServerState) -> None:
    assert not state.alive()
    assert list(processes.stubs(state.shm_prefix)) == []
    assert processes.shared_memory(state.shm_prefix) == []
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_a_stopped_server_leaves_nothing(make_triton: MakeTriton) -> None:
    server = make_triton()
    serve(server, SOFTMAX, "m")
    state = server.process.state
    assert state.alive()
    assert len(processes.shared_memory(state.shm_prefix)) == 1
    assert server.process.stop(90) == 0
    assert_nothing_left(state)


def test_a_killed_server_leaves_nothing_even_with_a_hung_backend_process(make_triton: MakeTriton) -> None:
    server = make_triton()
    serve(server, SOFTMAX, "m")
    state = server.process.state
    os.kill(stub_of(server), signal.SIGSTOP)
    server.process.kill()
    assert_nothing_left(state)
    assert server.process.poll() == -signal.SIGKILL


def test_a_server_that_does_not_stop_in_time_is_killed(make_triton: MakeTriton) -> None:
    server = make_triton()
    serve(server, SOFTMAX, "m")
    state = server.process.state
    os.kill(stub_of(server), signal.SIGSTOP)
    began = time.monotonic()
    assert server.process.stop(1) == -signal.SIGKILL
    assert time.monotonic() - began < 30
    assert_nothing_left(state)


def test_a_started_server_serves_its_whole_repository_and_leaves_out_what_is_broken(make_triton: MakeTriton) -> None:
    server = make_triton()
    put(server, SOFTMAX, "good", config_text(SOFTMAX))
    put(server, SOFTMAX, "unreadable", "no_such_field: 1")
    put(server, SOFTMAX, "misfit", config_text(SOFTMAX).replace("TYPE_FP32", "TYPE_INT8"))
    server.process.kill()
    server.process.start()
    server.process.wait_ready(90)
    assert ask(server, "good", SOFTMAX.inputs, ["y"])["y"].shape == (3, 4)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        index = client.get_model_repository_index(headers=server.headers).models
    assert {(model.name, model.state) for model in index} == {
        ("good", "READY"),
        ("misfit", "UNAVAILABLE"),
        ("unreadable", ""),
    }


def test_a_client_goes_on_after_a_restart_on_the_same_ports(make_triton: MakeTriton) -> None:
    server = make_triton()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        assert client.get_server_metadata().version == TRITON_VERSION
        first = server.process.state
        server.process.kill()
        server.process.start()
        server.process.wait_ready(90)
        assert server.process.state.generation == first.generation + 1
        assert server.process.ports == first.ports
        end = time.monotonic() + 60
        while not _ready(client):
            assert time.monotonic() < end
            time.sleep(0.1)


def _ready(client: grpcclient.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready())
    except InferenceServerException:
        return False


def test_two_servers_run_side_by_side_over_one_repository(make_triton: MakeTriton) -> None:
    one = make_triton(name="one")
    two = make_triton(name="two", repository=one.repository)
    put(one, SOFTMAX, "m", config_text(SOFTMAX))
    for server in (one, two):
        load(server, "m")
    state = one.process.state
    one.process.kill()
    assert_nothing_left(state)
    assert ask(two, "m", SOFTMAX.inputs, ["y"])["y"].shape == (3, 4)


def test_only_who_has_the_key_may_load(make_triton: MakeTriton) -> None:
    server = make_triton()
    put(server, SOFTMAX, "m", config_text(SOFTMAX))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for headers in ({}, {"triton-grpc-protocol-admin-key": "wrong"}):
            with pytest.raises(InferenceServerException) as refusal:
                client.load_model("m", headers=headers)
            assert refusal.value.status() == "StatusCode.UNAVAILABLE"
        client.load_model("m", headers=server.headers)
        assert client.is_model_ready("m")


def test_a_server_listens_on_loopback_only_and_does_not_log_its_key(make_triton: MakeTriton) -> None:
    server = make_triton()
    assert server.process.state.pid is not None
    listening = [
        c for c in psutil.Process(server.process.state.pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1", "::ffff:127.0.0.1"}
    ports = server.process.ports
    assert {connection.laddr.port for connection in listening} == {ports.grpc, ports.http, ports.metrics}
    assert server.admin_key is not None
    assert server.admin_key not in server.process.log.read_text()


def test_a_chosen_port_that_is_lost_to_another_process_is_replaced(runtime: TritonRuntime, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with TritonProcess(LaunchOptions(tmp_path / "home", tmp_path / "models", runtime)) as server:
        server.start()
        lost = server.ports
        with socket.create_server(("127.0.0.1", lost.grpc)):
            server.wait_ready(90)
            assert server.ports != lost
            assert server.state.generation == 2


def test_a_given_port_that_is_taken_is_an_error(
    runtime: TritonRuntime, make_triton: MakeTriton, tmp_path: Path
) -> None:
    other = make_triton()
    options = LaunchOptions(tmp_path / "home", other.repository, runtime, ports=other.process.ports)
    with TritonProcess(options) as server:
        server.start()
        with pytest.raises(RuntimeUnavailable, match=r"exited with status 1 before it was ready"):
            server.wait_ready(90)
    assert other.process.ready()


def test_a_given_binary_runs_with_the_backends_that_lie_beside_it(runtime: TritonRuntime, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    given = find(tmp_path / "no environment", runtime.binary)
    with TritonProcess(LaunchOptions(tmp_path / "home", tmp_path / "models", given)) as server:
        server.start()
        server.wait_ready(90)
        command = psutil.Process(server.state.pid).cmdline()
        assert f"--backend-directory={runtime.binary.parent.parent / 'backends'}" in command
        assert not (tmp_path / "home" / "backends").exists()


def test_one_home_has_one_owner(runtime: TritonRuntime, make_triton: MakeTriton) -> None:
    server = make_triton()
    with pytest.raises(RuntimeUnavailable, match="another process runs the server in"):
        TritonProcess(LaunchOptions(server.home, server.repository, runtime)).start()
    assert server.process.ready()


@pytest.mark.parametrize("path", ["a home", "home$(id)", "home;x"])
def test_a_path_that_a_shell_would_read_is_refused(runtime: TritonRuntime, tmp_path: Path, path: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="has characters that Triton would hand to a shell"):
        TritonProcess(LaunchOptions(tmp_path / path, tmp_path, runtime))


OWNER = """
import sys, time
from pathlib import Path
from controlplane.triton.runtime.find import find
from controlplane.triton.runtime.launch import LaunchOptions, TritonProcess

home, repository, environment = map(Path, sys.argv[1:])
server = TritonProcess(LaunchOptions(home, repository, find(environment)))
server.start()
server.wait_ready(90)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_server_dies_with_its_owner_and_the_next_owner_clears_up(runtime: TritonRuntime, tmp_path: Path) -> None:
    assert runtime.environment is not None
    home, repository = tmp_path / "home", tmp_path / "models"
    environment = runtime.environment.directory.parent
    (repository / "m").mkdir(parents=True)
    shown = LiveTriton(TritonProcess(LaunchOptions(home, repository, runtime)), home, repository, None)
    put(shown, SOFTMAX, "m", config_text(SOFTMAX))
    command = [sys.executable, "-c", OWNER, str(home), str(repository), str(environment)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        state = read_state(home)
        assert state is not None
        stubs = list(processes.stubs(state.shm_prefix))
        assert len(stubs) == 1
        os.kill(stubs[0], signal.SIGSTOP)
        owner.kill()
    end = time.monotonic() + 60
    while state.alive():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list(processes.stubs(state.shm_prefix)) == stubs
    with shown.process as server:
        server.start()
        assert_nothing_left(state)
        server.wait_ready(90)
        assert server.state.generation == 2
        assert server.ports == state.ports
