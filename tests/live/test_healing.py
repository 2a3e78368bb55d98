# What a watch says while accepted content is not served, whatever the server answers: healed is what was seen to serve.
from __future__ import annotations

import time
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from controlplane.domain.artifacts import NO_FILES
from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import ChangeState
from controlplane.services.catalog import Registration
from tests.live.installation import Installation
from tests.live.opaque import opaque_config, register_opaque, sleeping_while, source
from tests.live.servers import LiveTriton, MakeTriton

MEMBER, PIPE, SLOW = "member", "pipe", "slow"

# On one database: what is shown here is about Triton; the kill walk of healing covers both databases.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


@pytest.fixture
def triton(make_triton: MakeTriton) -> LiveTriton:
    return make_triton(name="own")


def ensemble(at: Installation) -> JsonObject:
    """It asks version 2 of its member, and no other."""
    config = at.config(PIPE)
    step: JsonObject = {"model_name": MEMBER, "model_version": "2", "input_map": {"x": "x"}, "output_map": {"y": "y"}}
    shape = {key: config[key] for key in ("name", "max_batch_size", "input", "output")}
    return {**shape, "platform": "ensemble", "ensemble_scheduling": {"step": [step]}}


def said(at: Installation, model: str) -> list[str]:
    """What the log has of this deployment, the oldest first."""
    entries = reversed(at.audit(("model", model)))
    return [entry.action for entry in entries if entry.action.startswith("deployment.")]


def test_a_load_that_answers_ok_and_does_nothing_has_not_healed(at: Installation) -> None:
    at.register(MEMBER, 2.0)
    at.register(MEMBER, 3.0)
    at.deploy(MEMBER, versions=(2,), config=at.config(MEMBER))
    at.catalog.register_version(at["author"], Registration(PIPE, NO_FILES, 1, config=ensemble(at)))
    assert at.deploy(PIPE, versions=(1,), config=ensemble(at)).request.state is ChangeState.APPLIED
    home = at.triton.repository / MEMBER
    accepted = (home / "config.pbtxt").read_text()
    (home / "2").rename(at.triton.home / "2")
    (at.triton.home / "2").rename(home / "1")
    (home / "config.pbtxt").write_text(accepted.replace("versions: 2", "versions: 1"))
    at.load(MEMBER)
    assert (at.served(MEMBER), at.served(PIPE)) == ([1], [])  # Triton took the ensemble down with the version

    for _ in range(3):
        (drift,) = at.drift(PIPE)
        assert drift.startswith("not served")
    assert "deployment.healed" not in said(at, PIPE)
    assert "deployment.reconciled" not in said(at, PIPE)

    (home / "1").rename(home / "2")
    (home / "config.pbtxt").write_text(accepted)
    at.load(MEMBER)
    assert (at.drift(PIPE), at.answer(PIPE), at.served(PIPE)) == ((), 3.0, [1])
    assert said(at, PIPE)[-1] == "deployment.reconciled"


def test_a_load_that_hangs_while_healing_is_drift_until_it_ends(at: Installation, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    register_opaque(at, SLOW, source(2.0, prologue=sleeping_while(str(marker))), answers=2.0)
    at.deploy(SLOW, versions=(1,), config=opaque_config(at, SLOW))
    at.environments.set_policy(at["admin"], "live", {"load_timeout_seconds": 2}, expected_number=None)
    with InferenceServerClient(at.triton.grpc) as client:
        client.unload_model(SLOW, headers=at.triton.headers)
    while at.served(SLOW):
        time.sleep(0.05)
    marker.touch()

    (drift,) = at.drift(SLOW)
    assert drift.startswith("not served, and healing failed: ")
    for _ in range(2):
        assert at.drift(SLOW) == ("not served: version 1 is still loading",)
    assert "deployment.reconciled" not in said(at, SLOW)

    marker.unlink()
    while not at.served(SLOW):
        time.sleep(0.05)
    assert (at.drift(SLOW), at.answer(SLOW)) == ((), 2.0)
    assert said(at, SLOW)[-2:] == ["deployment.healed", "deployment.reconciled"]
