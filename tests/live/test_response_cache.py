# Past Triton's response cache: what it answers was not computed by what is loaded, so it proves nothing.
from __future__ import annotations

from pathlib import Path

import pytest

from clients.inference import InferenceClient
from controlplane.domain.changes import ChangeState
from controlplane.domain.golden import load_cases
from controlplane.services.change_views import ChangeView
from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.installation import Installation, install, proofs
from tests.live.onnx_graphs import parse
from tests.live.servers import MakeTriton

CACHED = {"response_cache": {"enable": True}}
TIMES_FIVE = "m (float[N,4] x) => (float[N,4] y) <float f = {5.0}> { y = Mul(x, f) }"


@pytest.fixture
def at(tmp_path: Path, make_triton: MakeTriton, runtime: TritonRuntime) -> Installation:
    caches = runtime.binary.parent.parent / "caches"
    triton = make_triton(extra_arguments=("--cache-config=local,size=4194304", f"--cache-directory={caches}"))
    database = create_database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    upgrade(database)
    return install(tmp_path, database, triton)


def seen(view: ChangeView) -> str:
    (answers,) = [proof["seen"] for proof in view.request.proofs if str(proof["name"]).startswith("answers")]
    return str(answers)


def test_acceptance_4_recorded_rows_in_another_order_are_answered_past_the_cache(at: Installation) -> None:
    at.register("cached", 2.0)
    first = at.deploy("cached", versions=(1,), config=at.config("cached", **CACHED))
    assert (first.request.state, "cache" in seen(first)) == (ChangeState.APPLIED, False)

    second = at.deploy("cached", sets=(("instance_group[0].count", "2"),))

    assert second.request.state is ChangeState.APPLIED
    assert "past the response cache" in seen(second)
    assert set(proofs(second).values()) == {"shown"}
    at.triton.process.stop(0)


def test_acceptance_4_what_only_the_cache_answers_waits_for_a_human(at: Installation) -> None:
    at.register("single", 2.0)
    config = at.config("single", **CACHED) | {"max_batch_size": 0}
    config |= {name: [{**config[name][0], "dims": ["-1", "4"]}] for name in ("input", "output")}  # type: ignore[index,dict-item]
    assert at.deploy("single", versions=(1,), config=config).request.state is ChangeState.APPLIED

    second = at.deploy("single", sets=(("parameters.intra_op_thread_count.string_value", "2"),))

    assert second.request.state is ChangeState.PAUSED
    assert "the response cache answered for the model" in second.request.message
    at.changes.resume(at["admin"], second.request.id, "accept")
    assert at.finish(second).request.state is ChangeState.APPLIED


def test_acceptance_4_a_cache_that_answers_for_bytes_that_are_gone_is_named(at: Installation) -> None:
    version = at.register("stale", 2.0)
    at.deploy("stale", versions=(1,), config=at.config("stale", **CACHED))
    process = at.triton.process
    process.stop(0)
    planted = at.triton.repository / "stale" / "1" / "model.onnx"
    planted.write_bytes(parse(TIMES_FIVE).SerializeToString())
    process.start()
    process.wait_ready(60)
    golden = version.inspection.golden
    assert golden is not None
    with InferenceClient(at.triton.grpc) as client:
        for case in load_cases(b"".join(at.artifacts.read(golden.blob))):
            client.infer("stale", case.inputs, deadline_seconds=20)

    mended = at.deploy("stale", reconcile=True)

    assert mended.request.state is ChangeState.PAUSED
    assert "the response cache answers for bytes that are gone" in mended.request.message
    process.stop(0)
    process.start()
    process.wait_ready(60)
    at.changes.resume(at["admin"], mended.request.id, "retry")
    assert at.finish(mended).request.state is ChangeState.APPLIED
    assert at.answer("stale") == 2.0
