# The wire format of clients/inference.py, with protobuf itself as the referee.
from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from clients.inference import InferenceError, Tensor, decode_response, encode_request


def echo(request: bytes) -> bytes:
    """The response that gives a request's inputs back, made by protobuf alone."""
    asked = service_pb2.ModelInferRequest.FromString(request)
    answer = service_pb2.ModelInferResponse(model_name=asked.model_name, model_version="7", id=asked.id)
    for tensor, raw in zip(asked.inputs, asked.raw_input_contents, strict=True):
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        answer.raw_output_contents.append(raw)
    return bytes(answer.SerializeToString())


ARRAYS: list[tuple[str, Tensor]] = [
    ("BOOL", np.array([[True, False]])),
    *((f"UINT{8 * n}", np.arange(6, dtype=f"u{n}").reshape(2, 3)) for n in (1, 2, 4, 8)),
    *((f"INT{8 * n}", np.arange(-3, 3, dtype=f"i{n}").reshape(2, 3)) for n in (1, 2, 4, 8)),
    *((f"FP{8 * n}", np.linspace(-1, 1, 6, dtype=f"f{n}").reshape(3, 2)) for n in (2, 4, 8)),
    ("FP32", np.empty((0, 4), dtype=np.float32)),
    ("FP32", np.array(1.5, dtype=np.float32)),
    ("BYTES", np.array([[b"", b"\x00\xff"], ["é".encode(), b"x" * 300]], dtype=np.object_)),
]


@pytest.mark.parametrize(("datatype", "array"), ARRAYS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_tensor_of_every_datatype_comes_back_as_it_went(datatype: str, array: Tensor) -> None:
    request = encode_request("m", {"X": array})
    assert service_pb2.ModelInferRequest.FromString(request).inputs[0].datatype == datatype
    got = decode_response(echo(request)).outputs["X"]
    assert (got.dtype, got.shape, got.tolist()) == (array.dtype, array.shape, array.tolist())
    assert got.flags.writeable
    assert got.flags.aligned


def test_a_request_says_everything_that_was_asked() -> None:
    request = encode_request(
        "m",
        {"A": np.array([1], dtype=np.int64), "B": np.array([2], dtype=np.uint8)},
        version=3,
        outputs=["Y"],
        request_id="probe/1",
        sequence=(9, True, False),
        parameters={"priority": 2, "tag": "x"},
    )
    message = service_pb2.ModelInferRequest.FromString(request)
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "probe/1")
    assert [o.name for o in message.outputs] == ["Y"]
    assert [(i.name, i.datatype, list(i.shape)) for i in message.inputs] == [("A", "INT64", [1]), ("B", "UINT8", [1])]
    assert list(message.raw_input_contents) == [b"\1" + b"\0" * 7, b"\2"]
    assert {k: (v.WhichOneof("parameter_choice"), v.int64_param) for k, v in message.parameters.items()} == {
        "sequence_id": ("int64_param", 9),
        "sequence_start": ("bool_param", 0),
        "sequence_end": ("bool_param", 0),
        "priority": ("int64_param", 2),
        "tag": ("string_param", 0),
    }
    assert message.parameters["sequence_start"].bool_param
    assert not message.parameters["sequence_end"].bool_param


def test_arrays_in_other_orders_are_sent_as_row_major_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    request = service_pb2.ModelInferRequest.FromString(encode_request("m", {"X": array}))
    assert list(request.inputs[0].shape) == [3, 2]
    assert np.frombuffer(request.raw_input_contents[0], "<i4").tolist() == [0, 3, 1, 4, 2, 5]


def test_text_is_sent_as_utf_8_and_bfloat16_arrives_as_float32() -> None:
    texts: Tensor = np.array(["é", "b"])
    assert decode_response(echo(encode_request("m", {"X": texts}))).outputs["X"].tolist() == ["é".encode(), b"b"]
    answer = service_pb2.ModelInferResponse(raw_output_contents=[b"\xc0\x3f\x80\xbf"])
    answer.outputs.add(name="Y", datatype="BF16", shape=[2])
    got = decode_response(answer.SerializeToString()).outputs["Y"]
    assert (got.dtype, got.tolist()) == (np.dtype(np.float32), [1.5, -1.0])


def test_an_array_without_a_triton_datatype_is_refused_by_name() -> None:
    with pytest.raises(InferenceError, match="input 'X': Triton has no datatype for numpy's complex128") as caught:
        encode_request("m", {"X": np.array([1j])})
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(InferenceError, match="int is neither bytes nor str"):
        encode_request("m", {"X": np.array([1], dtype=np.object_)})


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", b"\0" * 7), ("FP32", b"\0" * 12), ("BYTES", b"\5\0\0\0ab"), ("BYTES", b"\5"), ("FP8", b"1")],
)
def test_a_tensor_that_does_not_fit_its_shape_is_refused(datatype: str, raw: bytes) -> None:
    answer = service_pb2.ModelInferResponse(raw_output_contents=[raw])
    answer.outputs.add(name="Y", datatype=datatype, shape=[2])
    with pytest.raises(InferenceError, match="output 'Y'"):
        decode_response(answer.SerializeToString())


def test_fields_of_a_later_protocol_are_passed_over() -> None:
    later = b"\xf8\x06\x2a"  # field 111, a varint
    answer = decode_response(later + echo(encode_request("m", {"X": np.array([4], dtype=np.int8)}, request_id="r")))
    assert (answer.model, answer.version, answer.request_id) == ("m", "7", "r")
    assert answer.outputs["X"].tolist() == [4]
