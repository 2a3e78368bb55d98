# Tensors in system shared memory against a real Triton server: right answers, a slot for each call, and nothing left behind.
from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients.inference import InferenceClient, Tensor
from clients.load.errors import LoadFailed, LoadInputError
from clients.load.measure import Limits, Load, Target, measure
from clients.load.messages import message
from clients.load.schedule import Curve
from clients.load.shared_memory import Regions
from clients.load.traffic import Part, Traffic
from clients.load.transports import Via
from tests.live.scaling import Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

SHORT = Limits(seconds=1.5, cap=1.5, warm_up=0.1)


@pytest.fixture
def site(make_triton: MakeTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config().replace("max_batch_size: 8", f"max_batch_size: {2**20}"))
    opened.load("m")
    yield opened
    opened.server.close()


@pytest.fixture
def client(site: Site) -> Iterator[InferenceClient]:
    with InferenceClient(site.live.grpc, metadata=tuple(site.live.headers.items())) as opened:
        yield opened


def target(live: LiveTriton, shared: Regions, via: Via | None = None) -> Target:
    host, port = live.grpc.split(":")
    return Target(host, int(port), via=via or Via(), shared=shared.slots)


def inputs(count: int, rows: int = 2) -> list[dict[str, Tensor]]:
    random = np.random.default_rng(0)
    return [{"X": random.random((rows, 2), np.float32)} for _ in range(count)]


def messages(tensors: list[dict[str, Tensor]]) -> tuple[bytes, ...]:
    return tuple(message("m", one, version=None, parameters={}) for one in tensors)


def checked(tensors: list[dict[str, Tensor]], shared: Regions) -> Traffic:
    """The model multiplies by three."""
    answers = tuple({"Y": np.asarray(one["X"], np.float32) * 3} for one in tensors)
    return Traffic((Part("m", shared.messages, expected=answers),))


def registered(client: InferenceClient) -> list[str]:
    ask = client.channel.unary_unary(
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
        request_serializer=service_pb2.SystemSharedMemoryStatusRequest.SerializeToString,
        response_deserializer=service_pb2.SystemSharedMemoryStatusResponse.FromString,
    )
    answer = ask(service_pb2.SystemSharedMemoryStatusRequest(), timeout=60, metadata=client.metadata)
    return sorted(answer.regions)


def files() -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"load-{os.getpid()}-*")]


@pytest.mark.parametrize("load", [Load(concurrency=8), Load(curve=Curve.flat(300))], ids=["closed", "open"])
@pytest.mark.parametrize("via", [Via(), Via("grpcio")], ids=str)
def test_every_answer_is_right_and_in_a_slot_of_its_own(
    site: Site, client: InferenceClient, via: Via, load: Load
) -> None:
    tensors, during = inputs(16), []

    def watch(seconds: float, records: object) -> bool:
        during.append((len(registered(client)), files()))
        return True

    with Regions(client, messages(tensors), slots=10) as shared:
        measured = measure(
            target(site.live, shared, via), checked(tensors, shared), load, SHORT, processes=2, progress=watch
        )
    assert measured.failed == {}
    assert (measured.checked, measured.differing) == (len(measured.records), 0)
    assert measured.checked > 5
    assert measured.transport == f"{via}, shared memory"
    assert set(map(str, during)) == {str((2, []))}, "two regions, whose names are gone already"
    assert (registered(client), files()) == ([], [])


def test_large_tensors_stay_where_they_are(site: Site, client: InferenceClient) -> None:
    tensors = inputs(2, rows=2**20)
    wire = sum(len(one) for one in messages(tensors))
    with Regions(client, messages(tensors), slots=4) as shared:
        assert wire > 16_000_000
        assert sum(len(one) for one in shared.messages) < 1000
        limits = Limits(seconds=1, cap=20, warm_up=0, count=10)
        measured = measure(target(site.live, shared), checked(tensors, shared), Load(concurrency=2), limits)
    assert (measured.failed, measured.differing, measured.differences[:1]) == ({}, 0, ())
    assert measured.checked == 10


def test_inputs_alone_can_be_shared(site: Site, client: InferenceClient) -> None:
    tensors = inputs(4)
    with Regions(client, messages(tensors), slots=0, outputs={}) as shared:
        assert len(registered(client)) == 1
        measured = measure(
            target(site.live, shared, Via("stream")), checked(tensors, shared), Load(concurrency=2), SHORT
        )
    assert (measured.failed, measured.differing, measured.differences[:1]) == ({}, 0, ())
    assert measured.checked > 5
    assert registered(client) == []


def test_what_is_too_small_for_an_output_fails_the_call(site: Site, client: InferenceClient) -> None:
    with Regions(client, messages(inputs(1)), slots=2, outputs={"Y": 4}) as shared:
        measured = measure(target(site.live, shared), shared.messages, Load(concurrency=1), SHORT)
    assert measured.completed == 0
    assert sum(measured.failed.values()) == measured.sent > 5


def test_a_sending_process_that_is_killed_leaves_nothing(site: Site, client: InferenceClient) -> None:
    def kill(seconds: float, records: object) -> bool:
        for process in multiprocessing.active_children():
            process.kill()
        return True

    with pytest.raises(LoadFailed, match="died"), Regions(client, messages(inputs(4)), slots=4) as shared:
        measure(target(site.live, shared), shared.messages, Load(concurrency=2), SHORT, progress=kill)
    assert (registered(client), files()) == ([], [])


def test_slots_of_calls_that_were_given_up_are_not_used_again(site: Site, client: InferenceClient) -> None:
    pid = site.live.process.state.pid
    assert pid is not None
    stopped: list[int] = []

    def stop(seconds: float, records: object) -> bool:
        if not stopped:
            stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)
        return True

    limits = Limits(seconds=3, cap=3, warm_up=0, timeout=0.3, errors=1)
    try:
        with Regions(client, messages(inputs(4)), slots=5) as shared:
            measured = measure(target(site.live, shared), shared.messages, Load(concurrency=2), limits, progress=stop)
            os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert measured.failed["DEADLINE_EXCEEDED"] == 5
    assert "no slot for outputs is free" in measured.failures["RESOURCE_EXHAUSTED"]
    assert sum(measured.failed.values()) + measured.completed == measured.sent == len(measured.records)
    assert len(measured.records[measured.records[:, 3] == 8]) < 500


def test_what_cannot_work_is_refused_before_anything_is_sent(site: Site, client: InferenceClient) -> None:
    what = messages(inputs(1))
    with InferenceClient(site.live.grpc) as stranger:
        for outputs in ({"Y": 16}, None):
            with pytest.raises(LoadInputError, match="does not take shared memory"):
                Regions(stranger, what, slots=1, outputs=outputs).__enter__()
    with pytest.raises(LoadInputError, match="bytes of shared memory: No space left"):
        Regions(client, what, slots=1, outputs={"Y": 2**50}).__enter__()
    wrong = message("m", {"nobody": np.ones((1, 2), np.float32)}, version=None, parameters={})
    with pytest.raises(LoadInputError, match="nobody"):
        Regions(client, (wrong,), slots=1).__enter__()
    assert (registered(client), files()) == ([], [])
    with Regions(client, what, slots=3) as shared:
        with pytest.raises(LoadInputError, match="3 slots in shared memory for 4 calls in flight in 2 processes"):
            measure(target(site.live, shared), shared.messages, Load(concurrency=4), SHORT, processes=2)
        with pytest.raises(LoadInputError, match="overwrite one another"):
            target(site.live, shared, Via("stream"))
