# Every transport of the load generator against a real Triton server: the answers and the counts are the same on each.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient, Tensor, Tls
from clients.load.calibrate import calibrate
from clients.load.errors import LoadInputError
from clients.load.measure import Limits, Load, Target, measure
from clients.load.messages import message
from clients.load.outcomes import ANSWERED, STATUS
from clients.load.schedule import Curve
from clients.load.server import settled, statistics
from clients.load.transports import Via
from tests.live.certificates import authority_and_client
from tests.live.restarted import Restarted
from tests.live.scaling import Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

SHORT = Limits(seconds=1, cap=1, warm_up=0.1)


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    yield opened
    opened.server.close()


def target(live: LiveTriton, via: Via) -> Target:
    host, port = live.grpc.split(":")
    return Target(host, int(port), via=via)


def rows(model: str, count: int = 8) -> tuple[bytes, ...]:
    tensors: list[dict[str, Tensor]] = [{"X": np.full((2, 2), number, np.float32)} for number in range(count)]
    return tuple(message(model, one, version=None, parameters={}) for one in tensors)


@pytest.mark.parametrize("load", [Load(concurrency=6), Load(curve=Curve.flat(200))], ids=["closed", "open"])
@pytest.mark.parametrize(
    "via",
    [Via(), Via("grpcio"), Via(compression="gzip"), Via(compression="deflate")],
    ids=str,
)
def test_each_transport_counts_as_the_server_does_and_says_which_it_was(site: Site, via: Via, load: Load) -> None:
    if not site.ready("counted"):
        site.write("counted", {1: 3}, config())
        site.load("counted")
    with InferenceClient(site.live.grpc) as client:
        before = statistics(client, "counted", version=1)
        measured = measure(target(site.live, via), rows("counted"), load, SHORT, processes=2, connections=2)
        shares = settled(
            lambda: statistics(client, "counted", version=1) - before,
            lambda seen: seen.succeeded >= len(measured.records),
        )
    assert measured.failed == {}
    assert len(measured.records) == shares.succeeded > 5
    assert measured.transport == str(via)


def test_tls_is_never_left_out_and_a_plain_start_against_it_fails(make_triton: MakeTriton, tmp_path: Path) -> None:
    root, certificate, key = authority_and_client(tmp_path)
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config())
    live = make_triton(
        name="secured",
        repository=opened.live.repository,
        extra_arguments=(
            "--grpc-use-ssl-mutual=1",
            f"--grpc-server-cert={tmp_path}/server.pem",
            f"--grpc-server-key={tmp_path}/server.key",
            f"--grpc-root-cert={tmp_path}/authority.pem",
        ),
    )
    opened.server.close()
    secured = target(live, Via(tls=Tls(root, certificate, key)))
    measured = measure(secured, rows("m"), Load(concurrency=4), SHORT)
    assert (measured.failed, measured.transport) == ({}, "grpcio over TLS")
    assert measured.completed > 10
    floor = calibrate(secured, concurrency=4, processes=1, connections=1, seconds=0.5)
    assert floor.ceiling > 10
    for via in (Via(), Via(tls=Tls(root))):
        measured = measure(target(live, via), rows("m"), Load(concurrency=2), SHORT)
        assert (measured.completed, set(measured.failed)) == (0, {"UNAVAILABLE"})
        assert len(measured.records) < 2000, "no storm of connections"
    with pytest.raises(LoadInputError, match="plain text"):
        Via("http2", tls=Tls(root))


@pytest.mark.parametrize("load", [Load(concurrency=4), Load(curve=Curve.flat(200))], ids=["closed", "open"])
def test_load_acceptance_6_grpcio_finds_a_server_that_was_killed_and_started_again(
    make_triton: MakeTriton, tmp_path: Path, load: Load
) -> None:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config())
    opened.load("m")
    opened.server.close()
    restarted = Restarted(opened.live.process)
    limits = Limits(seconds=90, cap=90, warm_up=0.1, errors=1, timeout=5)
    to = target(opened.live, Via("grpcio"))
    measured = measure(to, rows("m"), load, limits, connections=2, progress=restarted)
    statuses = measured.records[:, STATUS]
    lost = measured.records[statuses == 14]
    assert set(statuses) <= {0, 4, 5, 14}
    assert 0 < len(lost) < 375 * max(restarted.seconds, 8), "no storm of connections"
    assert measured.records[statuses == 0][-1, ANSWERED] > lost[0, ANSWERED], "answers came again"
    opened.live.process.wait_ready(60)


@pytest.mark.parametrize("via", [Via("grpcio"), Via("stream")], ids=str)
def test_load_acceptance_6_64_megabytes_pass_both_ways(make_triton: MakeTriton, tmp_path: Path, via: Via) -> None:
    opened = open_site(make_triton(), tmp_path)
    opened.write("m", {1: 3}, config().replace("max_batch_size: 8", f"max_batch_size: {2**23}"))
    opened.load("m")
    large = message("m", {"X": np.ones((2**23, 2), np.float32)}, version=None, parameters={})
    limits = Limits(seconds=1, cap=20, warm_up=0, count=4)
    measured = measure(target(opened.live, via), (large,), Load(concurrency=2), limits)
    assert measured.records[:, STATUS].tolist() == [0, 0, 0, 0]
    opened.server.close()
