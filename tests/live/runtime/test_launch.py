# A server starts, answers, stops and dies without leaving anything behind.
from __future__ import annotations

from controlplane.triton.runtime import processes
from tests.live.servers import MakeTriton


def test_a_stopped_server_leaves_no_process_and_no_shared_memory(make_triton: MakeTriton) -> None:
    server = make_triton()
    state = server.process.state
    assert server.process.stop(20) == 0
    assert not state.alive()
    assert list(processes.stubs(state.shm_prefix)) == []
    assert processes.shared_memory(state.shm_prefix) == []
