# state.json and the identity of processes: another process finds the server, and never a stranger with its number.
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.triton.runtime import processes
from controlplane.triton.runtime.state import STATE, Ports, ServerState, read_state, write_state

PORTS = Ports(grpc=20001, http=20002, metrics=20003)


def state(pid: int | None, born: str | None) -> ServerState:
    return ServerState(generation=3, shm_prefix="tritonctl_test_", ports=PORTS, log="/log", pid=pid, born=born)


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for one in (state(None, None), state(1, "boot:5")):
        write_state(tmp_path, one)
        assert read_state(tmp_path) == one
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"ports": {}}', '{"generation": 1}'])
def test_what_is_no_state_reads_as_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / STATE).write_text(text)
    assert read_state(tmp_path) is None


def test_the_addresses_are_on_loopback() -> None:
    assert (PORTS.grpc_address, PORTS.http_address, PORTS.metrics_url) == (
        "127.0.0.1:20001",
        "127.0.0.1:20002",
        "http://127.0.0.1:20003/metrics",
    )


def test_a_process_with_the_same_number_but_another_birth_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        born = processes.birth(child.pid)
        assert born is not None
        stranger = state(child.pid, "another-boot:1")
        assert not stranger.alive()
        stranger.kill()
        assert child.poll() is None
        ours = state(child.pid, born)
        assert ours.alive()
        ours.kill()
        assert not ours.alive()
        assert child.wait() == -9


def test_a_zombie_has_no_birth() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        while processes.birth(child.pid) is not None:
            pass
    finally:
        child.wait()


def test_only_shared_memory_with_the_prefix_is_removed() -> None:
    ours, other = (processes.SHARED_MEMORY / f"tritonctl_test_{name}" for name in ("a_1", "b_1"))
    try:
        for path in (ours, other):
            path.touch()
        processes.sweep("tritonctl_test_a_")
        assert not ours.exists()
        assert other.exists()
    finally:
        other.unlink()
