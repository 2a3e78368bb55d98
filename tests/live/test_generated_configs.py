# Acceptance 5: generated configs for every kind of graph load in a live Triton, which then answers as onnxruntime does.
from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Batching, Signature
from controlplane.domain.config_intent import Aim, GenerateRequest, Queue, RateLimit
from controlplane.domain.config_readback import mismatches
from controlplane.domain.config_revision import revision_config
from controlplane.domain.config_tree import messages
from controlplane.domain.servers import HostFacts
from controlplane.triton.config_fields import tree_of
from controlplane.triton.generate import generate
from controlplane.triton.golden import has_dynamic_lead
from controlplane.triton.inspect_graph import open_session, specs
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.onnx_graphs import Array, Graph, graphs, write
from tests.live.runtime.models import as_inputs, assert_same, expected, load
from tests.live.servers import LiveTriton

GRAPHS = graphs()
HOST = HostFacts(cpu_cores=2, gpus=0, memory_bytes=4 << 30)


def request_for(graph: Graph, directory: Path) -> GenerateRequest:
    """As registration would see the graph."""
    write(graph, directory)
    inputs, outputs = specs(open_session(directory, optimized=True))
    dynamic = all(has_dynamic_lead(spec) for spec in (*inputs, *outputs))
    batching = Batching.BATCHABLE if graph.batchable else Batching.MIXES_ROWS if dynamic else Batching.FIXED
    shapes = {name: value.shape for name, value in graph.inputs.items()}
    return GenerateRequest(
        graph.name, Signature(inputs, outputs, batching, 17, 8, "test"), HOST, embedded=True, golden_shapes=shapes
    )


def deploy(server: LiveTriton, graph: Graph, request: GenerateRequest) -> JsonObject:
    """Load it and return the config, once Triton has reported it as foretold."""
    config = generate(request).config
    written = revision_config(config, [1])
    codec = PbtxtCodec()
    directory = server.repository / request.model
    write(graph, directory / "1")
    (directory / "config.pbtxt").write_text(codec.render(written))
    load(server, request.model)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        reported = tree_of(client.get_model_config(request.model).config)
    assert mismatches(written, reported) == ()
    return config


def unload(server: LiveTriton, model: str) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.unload_model(model, headers=server.headers)


def columns(config: JsonObject, side: str, values: dict[str, Array]) -> dict[str, Array]:
    """A batched tensor without inner dims travels as [rows, 1]."""
    reshaped = {str(tensor["name"]) for tensor in messages(config[side]) if "reshape" in tensor}
    return {name: value.reshape(-1, 1) if name in reshaped else value for name, value in values.items()}


def ask(server: LiveTriton, model: str, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        result = client.infer(model, as_inputs(inputs), client_timeout=60)
    return {name: result.as_numpy(name) for name in outputs}


def batches(server: LiveTriton, model: str, count: int) -> list[int]:
    """The sizes of the batches that ran, once there are `count`: Triton counts a batch after it has answered."""
    deadline = time.monotonic() + 60
    while True:
        with grpcclient.InferenceServerClient(server.grpc) as client:
            (statistics,) = client.get_inference_statistics(model).model_stats
        sizes = [batch.batch_size for batch in statistics.batch_stats]
        if len(sizes) >= count or time.monotonic() > deadline:
            return sizes
        time.sleep(0.02)


def test_acceptance_5_there_are_graphs_of_every_kind() -> None:
    """At least twenty: fixed batch, no batch, rank 0, strings, several inputs, dynamic inner dims, awkward names."""
    names = {graph.name for graph in GRAPHS}
    assert len(names) == len(GRAPHS) >= 20
    assert names >= {"fixed_batch_of_four", "rows_against_rows", "scalar", "strings", "several_inputs"}
    assert names >= {"dynamic_inner_dims", "names_with_blanks", "names_with_quotes", "names_in_unicode"}


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_acceptance_5_a_generated_config_loads_and_the_model_answers_as_onnxruntime_does(
    triton: LiveTriton, graph: Graph, tmp_path: Path
) -> None:
    request = dataclasses.replace(request_for(graph, tmp_path), model=f"generated_{graph.name}")
    config = deploy(triton, graph, request)
    assert (config.get("max_batch_size", 0) != 0) is graph.batchable
    wanted = columns(config, "output", expected(graph, graph.inputs, tmp_path / "wanted"))
    assert_same(ask(triton, request.model, columns(config, "input", graph.inputs), list(wanted)), wanted)
    unload(triton, request.model)


@pytest.mark.parametrize("graph", [graph for graph in GRAPHS if graph.batchable], ids=lambda graph: graph.name)
def test_with_every_option_rows_that_are_joined_are_answered_as_if_alone(
    triton: LiveTriton, graph: Graph, tmp_path: Path
) -> None:
    request = dataclasses.replace(
        request_for(graph, tmp_path),
        model=f"joined_{graph.name}",
        aim=Aim.THROUGHPUT,
        instances=1,
        max_batch_size=3,
        max_queue_delay_us=20_000_000,
        preferred_batch_sizes=(3,),
        priority_levels=2,
        queue=Queue(timeout_us=60_000_000, delay=True, clients_decide=True, max_size=100),
        rate_limit=RateLimit({"cpu": 1}, priority=2),
        response_cache=True,
        warmup=True,
        parallel_execution=True,
    )
    config = deploy(triton, graph, request)
    wanted = columns(config, "output", expected(graph, graph.inputs, tmp_path / "wanted"))
    inputs = columns(config, "input", graph.inputs)
    rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(3)]
    start = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda row: ask(triton, request.model, row, list(wanted)), rows))
    assert time.monotonic() - start < 15  # nobody waited for the delay: the three were one batch
    assert_same({name: np.concatenate([answer[name] for answer in answers]) for name in wanted}, wanted)
    assert batches(triton, request.model, 2) == [1, 3]  # the warm-up, and the three together
    unload(triton, request.model)
