# From a file to an approved change by the SDK, up to where a live server is needed.
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from onnx import parser

from clients.control.client import ControlClient
from clients.control.errors import ApiError
from clients.control.types import (
    ConfigText,
    Intent,
    NewChange,
    NewEnvironment,
    NewObjective,
    NewServer,
    NewVersion,
    Tensor,
)
from controlplane.domain.changes import ChangeState
from tests.store.api.conftest import Api

DOUBLE = "double (float[N,4] x) => (float[N,4] y) <float f = {2.0}> { y = Mul(x, f) }"


def register(client: ControlClient, directory: Path, body: str = DOUBLE) -> int:
    graph = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}')
    path = directory / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    file = client.uploads.upload(path, "model.onnx")
    return client.catalog.register("double", NewVersion(files=(file,), source="test", tags={"team": "maths"})).number


@pytest.fixture
def registered(api: Api, tmp_path: Path) -> Api:
    admin = api.as_("admin")
    admin.environments.create(NewEnvironment("prod", policy={"approvals": 1}))
    admin.environments.add_server("prod", NewServer("one", "127.0.0.1:1", str(tmp_path / "models")))
    register(api.as_("author"), tmp_path)
    return api


def wish(**extra: object) -> NewChange:
    tree: dict[str, object] = {"reason": "first", "versions": (1,), "generate": True, **extra}
    return NewChange("prod", "double", **tree)  # type: ignore[arg-type]  # one dictionary of mixed values


def test_a_registered_version_is_read_back_whole(registered: Api) -> None:
    version = registered.as_("viewer").catalog.version("double", 1)
    assert version.signature is not None
    assert version.signature.inputs == (Tensor("x", "TYPE_FP32", ("N", 4)),)
    assert (version.signature.batching, version.registered_by, version.source) == ("batchable", "author", "test")
    assert version.golden is not None
    assert registered.as_("viewer").catalog.model("double").tags == {"team": "maths"}


def test_a_file_that_is_no_model_is_refused(registered: Api, tmp_path: Path) -> None:
    author, path = registered.as_("author"), tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    file = author.uploads.upload(path, "model.onnx")
    with pytest.raises(ApiError) as caught:
        author.catalog.register("other", NewVersion(files=(file,)))
    assert (caught.value.code, caught.value.exit_code) == ("model.invalid", 2)
    assert [model.name for model in author.catalog.models().items] == ["double"]


def test_an_opaque_version_keeps_its_own_config(registered: Api, tmp_path: Path) -> None:
    author, path = registered.as_("author"), tmp_path / "model.py"
    path.write_text("class TritonPythonModel: ...\n")
    file = author.uploads.upload(path, "model.py")
    config = 'backend: "python" max_batch_size: 4'
    version = author.catalog.register("script", NewVersion(files=(file,), config=config))
    assert (version.backend, version.signature, version.config) == (
        "python",
        None,
        {"backend": "python", "max_batch_size": 4},
    )
    assert version.skipped


def test_a_config_is_generated_checked_and_compared(registered: Api) -> None:
    configs = registered.as_("author").configs
    made = configs.generate("double", None, Intent(aim="throughput", sets=(("max_batch_size", "16"),)))
    assert made.config["max_batch_size"] == 16
    assert "max_batch_size" in {choice.path for choice in made.choices}
    assert configs.parse(made.text).config == made.config
    bad = made.text.replace("dims: 4", "dims: 5", 1)
    assert {finding.severity for finding in configs.lint(ConfigText(bad, "double", 1)).items} == {"refused"}
    diff = configs.diff(made.text, made.text.replace("max_batch_size: 16", "max_batch_size: 8"))
    assert [(d.path, d.before, d.after) for d in diff.differences] == [("max_batch_size", 16, 8)]
    assert diff.reload_class in {"reload", "breaks_clients"}


@pytest.mark.parametrize(
    ("intent", "code", "names"),
    [
        (Intent(aim="fame"), "input.invalid", "'fame'"),
        (Intent(sets=(("max_batchsize", "1"),)), "config.path_invalid", "max_batchsize"),
        (Intent(sets=(("max_batch_size", "many"),)), "config.invalid", "many"),
    ],
)
def test_a_config_that_cannot_be_generated_says_why(registered: Api, intent: Intent, code: str, names: str) -> None:
    with pytest.raises(ApiError) as caught:
        registered.as_("author").configs.generate("double", 1, intent)
    assert caught.value.code == code
    assert names in caught.value.message


def test_objectives_are_set_replaced_and_removed(registered: Api) -> None:
    catalog = registered.as_("author").catalog
    new = NewObjective("latency_ms", "p99", "at_most", "100", "product")
    catalog.set_objective("double", "fast", NewObjective("latency_ms", "p99", "at_most", "200", "product"))
    assert catalog.set_objective("double", "fast", new) == catalog.objectives("double").items[0]
    catalog.remove_objective("double", "fast")
    assert catalog.objectives("double").items == ()


def test_a_change_is_applied_only_after_somebody_else_approved_the_plan_they_saw(registered: Api) -> None:
    author, approver = registered.as_("author"), registered.as_("approver")
    change = author.changes.propose(wish())
    assert (change.summary.state, change.needed, change.counted) == ("open", 1, ())
    assert [blocker.code for blocker in change.blockers] == ["approvals"]
    with pytest.raises(ApiError) as blocked:
        author.changes.apply(change.summary.id)
    assert (blocked.value.code, blocked.value.exit_code) == ("change.blocked", 6)
    with pytest.raises(ApiError) as stale:
        approver.changes.approve(change.summary.id, f"sha256:{'0' * 64}")
    assert (stale.value.code, stale.value.status) == ("precondition.failed", 412)
    approved = approver.changes.approve(change.summary.id, change.plan.digest, "looks right")
    assert (approved.counted, approved.blockers, approved.approvals[0].comment) == (("approver",), (), "looks right")
    started = author.changes.apply(change.summary.id)
    assert (started.summary.state, started.direction) == ("applying", "forward")
    assert registered.as_("viewer").environments.deployment("prod", "double").active_change == change.summary.id


def test_a_change_is_replanned_rejected_and_withdrawn(registered: Api) -> None:
    author, approver = registered.as_("author"), registered.as_("approver")
    first = author.changes.propose(wish())
    second = author.changes.replan(first.summary.id, wish(sets=(("max_batch_size", "4"),)))
    assert second.plan.number == 2
    assert second.plan.config is not None
    assert second.plan.config["max_batch_size"] == 4
    assert approver.changes.reject(first.summary.id, second.plan.digest, "too small").summary.state == "rejected"
    third = author.changes.propose(wish())
    assert author.changes.withdraw(third.summary.id).summary.state == "withdrawn"
    states = [(item.id, item.state) for item in author.changes.list(model="double").items]
    assert states == [(third.summary.id, "withdrawn"), (first.summary.id, "rejected")]
    assert author.changes.list(state="open").items == ()


def test_a_change_is_watched_until_nobody_works_on_it(registered: Api) -> None:
    author = registered.as_("author")
    registered.as_("admin").environments.set_policy("prod", {"approvals": 0})
    number = author.changes.propose(wish()).summary.id
    author.changes.apply(number)

    def move() -> None:
        with registered.storage.write() as unit:
            unit.changes.move(number, ChangeState.PAUSED, message="cannot tell")

    seen = []
    for change in author.changes.watch(number, deadline_seconds=60):
        seen.append((change.summary.state, change.summary.message))
        if len(seen) == 1:
            move()
    assert seen == [("applying", ""), ("paused", "cannot tell")]
    with pytest.raises(ApiError) as caught:
        list(author.changes.watch(number + 1, deadline_seconds=1))
    assert caught.value.code == "not_found"


def test_a_proof_of_a_change_is_had_and_names_its_entries(registered: Api) -> None:
    author = registered.as_("author")
    change = author.changes.propose(wish())
    assert f"subject change {change.summary.id}\n" in author.audit.proof(change.summary.id)


def test_the_policys_number_guards_it_in_the_sdk_too(registered: Api) -> None:
    environments = registered.as_("admin").environments
    before = environments.get("prod")
    after = environments.set_policy("prod", {"keep_warm": True}, expected_number=before.policy_number)
    assert asdict(after) == {
        **asdict(before),
        "policy": {**before.policy, "keep_warm": True},
        "policy_number": before.policy_number + 1,
    }
    with pytest.raises(ApiError, match="is at number 2, not 1"):
        environments.set_policy("prod", {"keep_warm": False}, expected_number=before.policy_number)
