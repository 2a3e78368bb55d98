# The runbook's rollback by cp and curl, as it stands in deploy/README.md, with nothing of ours running.
from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.storage.database import create_database
from controlplane.storage.migrate import upgrade
from tests.live.conftest import CHECKOUT
from tests.live.installation import Installation, install
from tests.live.servers import LiveTriton

RUNBOOK = (CHECKOUT / "deploy" / "README.md").read_text()


@pytest.fixture
def installation(tmp_path: Path, triton: LiveTriton) -> Iterator[Installation]:
    database = create_database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    upgrade(database)
    yield install(tmp_path, database, triton)
    database.close()


def by_hand() -> list[str]:
    section = RUNBOOK.partition("## Roll back by hand, without us")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return str(block).splitlines()


def test_the_rollback_by_hand_brings_the_old_version_back(installation: Installation) -> None:
    installation.register("byhand", 2.0)
    installation.deploy("byhand", versions=(1,), config=installation.config("byhand"))
    installation.register("byhand", 3.0)
    installation.deploy("byhand", versions=(2,))
    assert installation.answer("byhand") == 3.0
    first, *rest = by_hand()
    assert first.startswith("export MODELS=/srv/triton/models MODEL=digits FROM=2 TO=1")
    triton = installation.triton
    ours = f"export MODELS={triton.repository} MODEL=byhand FROM=2 TO=1 TRITON=http://{triton.http}"

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([ours, *rest])],
        env={**os.environ, "TRITON_ADMIN_KEY": installation.triton.admin_key or ""},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "2", "config.pbtxt"]
    assert installation.answer("byhand") == 2.0


def test_what_was_done_by_hand_is_drift_until_a_rollback_makes_it_official(installation: Installation) -> None:
    installation.register("byhand_drift", 2.0)
    installation.deploy("byhand_drift", versions=(1,), config=installation.config("byhand_drift"))
    installation.register("byhand_drift", 3.0)
    installation.deploy("byhand_drift", versions=(2,))
    config = installation.triton.repository / "byhand_drift" / "config.pbtxt"
    config.write_text(config.read_text().replace("versions: 2", "versions: 1"))

    view = installation.finish(
        installation.changes.rollback(installation["author"], "live", "byhand_drift", to=1, reason="done by hand")
    )

    assert (view.request.state.value, installation.answer("byhand_drift")) == ("applied", 2.0)
