# Requests over ModelStreamInfer against a real Triton server: none, one and several responses, errors inside, ordinary models.
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient, Tensor, decode_response
from clients.load.calls import Call
from clients.load.measure import Limits, Load, Target, measure
from clients.load.messages import message
from clients.load.outcomes import STATUS, TAG
from clients.load.schedule import Curve
from clients.load.server import settled, statistics
from clients.load.transports import Via, open_transport
from tests.live.restarted import Restarted
from tests.live.scaling import Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

SHORT = Limits(seconds=1.5, cap=1.5, warm_up=0.1)
STREAM = Via("stream")
PAUSE = 0.02

COUNTING = f"""
import time, numpy as np, triton_python_backend_utils as pb
FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count, fail = pb.get_input_tensor_by_name(request, "COUNT").as_numpy().tolist()
            for number in range(count):
                time.sleep({PAUSE})
                answer = pb.InferenceResponse([pb.Tensor("Y", np.array([number], np.int32))])
                # an even count ends with its last response, an odd one with an empty one
                sender.send(answer, flags=FINAL if count % 2 == 0 and number == count - 1 and not fail else 0)
            if fail:
                sender.send(pb.InferenceResponse(error=pb.TritonError("no luck")), flags=FINAL if fail == 2 else 0)
            if fail == 1 or (not fail and (count == 0 or count % 2)):
                sender.send(flags=FINAL)
"""
COUNTING_CONFIG = """backend: "python" max_batch_size: 0 model_transaction_policy { decoupled: true }
    input { name: "COUNT" data_type: TYPE_INT32 dims: 2 }
    output { name: "Y" data_type: TYPE_INT32 dims: 1 }
    instance_group { count: 1 kind: KIND_CPU }"""


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    if not opened.ready("counting"):
        directory = opened.repository.root / "counting" / "1"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.py").write_text(COUNTING)
        opened.repository.write_config("counting", COUNTING_CONFIG)
        opened.load("counting")
    yield opened
    opened.server.close()


def target(live: LiveTriton, via: Via = STREAM) -> Target:
    host, port = live.grpc.split(":")
    return Target(host, int(port), via=via)


def asking(*pairs: tuple[int, int]) -> tuple[bytes, ...]:
    """Requests for so many responses, and how to fail: 0 not, 1 with an end of its own, 2 as the end."""
    tensors: list[dict[str, Tensor]] = [{"COUNT": np.array(pair, np.int32)} for pair in pairs]
    return tuple(message("counting", one, version=None, parameters={}) for one in tensors)


def test_the_responses_of_a_decoupled_model_are_counted_and_timed(site: Site) -> None:
    measured = measure(target(site.live), asking((3, 0), (4, 0)), Load(concurrency=1), SHORT)
    seen = measured.streaming
    assert (measured.failed, measured.transport) == ({}, "stream")
    assert seen is not None
    threes, fours = ((measured.records[:, TAG] == tag).sum() for tag in (0, 1))
    assert len(seen.rows) == 3 * threes + 4 * fours > 15
    assert (seen.fewest, seen.most) == (3, 4)
    assert seen.responses == pytest.approx(seen.mean * measured.completed)
    # Two more come after the first, each after a pause: what a busy host adds changes the most of each, and not that.
    assert PAUSE <= seen.first_sent[50.0].value < measured.latency.sent[50.0].value - PAUSE
    assert PAUSE * 0.8 <= seen.between[50.0].value < 10 * PAUSE
    assert 3 * PAUSE <= measured.latency.sent[50.0].value < 40 * PAUSE
    assert seen.between[50.0].low <= seen.between[50.0].value <= seen.between[50.0].high


def test_an_empty_last_response_ends_a_request_and_is_no_answer(site: Site) -> None:
    measured = measure(target(site.live), asking((0, 0), (1, 0)), Load(concurrency=4), SHORT, connections=2)
    seen = measured.streaming
    assert measured.failed == {}
    assert seen is not None
    assert (seen.fewest, seen.most) == (0, 1)
    assert len(seen.rows) == (measured.records[:, TAG] == 1).sum() > 5
    assert np.isnan(seen.between[50.0].value)


@pytest.mark.parametrize("fail", [1, 2])
def test_an_error_inside_the_stream_is_its_requests_alone(site: Site, fail: int) -> None:
    what = asking((2, 0), (1, fail), (0, fail))
    measured = measure(target(site.live), what, Load(concurrency=3), SHORT)
    records, seen = measured.records, measured.streaming
    assert seen is not None
    assert set(measured.failed) == {"UNKNOWN"}
    assert measured.failures == {"UNKNOWN": "no luck"}
    assert set(records[records[:, TAG] == 0][:, STATUS]) == {0}
    assert set(records[records[:, TAG] > 0][:, STATUS]) == {2}
    assert (seen.fewest, seen.mean, seen.most) == (2, 2, 2)
    assert len(seen.rows) == 2 * (records[:, TAG] == 0).sum() + (records[:, TAG] == 1).sum()


@pytest.mark.parametrize("load", [Load(concurrency=6), Load(curve=Curve.flat(100))], ids=["closed", "open"])
def test_an_ordinary_model_over_streams_gives_one_response_each(site: Site, load: Load) -> None:
    if not site.ready("streamed"):
        site.write("streamed", {1: 3}, config())
        site.load("streamed")
    what = message("streamed", {"X": np.ones((1, 2), np.float32)}, version=None, parameters={})
    with InferenceClient(site.live.grpc) as client:
        before = statistics(client, "streamed", version=1)
        measured = measure(
            target(site.live, Via("stream", compression="gzip")), (what,), load, SHORT, processes=2, connections=2
        )
        shares = settled(
            lambda: statistics(client, "streamed", version=1) - before,
            lambda seen: seen.succeeded >= len(measured.records),
        )
    seen = measured.streaming
    assert seen is not None
    assert (measured.failed, measured.transport) == ({}, "stream with gzip")
    assert len(measured.records) == len(seen.rows) == shares.succeeded > 5
    assert (seen.fewest, seen.mean, seen.most) == (1, 1, 1)


def test_load_acceptance_6_a_stream_whose_server_is_killed_fails_its_calls_and_is_opened_again(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config())
    opened.load("m")
    what = message("m", {"X": np.ones((1, 2), np.float32)}, version=None, parameters={})
    restarted = Restarted(opened.live.process)
    limits = Limits(seconds=90, cap=90, warm_up=0.1, errors=1, timeout=5)
    measured = measure(target(opened.live), (what,), Load(concurrency=4), limits, connections=2, progress=restarted)
    records = measured.records
    lost = records[records[:, STATUS] == 14]
    assert len(records) == (records[:, STATUS] == 0).sum() + len(lost) + sum(
        int((records[:, STATUS] == code).sum()) for code in range(1, 17) if code != 14
    )
    assert 0 < len(lost) < 125 * max(restarted.seconds, 8), "no storm of connections"
    assert records[records[:, STATUS] == 0][-1, 2] > lost[0, 2], "answers came again"
    assert measured.reconnects > 0
    opened.live.process.wait_ready(60)
    opened.server.close()


def test_the_first_response_is_kept_where_answers_are_wanted(site: Site) -> None:
    host, port = site.live.grpc.split(":")
    sender = open_transport((host, int(port)), "", (), STREAM, connections=1, keep=True, clock=time.monotonic_ns)
    sender.connect()
    call = Call(0, 0, 0, asking((3, 0))[0])
    sender.issue(call)
    ended = sender.turn(60)
    assert ended == [call]
    assert call.body is not None
    assert decode_response(bytes(call.body[5:])).outputs["Y"].tolist() == [0]
    assert call.times is not None
    assert len(call.times) == 3
    assert sender.close() == []
