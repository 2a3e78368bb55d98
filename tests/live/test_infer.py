# What `tritonctl infer` says of the user's own mistakes, as a real Triton server refuses them.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from clients.control.errors import ApiError
from clients.control.types import Server
from clients.inference import Tensor
from controlplane.cli.infer import ask
from tests.live.scaling import ROW, Site, config, open_site
from tests.live.servers import LiveTriton


@pytest.fixture(scope="module")
def site(shared_triton: LiveTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    opened = open_site(shared_triton, tmp_path_factory.mktemp("infer"))
    opened.write("asked", {1: 3}, config())
    opened.load("asked")
    yield opened
    opened.server.close()


@pytest.fixture
def server(triton: LiveTriton, site: Site) -> Server:
    return Server(
        name="local",
        environment="local",
        address=triton.grpc,
        metrics_url=None,
        repository=str(site.repository.root),
        admin_key=None,
        log_file=None,
        home=None,
        tls_ca=None,
        tls_certificate=None,
        tls_key=None,
        created_at="",
        state="reachable",
        watched_at=None,
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {"Z": ROW["X"]},
        {},
        {**ROW, "Z": ROW["X"]},
        {"X": np.zeros((1, 2), dtype=np.float64)},
        {"X": np.zeros((1, 3), dtype=np.float32)},
        {"X": np.zeros((1, 2), dtype=np.complex64)},
    ],
    ids=["wrong name", "none", "one too many", "wrong type", "wrong length", "no type of Triton's"],
)
def test_arrays_that_do_not_fit_are_refused_with_what_the_model_takes(
    server: Server, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(ApiError) as caught:
        ask(server, "asked", inputs, None, 10)
    error = caught.value
    assert (error.code, error.exit_code, error.hint) == ("input.invalid", 2, "tritonctl model show asked")
    assert error.message.endswith("; its inputs are X FP32 [?, 2]")
    assert "request id" not in error.message


@pytest.mark.parametrize(("model", "version"), [("nobody", None), ("asked", 7)])
def test_what_is_not_served_is_not_found(server: Server, model: str, version: int | None) -> None:
    with pytest.raises(ApiError) as caught:
        ask(server, model, ROW, version, 10)
    error = caught.value
    assert (error.code, error.exit_code, error.hint) == (
        "not_found",
        4,
        (
            f"deploy it: tritonctl change propose {model} --env {server.environment} --version {version or 1} "
            "--config generated --reason …"
        ),
    )
    assert "request id" not in error.message


def test_a_server_that_is_gone_is_a_failure_of_the_server(server: Server) -> None:
    with pytest.raises(ApiError) as caught:
        ask(replace(server, address="127.0.0.1:1"), "asked", ROW, None, 2)
    assert (caught.value.code, caught.value.exit_code) == ("server.inference_failed", 7)
