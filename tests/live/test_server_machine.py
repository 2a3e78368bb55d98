# The machine of a server as its worker sees it, beside the same machine as a bench sees it.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.bench import fingerprint
from controlplane.bench.scratch import EmbeddedScratch, RemoteScratch
from controlplane.domain.environments import ServerSpec
from controlplane.domain.fingerprints import same_class
from controlplane.server_machine import ServerMachines
from controlplane.settings import load_settings
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.servers import LiveTriton
from tests.store.clock import NOON


@pytest.fixture
def machines(runtime: TritonRuntime, tmp_path: Path) -> ServerMachines:
    assert runtime.environment is not None
    (tmp_path / "runtime").symlink_to(runtime.environment.directory.parent)
    return ServerMachines(load_settings(home=tmp_path), lambda _: None)


@pytest.fixture
def spec(shared_triton: LiveTriton, tmp_path: Path) -> ServerSpec:
    """As of a server that we launched."""
    return ServerSpec(
        name="one",
        environment="local",
        address=shared_triton.process.ports.grpc_address,
        metrics_url=None,
        repository="",
        admin_key=None,
        log_file=None,
        home=str(tmp_path),
        tls_ca=None,
        tls_certificate=None,
        tls_key=None,
        created_at=NOON,
    )


def test_a_server_of_ours_is_of_the_class_of_our_bench(
    machines: ServerMachines, spec: ServerSpec, runtime: TritonRuntime, tmp_path: Path
) -> None:
    seen = machines(spec)
    bench = fingerprint.take(EmbeddedScratch(tmp_path / "bench", runtime).serving(), local=True)

    assert seen is not None
    assert same_class(seen, bench) is True


def test_a_server_of_others_on_this_host_is_of_the_class_of_a_bench_at_such_an_address(
    machines: ServerMachines, spec: ServerSpec
) -> None:
    seen = machines(replace(spec, home=None))
    with RemoteScratch(spec.address) as scratch:
        bench = fingerprint.take(scratch.serving(), local=scratch.local)

    assert seen is not None
    assert seen.local
    assert same_class(seen, bench) is True


def test_of_a_server_that_does_not_answer_nothing_is_known(machines: ServerMachines, spec: ServerSpec) -> None:
    assert machines(replace(spec, address="127.0.0.1:9")) is None
