# Acceptance 4: Triton's modification times do not deceive us, planted bytes are caught, and the record says how.
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeState
from tests.live.installation import ENV, Installation, effects, proofs
from tests.live.onnx_graphs import parse
from tests.live.opaque import opaque_config, register_opaque, source
from tests.live.servers import LiveTriton

# On one database: what is shown here is about files and Triton's memory.
pytestmark = pytest.mark.parametrize("dialect", ["sqlite"])


def graph(factor: float) -> bytes:
    """Of the same size for every factor."""
    return bytes(
        parse(f"m (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}").SerializeToString()
    )


def test_acceptance_4_old_bytes_that_come_back_with_old_times_are_loaded(
    at: Installation, triton: LiveTriton, tmp_path: Path, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    home = triton.repository / model
    aside = triton.home / f"{model}-aside"
    (home / "1").rename(aside)
    shutil.copytree(aside, home / "1")
    (home / "1" / "model.onnx").write_bytes(graph(9.0))
    at.load(model)
    assert at.answer(model) == 9.0
    shutil.rmtree(home / "1")
    (home / "1").symlink_to(aside)
    at.load(model)
    assert at.answer(model) == 9.0  # the trap: what was restored is older than what was loaded

    assert at.drift(model)[:1] == ("version 1 is missing: its directory is empty, a link or unreadable",)
    mended = at.reconcile(model)
    assert (mended.request.state, at.answer(model)) == (ChangeState.APPLIED, 2.0)
    assert not (home / "1").is_symlink()
    assert at.drift(model) == ()


def test_acceptance_4_a_rollback_loads_a_version_that_was_restored_with_old_times(
    at: Installation, triton: LiveTriton, tmp_path: Path, model: str
) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    one = triton.repository / model / "1"
    shutil.copytree(one, tmp_path / "backup")
    at.deploy(model, versions=(2,))
    shutil.rmtree(one)
    shutil.copytree(tmp_path / "backup", one)
    assert one.stat().st_mtime_ns == (tmp_path / "backup").stat().st_mtime_ns

    back = at.rollback(model)
    assert (back.request.state, at.answer(model), at.served(model)) == (ChangeState.APPLIED, 2.0, [1])
    assert proofs(back)["load"] == "shown"


def test_acceptance_4_planted_bytes_are_drift_within_one_watch_and_caught_by_their_answers_once_loaded(
    at: Installation, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    file = triton.repository / model / "1" / "model.onnx"
    accepted = file.read_bytes()
    assert len(graph(9.0)) == len(accepted)
    worker = at.worker()
    assert at.drift(model, worker) == ()

    file.write_bytes(graph(9.0))
    drift = at.drift(model, worker)
    assert len(drift) == 1
    assert drift[0].startswith("version 1 has other bytes (sha256:")
    assert file.read_bytes() == graph(9.0)  # reported, never healed silently

    at.load(model)
    file.write_bytes(accepted)
    drift = at.drift(model, worker)
    assert len(drift) == 1
    assert drift[0].startswith("answers of version 1: case 0: output 'y'")
    actions = [e.action for e in at.audit(("model", model)) if e.action.startswith("deployment.")]
    assert actions == ["deployment.drifted", "deployment.drifted"]

    mended = at.reconcile(model)
    assert (mended.request.state, at.answer(model)) == (ChangeState.APPLIED, 2.0)
    assert at.drift(model, worker) == ()


def test_acceptance_4_bytes_swapped_under_an_apply_are_put_right_before_anything_is_accepted(
    at: Installation, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    file = triton.repository / model / "2" / "model.onnx"
    swaps = 0

    def swap(name: str) -> None:
        nonlocal swaps
        if name == "before forward load" and swaps < 1:
            swaps += 1
            file.write_bytes(graph(9.0))

    view = at.finish(at.start(at.propose(model, versions=(2,))), at.worker(boundary=swap))

    assert (view.request.state, at.answer(model), swaps) == (ChangeState.APPLIED, 3.0, 1)
    assert effects(view) == ["write_version", "write_config", "load", "write_version", "load"]


def test_acceptance_4_bytes_swapped_again_and_again_are_never_accepted(
    at: Installation, triton: LiveTriton, model: str
) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))

    def swap(name: str) -> None:
        if name == "before forward load":
            (triton.repository / model / "2" / "model.onnx").write_bytes(graph(9.0))

    view = at.finish(at.start(at.propose(model, versions=(2,))), at.worker(boundary=swap))

    assert view.request.state is ChangeState.UNDONE
    assert "version 2 has other bytes" in view.request.message
    assert (at.answer(model), at.served(model)) == (2.0, [1])
    assert at.files(model) == ["1/model.onnx", "config.pbtxt"]
    assert at.drift(model) == ()


def test_acceptance_4_the_record_says_which_proofs_were_shown(at: Installation, model: str) -> None:
    at.register(model, 2.0)
    at.register(model, 3.0)
    at.deploy(model, versions=(1,), config=at.config(model))
    view = at.deploy(model, versions=(2,))
    recorded = at.environments.revision(at["author"], ENV, model, 2).revision

    assert view.request.proofs == recorded.proofs
    artifact = at.catalog.get_version(at["author"], model, 2).artifact
    assert [(proof["name"], proof["status"]) for proof in recorded.proofs] == [
        ("files", "shown"),
        ("load", "shown"),
        ("config", "shown"),
        ("answers of version 2", "shown"),
        ("instances of version 2", "shown"),
        ("version 2 told from version 1", "shown"),
    ]
    assert recorded.proofs[0]["seen"] == f"hashed in the repository: version 2 is {artifact}"
    assert recorded.proofs[4]["seen"] == "1 of 1 instances seen to answer"


def test_acceptance_4_of_an_opaque_version_only_the_digest_is_claimed(at: Installation, model: str) -> None:
    register_opaque(at, model, source(2.0))
    register_opaque(at, model, source(3.0))
    at.deploy(model, versions=(1,), config=opaque_config(at, model))
    view = at.deploy(model, versions=(2,))

    assert (view.request.state, at.answer(model)) == (ChangeState.APPLIED, 3.0)
    assert [(proof["name"], proof["status"], proof["seen"]) for proof in view.request.proofs[3:]] == [
        ("answers of version 2", "skipped", "digest only: no recorded inferences"),
        ("instances of version 2", "skipped", "no recorded input to probe instances with"),
    ]
    assert proofs(view)["files"] == "shown"
