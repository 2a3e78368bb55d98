# A generated config is complete, explained, deterministic, and never one that Triton refuses.
from __future__ import annotations

import dataclasses

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Batching, Signature, TensorSpec
from controlplane.domain.config_intent import Accelerator, Aim, GenerateRequest, Kind, Queue, RateLimit, Reason
from controlplane.domain.config_lint import lint
from controlplane.domain.servers import HostFacts
from controlplane.errors import InvalidInput
from controlplane.triton.generate import generate
from controlplane.triton.pbtxt import PbtxtCodec

CPU = HostFacts(cpu_cores=16, gpus=0, memory_bytes=8 << 30)
GPU = HostFacts(cpu_cores=16, gpus=2, memory_bytes=8 << 30)
DIGITS = Signature(
    (TensorSpec("image", "TYPE_FP32", ("n", 28, "width")),),
    (TensorSpec("label", "TYPE_INT64", ("n",)), TensorSpec("scores", "TYPE_FP32", ("n", 10))),
    Batching.BATCHABLE,
    17,
    8,
    "test",
)
FIXED = Signature(
    (TensorSpec("x", "TYPE_FP32", (1, 3)), TensorSpec("step", "TYPE_INT64", ())),
    (TensorSpec("y", "TYPE_FP32", (1, None)),),
    Batching.FIXED,
    17,
    8,
    "test",
)
BASE = GenerateRequest("digits", DIGITS, CPU)


def test_a_config_for_latency_is_complete_and_every_choice_has_a_reason() -> None:
    generated = generate(BASE)
    assert generated.config == {
        "name": "digits",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": ["28", "-1"]}],
        "output": [
            {"name": "label", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}},
            {"name": "scores", "data_type": "TYPE_FP32", "dims": ["10"]},
        ],
        "dynamic_batching": {},
        "instance_group": [{"name": "cpu", "count": 1, "kind": "KIND_CPU"}],
        "parameters": {"intra_op_thread_count": {"string_value": "16"}},
    }
    assert generated.reasons == (
        Reason("max_batch_size", "8 for latency: each row was seen to be answered by itself"),
        Reason(
            'output["label"].dims', "Triton has no tensors without dims: clients send [rows, 1], the graph gets [rows]"
        ),
        Reason("dynamic_batching.max_queue_delay_microseconds", "no request waits for company, for latency"),
        Reason("dynamic_batching.preferred_batch_size", "left out: sizes that are no faster than others only delay"),
        Reason(
            "dynamic_batching.default_queue_policy",
            "left out: the queue has no limits, and a flood makes every answer late",
        ),
        Reason("instance_group[0].kind", "the host has no GPU"),
        Reason("instance_group[0].count", "1 for latency: one request may use all 16 cores"),
        Reason('parameters["intra_op_thread_count"]', "16 threads an instance, all 16 cores"),
    )


def test_a_config_for_throughput_runs_instances_beside_each_other_without_crowding_the_cores() -> None:
    config = generate(dataclasses.replace(BASE, aim=Aim.THROUGHPUT)).config
    assert (config["max_batch_size"], config["dynamic_batching"]) == (32, {"max_queue_delay_microseconds": "100"})
    assert config["instance_group"] == [{"name": "cpu", "count": 8, "kind": "KIND_CPU"}]
    assert config["parameters"] == {"intra_op_thread_count": {"string_value": "2"}}


def test_a_graph_without_variable_batch_gets_its_whole_dims_and_no_batching() -> None:
    config = generate(GenerateRequest("m", FIXED, CPU)).config
    assert config["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": ["1", "3"]},
        {"name": "step", "data_type": "TYPE_INT64", "dims": ["1"]},
    ]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": ["1", "-1"]}]
    assert {"max_batch_size", "dynamic_batching"} & set(config) == set()


@pytest.mark.parametrize("batching", [Batching.MIXES_ROWS, Batching.UNKNOWN])
def test_a_graph_that_is_not_known_to_batch_gets_no_batch_unless_asked(batching: Batching) -> None:
    request = dataclasses.replace(BASE, signature=dataclasses.replace(DIGITS, batching=batching))
    assert "max_batch_size" not in generate(request).config
    assert generate(dataclasses.replace(request, max_batch_size=4)).config["max_batch_size"] == 4


def test_every_wish_finds_its_field() -> None:
    request = dataclasses.replace(
        BASE,
        host=GPU,
        max_batch_size=16,
        instances=3,
        gpus=(1,),
        max_queue_delay_us=500,
        preferred_batch_sizes=(4, 8),
        preserve_ordering=True,
        priority_levels=1,
        queue=Queue(timeout_us=1000, delay=True, clients_decide=True, max_size=64),
        rate_limit=RateLimit({"b": 2, "a": 1}, priority=3),
        accelerator=Accelerator.TENSORRT,
        half_precision=True,
        cuda_graphs=True,
        response_cache=True,
        warmup=True,
        golden_shapes={"image": (5, 28, 30)},
        threads=2,
        parallel_execution=True,
    )
    assert generate(request).config == {
        "name": "digits",
        "backend": "onnxruntime",
        "max_batch_size": 16,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": ["28", "-1"]}],
        "output": [
            {"name": "label", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}},
            {"name": "scores", "data_type": "TYPE_FP32", "dims": ["10"]},
        ],
        "dynamic_batching": {
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": "500",
            "preserve_ordering": True,
            "priority_levels": "1",
            "default_priority_level": "1",
            "default_queue_policy": {
                "timeout_action": "DELAY",
                "default_timeout_microseconds": "1000",
                "allow_timeout_override": True,
                "max_queue_size": 64,
            },
        },
        "instance_group": [
            {
                "name": "gpu",
                "count": 3,
                "kind": "KIND_GPU",
                "gpus": [1],
                "rate_limiter": {"resources": [{"name": "a", "count": 1}, {"name": "b", "count": 2}], "priority": 3},
            }
        ],
        "optimization": {
            "execution_accelerators": {
                "gpu_execution_accelerator": [
                    {"name": "tensorrt", "parameters": {"precision_mode": "FP16", "trt_cuda_graph_enable": "1"}}
                ]
            }
        },
        "parameters": {"execution_mode": {"string_value": "1"}, "intra_op_thread_count": {"string_value": "2"}},
        "response_cache": {"enable": True},
        "model_warmup": [
            {
                "name": "first_request",
                "batch_size": 1,
                "count": 1,
                "inputs": {"image": {"data_type": "TYPE_FP32", "dims": ["28", "30"], "zero_data": True}},
            }
        ],
    }


def test_a_host_with_gpus_is_used_but_not_by_the_embedded_server() -> None:
    group = generate(dataclasses.replace(BASE, host=GPU)).config["instance_group"]
    assert group == [{"name": "gpu", "count": 1, "kind": "KIND_GPU", "gpus": [0, 1]}]
    embedded = generate(dataclasses.replace(BASE, host=GPU, embedded=True)).config["instance_group"]
    assert embedded == [{"name": "cpu", "count": 1, "kind": "KIND_CPU"}]


def test_openvino_is_for_the_cpu() -> None:
    config = generate(dataclasses.replace(BASE, accelerator=Accelerator.OPENVINO)).config
    assert config["optimization"] == {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}


WISHES: list[tuple[dict[str, object], str]] = [
    ({"max_batch_size": -1}, "max_batch_size cannot be -1"),
    ({"signature": FIXED, "max_batch_size": 4}, "max_batch_size cannot be 4: an input or output has no variable"),
    ({"max_batch_size": 0, "max_queue_delay_us": 5}, "nothing is joined with max_batch_size 0"),
    ({"max_batch_size": 1, "preferred_batch_sizes": (1,)}, "nothing is joined with max_batch_size 1"),
    ({"preferred_batch_sizes": (64,)}, "the preferred batch size 64 is over max_batch_size 8"),
    ({"priority_levels": 2, "default_priority_level": 3}, "default_priority_level is 3, the levels are 1 to 2"),
    ({"priority_levels": 2, "preserve_ordering": True}, "preserve_ordering does not go with 2 priority levels"),
    ({"instances": 0}, "0 instances cannot serve"),
    ({"threads": 0}, "0 threads cannot run"),
    ({"kind": Kind.GPU}, "instances cannot run on a GPU: the host has no GPU"),
    ({"kind": Kind.GPU, "host": GPU, "embedded": True}, "the embedded server runs on the CPU"),
    ({"host": GPU, "gpus": (2,)}, "there is no GPU 2: the host has 2"),
    ({"gpus": (0,)}, "GPUs are named for instances on the CPU"),
    ({"accelerator": Accelerator.TENSORRT}, "TensorRT runs on a GPU, and the instances run on the CPU"),
    ({"accelerator": Accelerator.OPENVINO, "host": GPU}, "OpenVINO runs on the CPU, and the instances run on a GPU"),
    ({"accelerator": Accelerator.OPENVINO, "embedded": True}, "the embedded server has no openvino"),
    ({"cuda_graphs": True, "host": GPU}, "onnxruntime in Triton has CUDA graphs only through TensorRT"),
    ({"half_precision": True}, "onnxruntime in Triton has half precision only through TensorRT"),
    ({"warmup": True}, "warm-up needs a size for each dim of input 'image'"),
    ({"model": "a;b"}, "name 'a;b' is not allowed"),
    ({"signature": dataclasses.replace(DIGITS, inputs=())}, "the config lists no input"),
]


@pytest.mark.parametrize(("wish", "message"), WISHES)
def test_a_wish_that_does_not_fit_is_refused_with_the_reason(wish: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        generate(dataclasses.replace(BASE, **wish))  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("aim", Aim)
@pytest.mark.parametrize("host", [CPU, GPU, HostFacts(1, 0, 1 << 30)])
@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("signature", [DIGITS, FIXED])
def test_a_generated_config_is_in_normal_form_without_findings_and_always_the_same(
    aim: Aim, host: HostFacts, embedded: bool, signature: Signature
) -> None:
    request = GenerateRequest("m", signature, host, embedded=embedded, aim=aim)
    config: JsonObject = generate(request).config
    assert lint(config, model="m", signatures={1: signature}, host=host, embedded=embedded) == ()
    codec = PbtxtCodec()
    assert codec.parse(codec.render(config)) == config
    assert generate(request) == generate(request)
    assert "version_policy" not in config
