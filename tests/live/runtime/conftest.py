# Models of one test do not weigh on the next: the shared server unloads them.
from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.grpc as grpcclient

from tests.live.servers import LiveTriton


@pytest.fixture(autouse=True)
def _unloaded_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "triton" not in request.fixturenames:
        return
    server: LiveTriton = request.getfixturevalue("shared_triton")  # `triton` itself is torn down by now
    if server.process.poll() is not None:
        return
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for model in client.get_model_repository_index(headers=server.headers).models:
            if model.state == "READY":
                client.unload_model(model.name, headers=server.headers)
