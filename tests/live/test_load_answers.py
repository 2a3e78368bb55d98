# What the load generator's transports receive from a real Triton server: the same bytes as grpcio, of every datatype.
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients.inference import InferenceClient, Tensor
from clients.load.calls import Call
from clients.load.measure import INFER, Limits, Load, Target, measure
from clients.load.messages import message
from clients.load.outcomes import STATUS, TAG
from clients.load.schedule import Curve
from clients.load.shared_memory import Regions
from clients.load.transports import Via, open_transport
from tests.live.python_models import serve
from tests.live.scaling import Site, open_site
from tests.live.servers import LiveTriton

SIZES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2, "BYTES": 0,
}  # fmt: skip

SAME = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse([self.same(request, name) for name in %r if self.given(request, name) is not None])
            for request in requests
        ]

    def given(self, request, name):
        return pb.get_input_tensor_by_name(request, name)

    def same(self, request, name):
        tensor = self.given(request, name)
        if name == "BF16":  # which numpy has not
            return pb.Tensor.from_dlpack("OF_" + name, tensor.to_dlpack())
        return pb.Tensor("OF_" + name, tensor.as_numpy())
""" % sorted(SIZES)  # noqa: UP031  # braces would have to be doubled

SAME_CONFIG = 'backend: "python" max_batch_size: 0 instance_group { count: 1 kind: KIND_CPU }' + "".join(
    f' input {{ name: "{name}" data_type: TYPE_{"STRING" if name == "BYTES" else name} dims: [-1, 3] optional: true }}'
    f' output {{ name: "OF_{name}" data_type: TYPE_{"STRING" if name == "BYTES" else name} dims: [-1, 3] }}'
    for name in SIZES
)

FAILING = """
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse(error=pb.TritonError("seven is no number"))
            if pb.get_input_tensor_by_name(request, "X").as_numpy()[0] == 7
            else pb.InferenceResponse([pb.Tensor("Y", pb.get_input_tensor_by_name(request, "X").as_numpy())])
            for request in requests
        ]
"""
FAILING_CONFIG = """backend: "python" max_batch_size: 0 instance_group { count: 1 kind: KIND_CPU }
    input { name: "X" data_type: TYPE_INT32 dims: 1 } output { name: "Y" data_type: TYPE_INT32 dims: 1 }"""


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    for model, text, code in (("same", SAME_CONFIG, SAME), ("failing", FAILING_CONFIG, FAILING)):
        if not (opened.repository.root / model).exists():
            serve(opened, model, text, code)
        else:
            opened.load(model)  # anew, should another test have brought the server down
    yield opened
    opened.server.close()


def raw(datatype: str, rows: int, rng: np.random.Generator) -> bytes:
    """Any bits that the type has, not-a-numbers with their payloads too."""
    if datatype == "BYTES":
        words = [b"", "é\0ü".encode(), b"\xff\xfe", *(rng.bytes(int(size)) for size in rng.integers(0, 300, 3 * rows))]
        return b"".join(len(word).to_bytes(4, "little") + word for word in words[: 3 * rows])
    if datatype == "BOOL":
        return rng.integers(0, 2, 3 * rows, np.uint8).tobytes()
    return rng.bytes(3 * rows * SIZES[datatype])


def request(datatypes: list[str], rows: int, seed: int) -> tuple[bytes, list[bytes]]:
    rng = np.random.default_rng(seed)
    asked = service_pb2.ModelInferRequest(model_name="same")
    for datatype in datatypes:
        asked.inputs.add(name=datatype, datatype=datatype, shape=[rows, 3])
        asked.raw_input_contents.append(raw(datatype, rows, rng))
    body = asked.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body, list(asked.raw_input_contents)


def answers(live: LiveTriton, via: Via, messages: list[bytes], shared: Regions | None = None) -> list[bytes]:
    host, port = live.grpc.split(":")
    transport = open_transport(
        (host, int(port)), INFER, (), via, connections=2, keep=True, clock=time.monotonic_ns,
        shared=None if shared is None else shared.slots,
    )  # fmt: skip
    transport.connect()
    now = time.monotonic_ns()
    for tag, one in enumerate(messages):
        transport.issue(Call(tag, now, now, one))
    ended: list[Call] = []
    while len(ended) < len(messages) and time.monotonic_ns() - now < 90e9:
        ended += transport.turn(0.1)
    assert transport.close() == []
    assert [call.status.message for call in ended if call.status is not None] == [""] * len(messages)
    return [bytes(call.body or b"")[5:] for call in sorted(ended, key=lambda call: call.tag)]


@pytest.mark.parametrize("datatype", SIZES)
def test_load_acceptance_7_answers_equal_grpcios_on_every_datatype(site: Site, datatype: str) -> None:
    made = [request([datatype], rows, seed) for seed, rows in enumerate((1, 2, 40_000))]
    messages = [one for one, _ in made]
    with grpc.insecure_channel(site.live.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        expected = [channel.unary_unary(INFER)(one[5:], timeout=90) for one in messages]
    assert answers(site.live, Via(), messages) == expected
    assert answers(site.live, Via("grpcio"), messages) == expected
    returned = [service_pb2.ModelInferResponse.FromString(body) for body in expected]
    assert [list(body.raw_output_contents) for body in returned] == [sent for _, sent in made]
    assert {output.datatype for body in returned for output in body.outputs} == {datatype}
    with InferenceClient(site.live.grpc, metadata=tuple(site.live.headers.items())) as client:  # noqa: SIM117
        with Regions(client, messages, slots=3) as shared:
            in_memory = answers(site.live, Via(), list(shared.messages), shared)
    assert [service_pb2.ModelInferResponse.FromString(body) for body in in_memory] == returned


def test_load_acceptance_7_answers_of_all_datatypes_together_equal_grpcios(site: Site) -> None:
    made, sent = request(list(SIZES), 5, seed=99)
    with grpc.insecure_channel(site.live.grpc) as channel:
        expected = channel.unary_unary(INFER)(made[5:], timeout=90)
    assert answers(site.live, Via(), [made] * 20) == [expected] * 20
    by_name = {
        output.name: content
        for body in [service_pb2.ModelInferResponse.FromString(expected)]
        for output, content in zip(body.outputs, body.raw_output_contents, strict=True)
    }
    assert by_name == {f"OF_{name}": content for name, content in zip(SIZES, sent, strict=True)}


@pytest.mark.parametrize("load", [Load(concurrency=4), Load(curve=Curve.flat(200))], ids=["closed", "open"])
@pytest.mark.parametrize("via", [Via(), Via("grpcio"), Via("stream")], ids=str)
def test_load_acceptance_6_a_model_that_fails_one_request_in_ten_fails_those_calls_alone(
    site: Site, via: Via, load: Load
) -> None:
    tensors: list[dict[str, Tensor]] = [{"X": np.array([number], np.int32)} for number in range(10)]
    what = tuple(message("failing", one, version=None, parameters={}) for one in tensors)
    host, port = site.live.grpc.split(":")
    measured = measure(Target(host, int(port), via=via), what, load, Limits(seconds=1, cap=1, warm_up=0.1, errors=0.2))
    records = measured.records
    code = 2 if via.kind == "stream" else 13
    failed = records[records[:, TAG] == 7]
    assert set(failed[:, STATUS]) == {code}
    assert set(records[records[:, TAG] != 7][:, STATUS]) == {0}
    assert len(records) / 10 - 2 <= len(failed) <= len(records) / 10 + 2
    assert list(measured.failures.values()) == ["seven is no number"]
    assert measured.completed + sum(measured.failed.values()) == measured.sent
    assert "errors" not in measured.verdict
