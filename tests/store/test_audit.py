# Appending to the audit log, refusing to alter it, signing and proving it, on both databases.
from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Text
from sqlalchemy.exc import DBAPIError

from clients.control.witness import CheckpointMismatch, check_consistent
from clients.control.witness import open_checkpoint as open_as_client
from controlplane.domain.access import SYSTEM, Actor, Principal, PrincipalKind, Role
from controlplane.domain.audit import Action, AuditEntry, AuditFact
from controlplane.domain.checkpoints import claimed_checkpoint, verify_proof
from controlplane.domain.notes import Signer
from controlplane.errors import AuditBroken, Conflict, IntegrityError, InvalidInput, NotFound, PermissionDenied
from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.audit_verify import verify
from controlplane.storage.checkpoint_files import (
    CheckpointFiles,
    ensure_signing_key,
    retired_verifiers,
    rotate_signing_key,
)
from controlplane.storage.database import Database, create_database
from controlplane.storage.triggers import audit_triggers_lifted, missing_audit_triggers
from controlplane.storage.unit_of_work import Storage
from tests.store.audit_forgery import Forgery
from tests.store.audit_writer import append_many, committed
from tests.store.clock import SteppingClock

BOB = Actor("bob", PrincipalKind.PERSON)
READER = Principal(7, "bob", PrincipalKind.PERSON, frozenset({Role.VIEWER}), datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture
def signer() -> Signer:
    return Signer.generate("log.example/test")


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path / "checkpoints")


@pytest.fixture
def audit(storage: Storage, clock: SteppingClock, files: CheckpointFiles, signer: Signer) -> AuditService:
    return AuditService(storage, AccessService(storage, clock), files, [signer.verifier], signer)


def append(storage: Storage, *facts: AuditFact) -> None:
    with storage.write() as unit:
        for fact in facts:
            unit.audit.append(fact)


def change(number: int, action: Action = Action.CHANGE_PROPOSED, actor: Actor = BOB) -> AuditFact:
    return AuditFact(actor, action, {"change": str(number), "model": "digits"}, {"n": number}, f"req-{number}")


def test_facts_become_numbered_stamped_entries_in_order(storage: Storage) -> None:
    append(storage, change(1), change(2, Action.CHANGE_APPLIED, SYSTEM))
    append(storage, change(3))
    with storage.read() as unit:
        found = unit.audit.entries()
    at = [datetime(2026, 11, 22, 12, 0, second, tzinfo=UTC) for second in (1, 2, 3)]
    assert found == (
        AuditEntry(2, at[2], BOB, "change.proposed", {"change": "3", "model": "digits"}, {"n": 3}, "req-3"),
        AuditEntry(1, at[1], SYSTEM, "change.applied", {"change": "2", "model": "digits"}, {"n": 2}, "req-2"),
        AuditEntry(0, at[0], BOB, "change.proposed", {"change": "1", "model": "digits"}, {"n": 1}, "req-1"),
    )


def test_a_transaction_that_fails_leaves_no_entry_and_no_gap(storage: Storage) -> None:
    append(storage, change(1))

    def fail() -> None:
        with storage.write() as unit:
            unit.audit.append(change(2))
            unit.audit.write_queued()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    append(storage, change(3))
    with storage.read() as unit:
        assert [(entry.seq, entry.details["n"]) for entry in unit.audit.entries()] == [(1, 3), (0, 1)]


def test_entries_are_found_by_subject_actor_action_and_page(audit: AuditService, storage: Storage) -> None:
    append(storage, change(1), change(2), change(1, Action.CHANGE_APPLIED, SYSTEM), change(12))

    def numbers(**filters: object) -> list[int]:
        return [entry.seq for entry in audit.list(READER, **filters)]  # type: ignore[arg-type]

    assert numbers() == [3, 2, 1, 0]
    assert numbers(subject=("change", "1")) == [2, 0]
    assert numbers(subject=("model", "digits"), actor="bob") == [3, 1, 0]
    assert numbers(action="change.applied") == [2]
    assert numbers(limit=2) == [3, 2]
    assert numbers(limit=2, before=2) == [1, 0]
    assert numbers(subject=("change", "2"), before=1) == []


def test_reading_the_log_takes_the_permission(audit: AuditService) -> None:
    stranger = Principal(8, "eve", PrincipalKind.PERSON, frozenset(), datetime(2026, 11, 22, tzinfo=UTC))
    for attempt in (
        lambda: audit.list(stranger),
        lambda: audit.consistency(stranger, 0, 0),
        lambda: audit.prove(stranger, 1),
        lambda: audit.checkpoint(READER),
    ):
        with pytest.raises(PermissionDenied):
            attempt()


REFUSED = {
    "sqlite": [
        "UPDATE {table} SET {column} = {column}",
        "DELETE FROM {table}",
        "INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
        "REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
        "INSERT INTO {table} SELECT * FROM {table} WHERE true LIMIT 1 ON CONFLICT DO UPDATE SET {column} = {column}",
    ],
    "postgresql": [
        "UPDATE {table} SET {column} = {column}",
        "DELETE FROM {table}",
        "TRUNCATE {table} CASCADE",
        "INSERT INTO {table} SELECT * FROM {table} LIMIT 1",
        "SET LOCAL session_replication_role = replica; DELETE FROM {table}",
        "WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT * FROM gone",
    ],
}


@pytest.mark.parametrize(
    ("table", "column"),
    [("audit_entries", "body"), ("audit_subjects", "id"), ("audit_subtrees", "hash"), ("audit_checkpoints", "note")],
)
def test_the_database_refuses_to_alter_what_was_appended(
    audit: AuditService, storage: Storage, table: str, column: str
) -> None:
    append(storage, *(change(number) for number in range(4)))
    audit.sign()
    for statement in REFUSED[storage.database.dialect]:
        with pytest.raises(DBAPIError, match=table), storage.database.writing() as connection:
            connection.exec_driver_sql(statement.format(table=table, column=column))


@pytest.mark.parametrize("seq", [-1, 0, 1, 3, 5, 1000])
def test_the_database_refuses_an_entry_out_of_order(storage: Storage, seq: int) -> None:
    append(storage, change(0), change(1))
    statement = (
        f"INSERT INTO audit_entries (seq, body, leaf_hash, at, actor, action) VALUES ({seq}, 'b', 'h', 'a', 'a', 'a')"
    )
    refused = pytest.raises(DBAPIError, match="audit_entries: not the next row")
    with refused, storage.database.writing() as connection:
        connection.exec_driver_sql(statement)


def test_a_batch_that_replaces_the_table_keeps_the_triggers_and_the_log(storage: Storage) -> None:
    append(storage, change(0), change(1))
    with storage.database.writing(schema_change=True) as connection:
        operations = Operations(MigrationContext.configure(connection))
        with (
            audit_triggers_lifted(connection),
            operations.batch_alter_table(
                "audit_entries", recreate="always" if storage.database.dialect == "sqlite" else "never"
            ) as batch,
        ):
            batch.add_column(Column("note", Text()))
        assert missing_audit_triggers(connection) == frozenset()
    append(storage, change(2))
    report = verify(storage.database, [], None, one_owner=True)
    assert (report.size, report.findings) == (3, ())


def test_eight_writing_processes_leave_no_gap_and_no_fork(
    storage: Storage, audit: AuditService, files: CheckpointFiles, signer: Signer
) -> None:
    url = storage.database.engine.url.render_as_string(hide_password=False)
    starting = multiprocessing.get_context("forkserver")
    starting.set_forkserver_preload(["tests.store.audit_writer"])
    processes = [starting.Process(target=append_many, args=(url, worker, 25)) for worker in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    signed = audit.sign()
    report = verify(storage.database, [signer.verifier], files.directory, one_owner=False)
    expected = sum(committed(worker, 25) for worker in range(8))
    assert (report.findings, report.size, report.covered) == ((), expected, expected)
    assert signed is not None
    assert signed.checkpoint.root == report.root


def test_threads_share_a_database_in_memory(clock: SteppingClock) -> None:
    from controlplane.storage.migrate import upgrade

    database = create_database("sqlite:///:memory:")
    upgrade(database)
    storage = Storage(database, clock.now)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(storage, change(number)), range(64)))
    report = verify(database, [], None, one_owner=True)
    assert (report.size, report.findings) == (64, ())
    database.close()


def test_a_checkpoint_is_signed_stored_and_written_once(
    audit: AuditService, storage: Storage, files: CheckpointFiles, signer: Signer
) -> None:
    assert audit.sign() is None
    append(storage, change(1))
    first = audit.sign()
    assert first is not None
    assert (first.size, audit.sign(), audit.latest_note()) == (1, first, first.note)
    assert files.read() == [(1, first.note)]
    assert claimed_checkpoint(first.note).origin == "log.example/test"
    append(storage, change(2))
    second = audit.sign()
    assert second is not None
    assert files.read() == [(1, first.note), (2, second.note)]
    assert files.newest() == second.note


def test_a_file_lost_in_a_crash_is_written_at_the_next_call(
    audit: AuditService, storage: Storage, files: CheckpointFiles
) -> None:
    append(storage, change(1))
    signed = audit.sign()
    assert signed is not None
    (files.directory / "000000000001.checkpoint").unlink()
    assert audit.sign() == signed
    assert files.read() == [(1, signed.note)]


def test_many_signers_at_once_sign_one_history(audit: AuditService, storage: Storage, files: CheckpointFiles) -> None:
    append(storage, *(change(number) for number in range(5)))

    def act(number: int) -> None:
        append(storage, change(number))
        audit.sign()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(12)))
    report = verify(storage.database, audit._verifiers, files.directory, one_owner=False)
    assert (report.findings, report.warnings, report.covered) == ((), (), 17)


def test_a_process_without_the_key_does_not_sign(
    storage: Storage, clock: SteppingClock, files: CheckpointFiles
) -> None:
    keyless = AuditService(storage, AccessService(storage, clock), files, [Signer.generate("x").verifier], None)
    append(storage, change(1))
    with pytest.raises(Conflict, match="does not hold the signing key"):
        keyless.sign()
    with pytest.raises(Conflict, match="is not under a signed checkpoint yet"):
        keyless.prove(READER, 1)


def test_after_a_rotation_the_new_key_goes_on_where_the_old_one_ended(
    storage: Storage, clock: SteppingClock, files: CheckpointFiles, tmp_path: Path
) -> None:
    path = tmp_path / "keys" / "audit.key"

    def service() -> AuditService:
        signer = ensure_signing_key(path, "log.example/test")
        known = [signer.verifier, *retired_verifiers(path)]
        return AuditService(storage, AccessService(storage, clock), files, known, signer)

    append(storage, change(1))
    old = service()
    old.sign()
    new = rotate_signing_key(path, "log.example/test")
    append(storage, change(2))
    rotated = service()
    rotated.sign()
    assert rotated.key == str(new.verifier) != old.key
    assert [str(verifier) for verifier in retired_verifiers(path)] == [old.key]
    keys = [new.verifier, *retired_verifiers(path)]
    assert verify(storage.database, keys, files.directory, one_owner=False).checkpoints == 2
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(IntegrityError, match="no known key signed this note"):
        old.sign()


def test_a_client_follows_the_log_and_sees_a_rewritten_and_a_cut_one(
    audit: AuditService, storage: Storage, files: CheckpointFiles
) -> None:
    append(storage, *(change(number) for number in range(5)))
    audit.sign()
    pinned = open_as_client(audit.latest_note() or "", audit.key)
    append(storage, *(change(number) for number in range(4)))
    signed = audit.sign()
    assert signed is not None
    new = open_as_client(signed.note, audit.key)
    check_consistent(pinned, new, audit.consistency(READER, pinned.size, new.size))

    # The attacker holds database, key and files: he cuts the log and signs anew, then rewrites it and signs again.
    forgery = Forgery(storage.database)
    del forgery.entries[4:]
    forgery.subjects = [row for row in forgery.subjects if row["seq"] < 4]
    forgery.checkpoints.clear()
    forgery.recompute()
    forgery.put()
    for path in files.directory.iterdir():
        path.unlink()
    audit.sign()
    with pytest.raises(CheckpointMismatch, match="it had 9 entries when this client last looked, and now 4"):
        check_consistent(new, open_as_client(audit.latest_note() or "", audit.key), ())
    append(storage, *(change(100 + number) for number in range(8)))
    audit.sign()
    rewritten = open_as_client(audit.latest_note() or "", audit.key)
    with pytest.raises(CheckpointMismatch, match="its first 9 entries are not those that this client saw"):
        check_consistent(new, rewritten, audit.consistency(READER, new.size, rewritten.size))


@pytest.mark.parametrize(("old", "new"), [(-1, 1), (2, 1), (0, 3), (3, 3)])
def test_there_is_no_consistency_proof_outside_the_log(
    audit: AuditService, storage: Storage, old: int, new: int
) -> None:
    append(storage, change(1), change(2))
    with pytest.raises(InvalidInput, match=f"there is no proof from {old} to {new} entries"):
        audit.consistency(READER, old, new)


def test_a_proof_shows_a_changes_entries_offline(audit: AuditService, storage: Storage, signer: Signer) -> None:
    append(storage, change(1), change(2), change(3))
    audit.sign()
    append(storage, change(2, Action.CHANGE_APPLIED), change(4))
    proof = audit.prove(READER, 2).text()
    shown = verify_proof(proof, [signer.verifier])
    assert shown.subject == ("change", "2")
    assert [(entry.seq, entry.action) for entry in shown.entries] == [(1, "change.proposed"), (3, "change.applied")]
    assert (shown.checkpoint.size, shown.checkpoint.origin) == (5, "log.example/test")

    for altered in (
        proof.replace('"change":"2"', '"change":"3"'),
        proof.replace("subject change 2", "subject change 3"),
        proof.replace("entry 1 ", "entry 0 "),
        proof.replace("\n5\n", "\n6\n"),
        "\n".join(line for number, line in enumerate(proof.split("\n")) if number != 3),
        proof.replace("@v1", "@v2"),
        proof.partition("\n\n")[0],
        "",
    ):
        assert altered != proof
        with pytest.raises(IntegrityError):
            verify_proof(altered, [signer.verifier])
    with pytest.raises(IntegrityError, match="no known key signed this note"):
        verify_proof(proof, [Signer.generate("log.example/test").verifier])


def test_there_is_no_proof_of_what_the_log_does_not_know(audit: AuditService) -> None:
    with pytest.raises(NotFound, match="the audit log says nothing of change 12"):
        audit.prove(READER, 12)


def test_an_entry_that_cannot_be_read_is_said_and_not_skipped(audit: AuditService, storage: Storage) -> None:
    append(storage, change(1))
    forgery = Forgery(storage.database)
    forgery.entries[0]["body"] = "{}"
    forgery.put()
    with pytest.raises(AuditBroken, match="an audit entry cannot be read"):
        audit.list(READER)


def test_the_signing_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.key"
    with ThreadPoolExecutor(8) as pool:
        signers = list(pool.map(lambda _: ensure_signing_key(path, "log.example/one"), range(8)))
    assert len({str(signer.verifier) for signer in signers}) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["audit.key"]


def test_a_reading_transaction_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), database.reading() as connection:
        connection.exec_driver_sql("DELETE FROM principals")
