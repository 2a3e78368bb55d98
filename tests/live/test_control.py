# The control of a real Triton server: loads, refusals, failures and probes.
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from controlplane.domain.environments import Proof, ProofStatus
from controlplane.domain.servers import VersionState
from controlplane.errors import (
    InferenceFailed,
    LoadFailed,
    LoadUnknown,
    ServerRefused,
    ServerUnreachable,
)
from controlplane.services.ports import Prober, Server
from controlplane.triton.control import TritonServer
from controlplane.triton.pbtxt import PbtxtCodec
from controlplane.triton.probe import ProbeOutcome, ProbeReport, probe, prove_instances
from controlplane.triton.runtime.ports import choose_ports
from tests.live.python_models import serve
from tests.live.scaling import ROW, Site, config, open_site
from tests.live.servers import LiveTriton, MakeTriton

SLOW = """
import os, time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        open(%r, "w").close()
        while os.path.exists(%r):
            time.sleep(0.05)

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", row * 3)]) for row in rows]
"""
"""Its load says when it began, and goes on as long as a file is there."""
SLOW_CONFIG = """backend: "python" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: 2 }
    output { name: "Y" data_type: TYPE_FP32 dims: 2 }
    instance_group { count: 1 kind: KIND_CPU }"""


@pytest.fixture
def site(triton: LiveTriton, tmp_path: Path) -> Iterator[Site]:
    opened = open_site(triton, tmp_path)
    yield opened
    opened.server.close()


def test_a_model_is_loaded_listed_asked_and_unloaded(site: Site) -> None:
    server: Server = site.server
    assert server.alive()
    assert server.versions("walk") == ()
    assert server.config("walk") is None
    site.write("walk", {1: 3, 2: 5}, config(versions=(1, 2)))
    site.load("walk")
    ready = [VersionState(1, "READY", ""), VersionState(2, "READY", "")]
    assert server.versions("walk") == ready
    assert server.models()["walk"] == ready
    assert [site.factor("walk", 1), site.factor("walk", 2), site.factor("walk")] == [3, 5, 5]
    server.unload("walk")
    server.unload("walk")
    while site.ready("walk"):
        time.sleep(0.01)
    assert server.config("walk") is None
    with pytest.raises(InferenceFailed) as caught:
        site.factor("walk")
    assert caught.value.details == {"model": "walk", "version": None, "grpc_status": "NOT_FOUND"}


def test_the_loaded_config_is_in_the_codecs_form(site: Site) -> None:
    text = config(extra="optimization { graph { level: -1 } } dynamic_batching { max_queue_delay_microseconds: 100 }")
    site.write("form", {1: 3}, text.replace("dynamic_batching { }", ""))
    site.load("form")
    loaded = site.server.config("form")
    assert loaded is not None
    assert PbtxtCodec().check(loaded) == loaded
    assert loaded["dynamic_batching"] == {"preferred_batch_size": [8], "max_queue_delay_microseconds": "100"}
    assert loaded["input"] == [{"name": "X", "data_type": "TYPE_FP32", "dims": ["2"]}]


def test_a_wrong_key_is_a_refusal_and_what_needs_no_key_works(site: Site) -> None:
    site.write("guarded", {1: 3}, config())
    site.load("guarded")
    for key in (None, ("admin-key", "wrong"), ("other-key", "x")):
        stranger = TritonServer(site.live.grpc, key=key)
        assert stranger.alive()
        refused: list[Callable[[], object]] = [
            stranger.models,
            lambda: stranger.load("guarded", deadline_seconds=30),  # noqa: B023 called in this round
            lambda: stranger.unload("guarded"),  # noqa: B023 called in this round
        ]
        for call in refused:
            with pytest.raises(ServerRefused):
                call()
        assert stranger.infer("guarded", ROW, version=1, outputs=[], deadline_seconds=30)["Y"].tolist() == [[3, 6]]
        stranger.close()
    assert site.ready("guarded") == [1]


def test_a_server_that_is_not_there_is_unreachable_at_once() -> None:
    ports = choose_ports()
    server = TritonServer(ports.grpc_address)
    calls: list[Callable[[], object]] = [
        server.models,
        lambda: server.config("m"),
        lambda: server.load("m", deadline_seconds=30),
        lambda: server.unload("m"),
        lambda: server.infer("m", ROW, version=1, outputs=[], deadline_seconds=30),
        lambda: server.cache_hits("m", 1),
    ]
    assert not server.alive()
    for call in calls:
        begun = time.monotonic()
        with pytest.raises(ServerUnreachable):
            call()
        assert time.monotonic() - begun < 8  # of the 10 and 30 s that an answer may take


def test_a_failed_poll_is_told_with_the_cause_from_the_log(site: Site) -> None:
    site.write("bad", {1: 3}, config(extra="no_such_field: 1"))
    with pytest.raises(LoadFailed) as caught:
        site.load("bad")
    error = caught.value
    assert error.details["grpc_status"] == "INTERNAL"
    assert "failed to poll from model repository" in str(error.details["answer"])
    assert "Poll failed for model directory 'bad'" in str(error.details["cause"])
    assert 'has no field named "no_such_field"' in str(error.details["cause"])
    site.repository.write_config("bad", 'name: "other" ' + config())
    with pytest.raises(LoadFailed) as caught:
        site.load("bad")
    cause = str(caught.value.details["cause"])
    assert "other" in cause
    assert "no_such_field" not in cause


def test_a_model_that_cannot_be_opened_is_told_with_tritons_answer_and_what_served_serves_on(site: Site) -> None:
    site.write("broken", {1: 3}, config(versions=(1,)))
    site.load("broken")
    site.write("broken", {}, config(versions=(1, 2)))
    (site.repository.root / "broken/2").mkdir()
    (site.repository.root / "broken/2/model.onnx").write_bytes(b"no graph")
    with pytest.raises(LoadFailed) as caught:
        site.load("broken")
    assert caught.value.details["grpc_status"] == "INVALID_ARGUMENT"
    assert caught.value.details["cause"] is None
    assert "Protobuf parsing failed" in caught.value.message
    assert site.factor("broken") == 3
    one, two = site.server.versions("broken")
    assert (one, two.number, two.state) == (VersionState(1, "READY", ""), 2, "UNAVAILABLE")


def test_a_load_past_its_deadline_is_unknown_and_goes_on(site: Site) -> None:
    site.write("slow", {1: 3}, config(instances=2))
    with pytest.raises(LoadUnknown) as caught:
        site.load("slow", 0.05)
    assert caught.value.details == {"model": "slow", "grpc_status": "DEADLINE_EXCEEDED"}
    end = time.monotonic() + 90
    while not site.ready("slow") and time.monotonic() < end:
        time.sleep(0.02)
    assert site.factor("slow") == 3


def test_a_server_killed_during_a_load_leaves_the_load_unknown_and_is_found_again_when_it_is_back(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    live = make_triton()
    site = open_site(live, tmp_path)
    begun_at, hanging = tmp_path / "begun", tmp_path / "hanging"
    hanging.touch()

    def kill() -> None:
        while not begun_at.exists():
            time.sleep(0.05)
        live.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(LoadUnknown) as caught:
        serve(site, "m", SLOW_CONFIG, SLOW % (str(begun_at), str(hanging)))
    killer.join()
    hanging.unlink()
    assert caught.value.details == {"model": "m", "grpc_status": "UNAVAILABLE"}
    assert not site.server.alive()
    live.process.start()
    live.process.wait_ready(60)
    begun = time.monotonic()
    site.load("m")
    assert time.monotonic() - begun < 20  # of 30
    assert site.factor("m") == 3


def test_a_server_that_hangs_is_not_alive_and_unreachable_within_seconds(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    live = make_triton()
    site = open_site(live, tmp_path)
    assert site.server.alive()
    pid = live.process.state.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert not all(site.server.alive() for _ in range(3))  # its threads stop one after the other
    with pytest.raises(ServerUnreachable):
        site.load("m")
    assert time.monotonic() - begun < 25  # of the 30 s that a load may take
    os.kill(pid, signal.SIGCONT)
    assert any(site.server.alive() for _ in range(30))  # it may be busy for a moment with what was sent meanwhile


def ask_all(site: Site, model: str, instances: int, seconds: float) -> ProbeReport:
    return probe(site.server, model, 1, instances=instances, inputs=ROW, max_batch_size=8, deadline_seconds=seconds)


def pid_of(instance: str) -> int:
    return int(instance.rpartition(":")[2])


def test_a_probe_sees_every_instance_and_finds_the_killed_and_the_hung_one(
    make_triton: MakeTriton, tmp_path: Path
) -> None:
    live = make_triton()
    site = open_site(live, tmp_path)
    site.write("three", {1: 3}, config(instances=3))
    site.load("three")
    report = ask_all(site, "three", 3, 60)
    assert (report.outcome, len(report.seen), report.failed, report.timed_out) == (ProbeOutcome.HEALTHY, 3, 0, 0)

    os.kill(pid_of(report.seen[0]), signal.SIGKILL)
    report_killed = ask_all(site, "three", 3, 60)
    assert report_killed.outcome is ProbeOutcome.FAILING
    assert report_killed.failed >= 1
    assert report_killed.timed_out == 0
    assert report_killed.seen
    assert set(report_killed.seen) <= set(report.seen[1:])  # one of them may have answered all of the few probes
    assert site.ready("three") == [1]  # Triton has not noticed

    site.load("three")  # nothing is newer, so nothing is done
    assert ask_all(site, "three", 3, 60).outcome is ProbeOutcome.FAILING
    site.repository.touch("three")
    site.load("three")
    healed = ask_all(site, "three", 3, 60)
    assert (healed.outcome, len(healed.seen)) == (ProbeOutcome.HEALTHY, 3)
    assert set(healed.seen).isdisjoint(report.seen)

    os.kill(pid_of(healed.seen[1]), signal.SIGSTOP)
    begun = time.monotonic()
    report_hung = ask_all(site, "three", 3, 20)
    assert time.monotonic() - begun < 60
    # Triton hands the request to the stopped process, and says after a second that its heart does not beat.
    assert (report_hung.outcome, report_hung.failed + report_hung.timed_out) == (ProbeOutcome.FAILING, 1)
    assert report_hung.seen
    assert set(report_hung.seen) <= {healed.seen[0], healed.seen[2]}
    os.kill(pid_of(healed.seen[1]), signal.SIGKILL)
    site.repository.touch("three")
    site.load("three")
    assert ask_all(site, "three", 3, 60).outcome is ProbeOutcome.HEALTHY
    live.process.kill()  # Triton never finishes unloading a version whose backend died on it, so SIGTERM would take long


def test_a_probe_of_a_server_whose_backends_count_nowhere_is_inconclusive(site: Site) -> None:
    site.write("mute", {1: 3}, config())
    site.load("mute")
    blind = TritonServer(site.live.grpc)
    report = probe(blind, "mute", 1, instances=1, inputs=ROW, max_batch_size=8, deadline_seconds=60)
    assert report == ProbeReport(
        ProbeOutcome.INCONCLUSIVE, 1, (), answered=2, failed=0, timed_out=0, error=None, counted=False
    )
    blind.close()


def test_a_probe_is_put_as_a_proof_by_what_the_loaded_config_says(site: Site) -> None:
    prove: Prober = prove_instances
    site.write("proof", {1: 3}, config(instances=2))
    site.load("proof")
    loaded = site.server.config("proof")
    assert loaded is not None
    name = "instances of version 1"
    assert prove(site.server, "proof", 1, config=loaded, inputs=ROW, seconds=60) == Proof(
        name, ProofStatus.SHOWN, "2 of 2 instances seen to answer"
    )
    wrong = {"X": np.zeros((1, 3), dtype=np.float32)}
    refused = prove(site.server, "proof", 1, config=loaded, inputs=wrong, seconds=60)
    assert (refused.name, refused.status) == (name, ProofStatus.FAILED)
    assert "0 of 2 instances seen to answer; of 4 probes 4 failed and 0 timed out" in refused.seen
