# Acceptance 8: a context is a witness: it pins the log's key and what it saw, and notices when the log is another one.
from __future__ import annotations

from pathlib import Path

import pytest

from clients.control import contexts
from clients.control.client import connect
from clients.control.contexts import Context
from clients.control.types import NewPrincipal
from clients.control.witness import CheckpointMismatch
from controlplane.storage.audit_raw import RawAudit
from tests.store.api.conftest import Api


@pytest.fixture
def context(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRITONCTL_HOME", str(tmp_path / "client"))
    monkeypatch.delenv("TRITONCTL_TOKEN", raising=False)
    path = contexts.context_path()
    contexts.put(path, "here", Context(api.url, api.tokens["admin"]))
    return path


def test_the_key_and_the_last_checkpoint_seen_are_kept(api: Api, context: Path) -> None:
    with connect() as client:
        client.audit.sign()
        client.access.whoami()
        seen = contexts.read(context).contexts["here"]
        assert seen.audit_key == api.services.audit.key
        client.access.create(NewPrincipal("more"))
        client.audit.sign()
        client.access.whoami()
    assert contexts.read(context).contexts["here"].checkpoint != seen.checkpoint


def test_a_log_that_lost_what_was_seen_is_noticed(api: Api, context: Path, tmp_path: Path) -> None:
    with connect() as client:
        client.access.create(NewPrincipal("gone-tomorrow"))
        client.audit.sign()
        client.access.whoami()
    seen = contexts.read(context).contexts["here"]
    _cut_tail(api, 1)
    for file in api.settings.checkpoint_dir.iterdir():
        file.unlink()
    api.services.audit.sign()
    with connect() as client, pytest.raises(CheckpointMismatch, match="was cut") as caught:
        client.access.whoami()
    assert (caught.value.code, caught.value.exit_code) == ("audit.checkpoint_mismatch", 8)
    assert contexts.read(context).contexts["here"] == seen  # the evidence stays


def test_another_key_than_the_pinned_one_is_noticed(api: Api, context: Path) -> None:
    from controlplane.domain.notes import Signer

    other = str(Signer.generate("somebody-else").verifier)
    contexts.put(context, "here", Context(api.url, api.tokens["admin"], audit_key=other))
    api.services.audit.sign()
    with connect() as client, pytest.raises(CheckpointMismatch, match="not signed by the key"):
        client.access.whoami()


def _cut_tail(api: Api, count: int) -> None:
    """As somebody who owns the database would, and signs again."""
    with api.storage.read() as unit:
        assert isinstance(unit.raw_audit, RawAudit)
        size = unit.audit.size() - count
    with api.storage.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=OFF")
        for table in ("audit_entries", "audit_subjects", "audit_subtrees", "audit_checkpoints"):
            for verb in ("update", "delete", "disorder"):
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        connection.exec_driver_sql(f"DELETE FROM audit_subjects WHERE seq >= {size}")
        connection.exec_driver_sql(f"DELETE FROM audit_entries WHERE seq >= {size}")
        connection.exec_driver_sql(f"DELETE FROM audit_subtrees WHERE (position + 1) * (1 << level) > {size}")
        connection.exec_driver_sql("DELETE FROM audit_checkpoints")
        connection.commit()
