# The load generator against a real Triton server: its counts are the server's, and nothing hangs when things go wrong.
from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient
from clients.load.calibrate import calibrate
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.messages import message, random_inputs, shapes
from clients.load.schedule import Curve
from clients.load.server import settled, statistics
from tests.live.python_models import serve
from tests.live.restarted import Restarted
from tests.live.scaling import Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

SHORT = Limits(seconds=1.5, cap=1.5, warm_up=0.2)


@pytest.fixture
def site(make_triton: MakeTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config())
    opened.load("m")
    yield opened
    opened.server.close()


def target(live: LiveTriton) -> Target:
    host, port = live.grpc.split(":")
    return Target(host, int(port))


def messages(live: LiveTriton, model: str = "m") -> tuple[bytes, ...]:
    with InferenceClient(live.grpc) as client:
        specs = client.inputs(model, deadline_seconds=10)
    whole = shapes(specs, batch=2, batched=True, given={})
    random = np.random.default_rng(0)
    drawn = [random_inputs(specs, whole, low=0, high=1, random=random) for _ in range(8)]
    return tuple(message(model, inputs, version=None, parameters={}) for inputs in drawn)


def ended(measured: Measurement, status: int = 0) -> int:
    return int((measured.records[:, 3] == status).sum())


@pytest.mark.parametrize(("processes", "connections"), [(1, 1), (2, 3)])
def test_load_acceptance_2_its_count_is_the_servers(site: Site, processes: int, connections: int) -> None:
    what = messages(site.live)
    with InferenceClient(site.live.grpc) as client:
        before = statistics(client, "m", version=1)
        measured = measure(
            target(site.live), what, Load(concurrency=6), SHORT, processes=processes, connections=connections
        )
        shares = settled(
            lambda: statistics(client, "m", version=1) - before,
            lambda seen: seen.succeeded >= len(measured.records),
        )
    assert measured.failed == {}
    assert ended(measured) == len(measured.records) == shares.succeeded > 5
    assert shares.inferences == 2 * shares.succeeded
    assert sum(size * count for size, count in shares.batches.items()) == shares.inferences


@pytest.mark.parametrize("concurrency", [1, 6])
def test_load_acceptance_2_its_latency_less_the_servers_is_network_and_client(site: Site, concurrency: int) -> None:
    """What a calibrated call takes with nothing else in flight is the least. The most is ten times that and what a
    calibrated call takes among as many: a model's answer passes through more of the server's threads than the answer that it
    lives, and a shared machine lets each of them wait. Two of five interleaved rounds, for the same reason: what a busy host
    takes away it takes from some of them."""
    what, limits = messages(site.live), Limits(seconds=0.5, cap=0.5, warm_up=0.1)
    rounds = []
    for _ in range(5):
        calibration = calibrate(target(site.live), concurrency=concurrency, processes=1, connections=1, seconds=0.3)
        with InferenceClient(site.live.grpc) as client:
            before = statistics(client, "m", version=1)
            measured = measure(target(site.live), what, Load(concurrency=concurrency), limits)
            of_server = (statistics(client, "m", version=1) - before).mean_us("total")
        assert of_server is not None
        of_client = float((measured.records[:, 2] - measured.records[:, 1]).mean()) / 1e9
        among = concurrency / calibration.ceiling  # Little's law
        rounds.append((of_client - of_server / 1e6, calibration.floor, among))
    rest, floor, among = np.transpose(rounds)
    assert np.median(rest) > 0
    assert np.sort(rest / floor)[-2] > 0.5
    assert np.sort(rest / (floor + among))[1] < 10


def test_load_acceptance_3_a_stall_shows_in_the_latency_from_when_a_call_was_due(site: Site) -> None:
    """100 a second, one at a time, stopped for 1 s. The call that is due x seconds into the stall waits 1 - x for its end at least,
    so 100 (1 - t) wait longer than t seconds. How many do exactly, with those that queue behind them and whatever else the
    machine does, Lindley's recursion says from the latencies from when they were sent and the client's own delays."""
    what, pid = messages(site.live), site.live.process.state.pid
    assert pid is not None

    def stall() -> None:
        time.sleep(2.5)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1)  # at the least, whenever it began
        os.kill(pid, signal.SIGCONT)

    stalling = threading.Thread(target=stall)

    def begin(_seconds: float, _records: object) -> bool:
        if stalling.ident is None:
            stalling.start()
        return True

    load = Load(curve=Curve.flat(100), process="even", most=1)
    try:
        measured = measure(target(site.live), what, load, Limits(seconds=4, cap=4.5, warm_up=0.5), progress=begin)
    finally:
        if stalling.ident is not None:
            stalling.join()
    records = measured.records[measured.records[:, 3] == 0]
    waited, of_send = (records[:, 2] - records[:, 0]) / 1e9, (records[:, 2] - records[:, 1]) / 1e9
    free = np.concatenate([records[:1, 0], np.maximum(records[1:, 0], records[:-1, 2])])
    taken = of_send + (records[:, 1] - free) / 1e9
    gaps, queued = np.diff(records[:, 0]) / 1e9, [0.0]
    for gap, served in zip(gaps, taken, strict=False):
        queued.append(max(queued[-1] + served - gap, 0.0))
    theory = np.array(queued) + taken
    for seconds in (0.3, 0.5, 0.7):
        stalled = int((waited > seconds).sum())
        assert stalled >= 100 * (1 - seconds) - 5
        assert stalled == pytest.approx(int((theory > seconds).sum()), rel=0.1, abs=5)
    assert int((of_send > 0.7).sum()) == 1  # only the one that was under way: the others were not sent meanwhile


def test_load_acceptance_6_a_wrong_input_name_fails_every_call_and_says_why(site: Site) -> None:
    wrong = message("m", {"nobody": np.ones((1, 2), np.float32)}, version=None, parameters={})
    measured = measure(target(site.live), (wrong,), Load(concurrency=2), SHORT)
    assert (measured.verdict, measured.completed) == ("errors", 0)
    assert set(measured.failed) == {"INVALID_ARGUMENT"}
    assert "nobody" in measured.failures["INVALID_ARGUMENT"]


def test_load_acceptance_6_refused_connections_are_failures_and_no_storm() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = Target("127.0.0.1", taken.getsockname()[1])
    begun = time.monotonic()
    measured = measure(nobody, (b"\0\0\0\0\0",), Load(concurrency=4), SHORT)
    assert time.monotonic() - begun < 60
    assert set(measured.failed) == {"UNAVAILABLE"}
    assert "no connection to 127.0.0.1" in measured.failures["UNAVAILABLE"]
    assert 0 < len(measured.records) < 1000


@pytest.mark.parametrize("load", [Load(concurrency=4), Load(curve=Curve.flat(300))], ids=["closed", "open"])
def test_load_acceptance_6_a_server_killed_in_the_middle_and_started_again_is_found_again(
    site: Site, load: Load
) -> None:
    what = messages(site.live)
    limits = Limits(seconds=90, cap=90, warm_up=0.2, errors=1, timeout=5)
    measured = measure(target(site.live), what, load, limits, progress=Restarted(site.live.process))
    assert ended(measured) + sum(ended(measured, code) for code in range(1, 17)) == len(measured.records)
    assert ended(measured, 14) > 0
    last = measured.records[measured.records[:, 3] == 0][-1]
    assert last[2] > measured.records[measured.records[:, 3] == 14][0][2], "answers came again"
    site.live.process.wait_ready(60)


def test_load_acceptance_6_a_request_of_64_megabytes_and_its_answer_pass(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config().replace("max_batch_size: 8", f"max_batch_size: {2**23}"))
    opened.load("m")
    rows = np.ones((2**23, 2), np.float32)
    large = message("m", {"X": rows}, version=None, parameters={})
    measured = measure(target(opened.live), (large,), Load(concurrency=2), Limits(seconds=1, cap=3, warm_up=0, count=4))
    assert set(measured.failed) == set()
    assert ended(measured) >= 4
    opened.server.close()


SLOW = """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(6)
        rows = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", row.as_numpy())]) for row in rows]
"""
SLOW_CONFIG = """backend: "python" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: 1 }
    output { name: "Y" data_type: TYPE_FP32 dims: 1 }
    instance_group { count: 1 kind: KIND_CPU }"""


def test_answers_that_take_longer_than_usual_are_awaited_after_the_stop(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    """Six seconds each: those that are under way at the end are no failures."""
    opened = open_site(make_triton(), tmp_path)
    serve(opened, "slow", SLOW_CONFIG, SLOW)
    what = message("slow", {"X": np.ones((1, 1), np.float32)}, version=None, parameters={})
    limits = Limits(seconds=9, cap=9, warm_up=0)  # the second is sent after 6 s, the third would be after 12
    measured = measure(target(opened.live), (what,), Load(concurrency=1), limits)
    assert (measured.failed, measured.completed) == ({}, 2)
    opened.server.close()
