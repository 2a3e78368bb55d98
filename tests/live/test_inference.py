# The inference client against a real Triton server.
from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from clients.inference import InferenceClient, InferenceError, Tensor, Tls
from tests.live.certificates import authority_and_client
from tests.live.scaling import ROW, Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

DATATYPES = {
    "bool": ("TYPE_BOOL", np.array([[True], [False]])),
    "uint8": ("TYPE_UINT8", np.array([[0], [255]], dtype=np.uint8)),
    "int8": ("TYPE_INT8", np.array([[-128], [127]], dtype=np.int8)),
    "int32": ("TYPE_INT32", np.array([[-(2**31)], [2**31 - 1]], dtype=np.int32)),
    "int64": ("TYPE_INT64", np.array([[-(2**63)], [2**63 - 1]], dtype=np.int64)),
    "uint64": ("TYPE_UINT64", np.array([[0], [2**64 - 1]], dtype=np.uint64)),
    "float16": ("TYPE_FP16", np.array([[1.5], [-65504]], dtype=np.float16)),
    "float": ("TYPE_FP32", np.array([[np.pi], [-np.inf]], dtype=np.float32)),
    "double": ("TYPE_FP64", np.array([[np.pi], [1e-300]], dtype=np.float64)),
    "string": ("TYPE_STRING", np.array([["é\0".encode()], [b""]], dtype=np.object_)),
}


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    yield opened
    opened.server.close()


@pytest.fixture
def client(triton: LiveTriton) -> Iterator[InferenceClient]:
    with InferenceClient(triton.grpc) as opened:
        yield opened


def put(site: Site, name: str, body: str, text: str) -> None:
    directory = site.repository.root / name / "1"
    directory.mkdir(parents=True)
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}')
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    site.repository.write_config(name, text)
    site.load(name)


def test_tensors_of_all_datatypes_and_strings_pass_through_a_model_unchanged(
    site: Site, client: InferenceClient
) -> None:
    names = list(DATATYPES)
    inputs = ", ".join(f"{name}[N, 1] in_{name}" for name in names)
    outputs = ", ".join(f"{name}[N, 1] out_{name}" for name in names)
    nodes = " ".join(f"out_{name} = Identity(in_{name})" for name in names)
    entries = "".join(
        f'{side} {{ name: "{prefix}_{name}" data_type: {DATATYPES[name][0]} dims: 1 }}\n'
        for side, prefix in (("input", "in"), ("output", "out"))
        for name in names
    )
    put(
        site,
        "types",
        f"types ({inputs}) => ({outputs}) {{ {nodes} }}",
        f'backend: "onnxruntime" max_batch_size: 4 {entries}',
    )
    sent: dict[str, Tensor] = {f"in_{name}": array for name, (_, array) in DATATYPES.items()}
    answer = client.infer("types", sent, deadline_seconds=10, request_id="r7")
    assert (answer.model, answer.version, answer.request_id) == ("types", "1", "r7")
    assert {name: (array.dtype, array.tolist()) for name, array in answer.outputs.items()} == {
        f"out_{name}": (array.dtype, array.tolist()) for name, (_, array) in DATATYPES.items()
    }
    chosen = client.infer("types", sent, outputs=["out_int8"], deadline_seconds=60)
    assert list(chosen.outputs) == ["out_int8"]


def test_messages_far_larger_than_grpcs_default_pass(site: Site, client: InferenceClient) -> None:
    entry = "data_type: TYPE_FP32 dims: [-1] }"
    put(
        site,
        "large",
        "large (float[M] X) => (float[M] Y) { Y = Identity(X) }",
        f'backend: "onnxruntime" input {{ name: "X" {entry} output {{ name: "Y" {entry}',
    )
    array = np.random.default_rng(1).random(8_000_000, dtype=np.float32)
    answer = client.infer("large", {"X": array}, deadline_seconds=90)
    assert np.array_equal(answer.outputs["Y"], array)


def test_a_version_that_is_not_there_and_a_deadline_that_passes_have_their_codes(
    site: Site, client: InferenceClient
) -> None:
    site.write("codes", {1: 3}, config())
    site.load("codes")
    assert client.ready("codes", deadline_seconds=30)
    assert client.ready("codes", version=1, deadline_seconds=30)
    assert not client.ready("nothing", deadline_seconds=30)
    with pytest.raises(InferenceError) as caught:
        client.infer("codes", ROW, version=4, deadline_seconds=30)
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(InferenceError) as caught:
        client.infer("codes", {"X": np.zeros((1, 3), dtype=np.float32)}, deadline_seconds=30)
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(InferenceError) as caught:
        client.infer("codes", ROW, deadline_seconds=0.000001)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert client.infer("codes", ROW, version=1, deadline_seconds=30).outputs["Y"].tolist() == [[3, 6]]


def test_one_client_serves_many_threads(site: Site, client: InferenceClient) -> None:
    site.write("threads", {1: 3}, config(instances=2))
    site.load("threads")
    wrong: list[object] = []

    def ask(number: int) -> None:
        for step in range(25):
            rows = np.array([[number, step]], dtype=np.float32)
            got = client.infer("threads", {"X": rows}, deadline_seconds=60).outputs["Y"].tolist()
            if got != [[3 * number, 3 * step]]:
                wrong.append(got)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_mutual_tls_lets_in_whoever_has_a_certificate_and_nobody_else(make_triton: MakeTriton, tmp_path: Path) -> None:
    root, certificate, key = authority_and_client(tmp_path)
    live = make_triton(
        extra_arguments=(
            "--grpc-use-ssl-mutual=1",
            f"--grpc-server-cert={tmp_path}/server.pem",
            f"--grpc-server-key={tmp_path}/server.key",
            f"--grpc-root-cert={tmp_path}/authority.pem",
        )
    )
    cases = {
        "with a certificate": (Tls(root, certificate, key), True),
        "without": (Tls(root), False),
        "of an unknown authority": (Tls(certificate, certificate, key), False),
        "in clear": (None, False),
    }
    answers = {}
    for name, (tls, _) in cases.items():
        with InferenceClient(live.grpc, tls=tls) as client:
            answers[name] = client.live(deadline_seconds=10)
    assert answers == {name: expected for name, (_, expected) in cases.items()}
