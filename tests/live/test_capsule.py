# A capsule of a sweep on a real server, and its replay on the same host.
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.services.capsule_files import open_capsule
from controlplane.triton.runtime.find import TritonRuntime
from tests.live.python_models import register_sleeping
from tests.live.test_up import TRITONCTL, Up, make

SPEC = (
    "{space: {instances: [1, 2]}, defaults: false, load: {concurrency: 4}, search: {seconds: 60, margin_percent: 30}}"
)
"""The margin is one that a machine on which other tests run keeps, with a model that sleeps most of the time."""


@pytest.fixture(scope="module")
def up(runtime: TritonRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """With a sweep of `slow`."""
    directory = tmp_path_factory.mktemp("capsule")
    for made in make(runtime, directory):
        register_sleeping(made, directory, "slow")
        sweep(made, "run", "slow", "--spec", "-")
        yield made


def sweep(up: Up, *arguments: str) -> str:
    done = subprocess.run(
        [*TRITONCTL, "sweep", *arguments],
        env=up.environment,
        input=SPEC,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_capsule_is_replayed_on_the_same_host_and_agrees(up: Up, tmp_path: Path) -> None:
    """Sweep acceptance 4: `replay` of a capsule on the same host agrees."""
    first, second = tmp_path / "first.capsule", tmp_path / "second.capsule"
    sweep(up, "export", "1", "--out", str(first), "--artifacts")
    said = sweep(up, "replay", str(first), "--model", "again")
    assert "a replay of sweep 1 of slow: " in said
    replay = json.loads(sweep(up, "show", "2", "-o", "json"))["answer"]["replay"]
    assert replay["differing"] == 0, said
    assert "agrees" in {one["outcome"] for one in replay["agreement"]}, said
    assert [line for line in replay["machines"] if "another class" in line or "nobody can tell" in line] == []
    assert "again" not in up.run("model", "list")
    sweep(up, "export", "1", "--out", str(second), "--anonymize")
    with open_capsule(first) as whole, open_capsule(second) as nameless:
        assert (whole.verify(), nameless.verify()) == ((), ())
        orders = [(one.round, one.order) for one in whole.capsule.measurements]
        assert [(one.round, one.order) for one in nameless.capsule.measurements] == orders
    assert "the audit log is intact" in up.run("audit", "verify")
