# Acceptance 5: the repository on disk alone is enough.
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.inference import InferenceClient, InferenceError
from controlplane.domain.changes import ChangeState
from controlplane.domain.golden import GoldenCase, load_cases
from controlplane.storage.database import Database
from tests.live.installation import Installation, install
from tests.live.servers import MakeTriton

# On one database: there is none when it counts.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


def recorded(at: Installation, model: str, number: int) -> list[GoldenCase]:
    golden = at.catalog.get_version(at["author"], model, number).inspection.golden
    assert golden is not None
    return load_cases(b"".join(at.artifacts.read(golden.blob)))


def test_acceptance_5_triton_alone_serves_the_accepted_revisions_and_gives_the_recorded_answers(
    tmp_path: Path,
    database: Database,
    make_triton: MakeTriton,
) -> None:
    at = install(tmp_path, database, make_triton(name="own"))
    for model in ("applied", "rolled", "undone", "gone"):
        at.register(model, 2.0)
        at.register(model, 3.0)
        at.deploy(model, versions=(1,), config=at.config(model))
    states = [
        at.deploy("applied", versions=(2,)).request.state,
        at.deploy("rolled", versions=(2,)).request.state,
        at.rollback("rolled").request.state,
        at.deploy(
            "undone", versions=(2,), sets=(("model_operations.op_library_filename[+]", "absent.so"),)
        ).request.state,
        at.deploy("gone", undeploy=True).request.state,
    ]
    assert states == [*[ChangeState.APPLIED] * 3, ChangeState.UNDONE, ChangeState.APPLIED]
    at.check_audit()
    accepted = {"applied": 2, "rolled": 1, "undone": 1}
    answers = {model: recorded(at, model, number) for model, number in accepted.items()}

    at.triton.process.kill()
    database.close()
    (tmp_path / "db.sqlite").rename(tmp_path / "away.sqlite")
    (tmp_path / "artifacts").rename(tmp_path / "artifacts-away")
    at.triton.process.start()
    at.triton.process.wait_ready(60)

    assert {model: at.served(model) for model in [*accepted, "gone"]} == {
        "applied": [2],
        "rolled": [1],
        "undone": [1],
        "gone": [],
    }
    with InferenceClient(at.triton.grpc) as client:
        for model, cases in answers.items():
            for case in cases:
                got = client.infer(model, case.inputs, deadline_seconds=20).outputs
                for name, expected in case.outputs.items():
                    assert np.array_equal(got[name], expected)
        with pytest.raises(InferenceError, match="NOT_FOUND"):
            client.infer("gone", answers["applied"][0].inputs, deadline_seconds=20)
