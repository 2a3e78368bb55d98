# Acceptance 3: every kind of change on a live Triton, judged by what Triton reports and answers.
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tritonclient.grpc import InferenceServerClient

from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.changes import ChangeState
from controlplane.errors import ConfigInvalid
from controlplane.services.catalog import Registration
from controlplane.triton.pbtxt import PbtxtCodec
from tests.live.installation import ENV, Installation, effects
from tests.live.onnx_graphs import parse
from tests.live.opaque import opaque_config, register_opaque, source
from tests.live.servers import LiveTriton, MakeTriton


@pytest.fixture
def client(triton: LiveTriton) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(triton.grpc) as client:
        yield client


def inferences(client: InferenceServerClient, model: str, version: int) -> int:
    """Triton's own counter: an update in place keeps it, a reload starts it anew."""
    statistics = client.get_inference_statistics(model, str(version), as_json=True)
    return int(statistics["model_stats"][0].get("inference_count", 0))


def test_acceptance_3_instances_change_in_place_and_a_scheduler_change_reloads(
    at: Installation, client: InferenceServerClient, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    for _ in range(100):
        at.answer(model)
    before = inferences(client, model, 1)

    count = at.deploy(model, sets=(("instance_group[0].count", "2"),))
    assert (count.request.state, count.plan.reload_class) == (ChangeState.APPLIED, "in_place")
    assert client.get_model_config(model, as_json=True)["config"]["instance_group"][0]["count"] == 2
    assert inferences(client, model, 1) > before

    before = inferences(client, model, 1)
    batching = at.deploy(model, sets=(("dynamic_batching.max_queue_delay_microseconds", "700"),))
    assert (batching.request.state, batching.plan.reload_class) == (ChangeState.APPLIED, "reload")
    assert client.get_model_config(model, as_json=True)["config"]["dynamic_batching"] == {
        "preferred_batch_size": [8],
        "max_queue_delay_microseconds": "700",
    }
    assert inferences(client, model, 1) < before
    assert at.answer(model) == 2.0
    assert at.drift(model) == ()


def test_acceptance_3_a_change_that_does_not_load_is_undone(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    text = (triton.repository / model / "config.pbtxt").read_bytes()

    undone = at.deploy(model, versions=(2,), sets=(("model_operations.op_library_filename[+]", "absent.so"),))

    assert undone.request.state is ChangeState.UNDONE
    assert "absent.so" in undone.request.message
    assert effects(undone) == ["write_version", "write_config", "load"]
    assert effects(undone, "back") == ["remove_version", "write_config", "load"]
    assert (triton.repository / model / "config.pbtxt").read_bytes() == text
    assert at.files(model) == ["1/model.onnx", "config.pbtxt"]
    assert (at.served(model), at.answer(model)) == ([1], 2.0)
    assert at.drift(model) == ()
    assert [r.revision.number for r in at.environments.revisions(at["author"], ENV, model)] == [1]


def test_acceptance_3_a_change_that_loads_and_answers_wrongly_is_undone(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    register_opaque(at, model, source(2.0), answers=2.0)
    register_opaque(at, model, source(5.0), answers=3.0)
    first = at.deploy(model, versions=(1,), config=opaque_config(at, model))
    assert (first.request.state, first.request.message) == (ChangeState.APPLIED, "")

    undone = at.deploy(model, versions=(2,))

    assert undone.request.state is ChangeState.UNDONE
    assert "answers of version 2: case 0: output 'y': 3 of 4 values differ" in undone.request.message
    assert (at.served(model), at.answer(model)) == ([1], 2.0)
    assert at.files(model) == ["1/__pycache__", "1/model.py", "config.pbtxt"]
    assert at.drift(model) == ()


def test_acceptance_3_undeploy_and_roll_back_from_it(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))

    gone = at.deploy(model, undeploy=True)
    assert gone.request.state is ChangeState.APPLIED
    assert not client.is_model_ready(model)
    assert not (triton.repository / model).exists()
    assert at.drift(model) == ()

    assert at.rollback(model).request.state is ChangeState.APPLIED
    assert (at.answer(model), at.served(model)) == (2.0, [1])
    assert [r.revision.content.numbers for r in at.environments.revisions(at["author"], ENV, model)] == [(1,), (), (1,)]

    end = at.changes.rollback(at["author"], ENV, model, to=0, reason="nobody asks it any more")
    assert (end.request.state, end.needed) == (ChangeState.OPEN, 1)  # what ends the service needs a change's approvals
    assert at.finish(at.start(end)).request.state is ChangeState.APPLIED
    assert not client.is_model_ready(model)


def test_acceptance_3_a_revision_is_taken_from_another_environment(
    at: Installation, make_triton: MakeTriton, model: str
) -> None:
    other = make_triton(name="production")
    at.add_environment("production", other)
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model, dynamic_batching={}))

    promoted = at.deploy(model, env="production", from_environment=ENV)

    assert promoted.request.state is ChangeState.APPLIED
    assert at.answer(model, triton=other) == 2.0
    here, there = (at.triton.repository / model, other.repository / model)
    assert (there / "config.pbtxt").read_bytes() == (here / "config.pbtxt").read_bytes()
    assert (there / "1" / "model.onnx").read_bytes() == (here / "1" / "model.onnx").read_bytes()


def test_acceptance_3_drift_is_reported_and_reconciled_by_a_change(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    config = triton.repository / model / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace("max_batch_size: 8", "max_batch_size: 4"))
    at.load(model)

    drift = at.drift(model)
    assert [line.split(":")[0] for line in drift] == ["config.pbtxt differs", "loaded config"]
    assert "max_batch_size: 4" in config.read_text()  # reported, not healed

    mended = at.reconcile(model)
    assert mended.request.state is ChangeState.APPLIED
    assert config.read_text() == text
    assert client.get_model_config(model, as_json=True)["config"]["max_batch_size"] == 8
    assert at.drift(model) == ()


def test_acceptance_3_an_override_that_hides_the_files_is_reconciled(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    graph = parse("m (float[N,4] x) => (float[N,4] y) <float f = {9}> { y = Mul(x, f) }").SerializeToString()
    config = json.dumps(client.get_model_config(model, as_json=True)["config"])
    client.load_model(model, config=config, files={"file:1/model.onnx": graph}, headers=triton.headers)
    assert at.answer(model) == 9.0

    drift = at.drift(model)
    assert len(drift) == 1, drift
    assert drift[0].startswith("answers of version 1: case 0"), drift

    mended = at.reconcile(model)
    assert (mended.request.state, at.answer(model)) == (ChangeState.APPLIED, 2.0)
    assert at.drift(model) == ()


def test_acceptance_3_an_existing_repository_is_adopted_without_rewriting_a_version(
    at: Installation, client: InferenceServerClient, triton: LiveTriton, model: str
) -> None:
    home = triton.repository / model
    for number, factor in ((1, 2.0), (2, 3.0)):
        graph = parse(f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}")
        (home / str(number)).mkdir(parents=True)
        (home / str(number) / "model.onnx").write_bytes(graph.SerializeToString())
    (home / "config.pbtxt").write_text(
        f"""name: "{model}"
backend: "onnxruntime"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
version_policy: {{ all {{}} }}
"""
    )
    at.load(model)
    stats = {path: path.stat() for path in [home / "1", home / "2", *home.glob("*/model.onnx")]}

    for number in (1, 2):
        manifest = at.artifacts.add_directory(home / str(number))
        at.catalog.register_version(at["author"], Registration(model, manifest, number))
    config = PbtxtCodec().parse((home / "config.pbtxt").read_text())
    adopted = at.deploy(model, versions=(1, 2), config=config)

    assert adopted.request.state is ChangeState.APPLIED, adopted.request.message
    assert effects(adopted) == ["write_config", "load"]
    for path, before in stats.items():
        now = path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), path
    assert at.served(model) == [1, 2]
    assert (at.answer(model, version=1), at.answer(model)) == (2.0, 3.0)
    assert at.drift(model) == ()


def test_acceptance_3_a_config_that_triton_would_refuse_is_never_proposed(at: Installation, model: str) -> None:
    at.register(model, 2.0)
    with pytest.raises(ConfigInvalid, match="max_batch_size"):
        at.propose(model, versions=(1,), config={**at.config(model), "max_batch_size": -1})


@pytest.mark.parametrize(
    ("decision", "state", "answer"), [("accept", ChangeState.APPLIED, "nan"), ("undo", ChangeState.UNDONE, "2.0")]
)
def test_what_verification_cannot_decide_waits_for_a_human(
    at: Installation, model: str, *, decision: str, state: ChangeState, answer: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    graph = parse(
        "m (float[N,4] x) => (float[N,4] y) <float f = {-1}> { a = Abs(x) b = Mul(a, f) c = Add(b, f) y = Log(c) }"
    )
    digest, size = at.artifacts.add_stream([graph.SerializeToString()])
    at.catalog.register_version(
        at["author"], Registration(model, Manifest((FileEntry("model.onnx", size, digest),)), 2)
    )

    paused = at.deploy(model, versions=(2,))
    assert paused.request.state is ChangeState.PAUSED
    assert paused.request.message == "answers of version 2: case 0: the recorded outputs hold nothing to compare"
    assert at.finish(paused).request.state is ChangeState.PAUSED

    at.changes.resume(at["author"], paused.request.id, decision)
    assert at.finish(paused).request.state is state
    assert str(at.answer(model)) == answer
    assert at.drift(model) == ()
