# Acceptance 8: each tampering is found and named, on both databases, by whoever has the database and the public key.
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.audit_report import Finding, Tampering, VerificationReport
from controlplane.domain.checkpoints import sign_checkpoint
from controlplane.domain.notes import Signer
from controlplane.errors import AuditBroken
from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.audit_verify import verify
from controlplane.storage.checkpoint_files import CheckpointFiles
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage
from tests.store.audit_forgery import Forgery
from tests.store.clock import SteppingClock


@dataclass
class Log:
    """Thirteen entries; checkpoints over 6 and 11; a tail of two."""

    database: Database
    storage: Storage
    signer: Signer
    directory: Path
    service: AuditService

    def append(self, count: int) -> None:
        for number in range(count):
            with self.storage.write() as unit:
                unit.audit.append(AuditFact(SYSTEM, Action.POLICY_SET, {"environment": f"env{number}"}))

    def verify(self, *, files: bool = True, one_owner: bool = False) -> VerificationReport:
        directory = self.directory if files else None
        return verify(self.database, [self.signer.verifier], directory, one_owner=one_owner)


@pytest.fixture
def log(database: Database, storage: Storage, clock: SteppingClock, tmp_path: Path) -> Log:
    signer = Signer.generate("log.example/test")
    directory = tmp_path / "checkpoints"
    access = AccessService(storage, clock)
    service = AuditService(storage, access, CheckpointFiles(directory), [signer.verifier], signer)
    made = Log(database, storage, signer, directory, service)
    made.append(6)
    service.sign()
    made.append(5)
    service.sign()
    made.append(2)
    return made


def test_an_untouched_log_is_intact_and_its_tail_is_named(log: Log) -> None:
    report = log.verify()
    assert report.findings == ()
    assert report.warnings == ()
    assert (report.size, report.covered, report.tail, report.checkpoints) == (13, 11, 2, 2)
    assert report.excludes == (
        "Entries 0 to 10 are as they were signed: nobody without the signing key has altered them. The checkpoint files, "
        "which are not in the database, show that none of the first 11 was cut off. Entries 11 to 12 are under no "
        "checkpoint yet: whoever can write the database could have altered them."
    )


def test_the_report_claims_no_more_than_was_checked(log: Log) -> None:
    alone = log.verify(files=False, one_owner=True).excludes
    assert "No checkpoint outside the database was compared" in alone
    assert "have one owner, whom this does not exclude" in alone
    unsigned = verify(log.database, [], log.directory, one_owner=False)
    assert (unsigned.covered, unsigned.tail) == (0, 13)
    assert unsigned.warnings == ("no key was given, so no checkpoint was checked",)
    assert "whoever can write the database may have rewritten all of it" in unsigned.excludes


def test_an_empty_log_is_intact(database: Database, tmp_path: Path) -> None:
    report = verify(database, [], tmp_path, one_owner=False)
    assert (report.size, report.intact) == (0, True)


def edit_text(forgery: Forgery) -> None:
    forgery.entries[4]["body"] = forgery.entries[4]["body"].replace("env4", "env9")


def edit_text_and_its_hash(forgery: Forgery) -> None:
    edit_text(forgery)
    forgery.rehash(forgery.entries[4])


def edit_text_to_nonsense(forgery: Forgery) -> None:
    forgery.entries[4]["body"] = "]["
    forgery.rehash(forgery.entries[4])


def edit_stored_hash(forgery: Forgery) -> None:
    forgery.entries[4]["leaf_hash"] = "no hash at all"


def edit_search_columns(forgery: Forgery) -> None:
    forgery.entries[4]["actor"] = "eve"


def edit_subject(forgery: Forgery) -> None:
    next(row for row in forgery.subjects if row["seq"] == 4)["id"] = "env9"


def edit_subtree(forgery: Forgery) -> None:
    forgery.subtrees[0]["hash"] = "00" * 32


def edit_a_peak(forgery: Forgery) -> None:
    next(row for row in forgery.subtrees if row["level"] == 3)["hash"] = "00" * 32


def delete(forgery: Forgery) -> None:
    del forgery.entries[4]
    forgery.subjects = [row for row in forgery.subjects if row["seq"] != 4]


def delete_and_move_up(forgery: Forgery) -> None:
    delete(forgery)
    forgery.renumber()


def delete_and_recompute(forgery: Forgery) -> None:
    delete_and_move_up(forgery)
    forgery.recompute()


def delete_several(forgery: Forgery) -> None:
    del forgery.entries[4:7]
    forgery.subjects = [row for row in forgery.subjects if not 4 <= row["seq"] < 7]


def insert(forgery: Forgery) -> None:
    forged = {**forgery.entries[3], "seq": 3.5}
    body = {**json.loads(forged["body"]), "seq": 4, "request_id": "forged"}
    forged["body"] = json.dumps(body, separators=(",", ":"), sort_keys=True)
    forgery.rehash(forged)
    forgery.entries.insert(4, forged)
    forgery.subjects += [{**row, "seq": 3.5} for row in forgery.subjects if row["seq"] == 3]
    forgery.renumber()


def insert_and_recompute(forgery: Forgery) -> None:
    insert(forgery)
    forgery.recompute()


def insert_before_the_first(forgery: Forgery) -> None:
    forgery.entries.insert(0, {**forgery.entries[0], "seq": -1})


def reorder(forgery: Forgery) -> None:
    entries = forgery.entries
    entries[4], entries[8] = entries[8], entries[4]
    forgery.renumber()


def reorder_and_recompute(forgery: Forgery) -> None:
    reorder(forgery)
    forgery.recompute()


def cut_the_tail(forgery: Forgery) -> None:
    del forgery.entries[9:]
    forgery.subjects = [row for row in forgery.subjects if row["seq"] < 9]


def cut_the_tail_and_its_hashes(forgery: Forgery) -> None:
    cut_the_tail(forgery)
    forgery.recompute()


def cut_the_tail_and_its_checkpoint(forgery: Forgery) -> None:
    cut_the_tail_and_its_hashes(forgery)
    del forgery.checkpoints[1]


def rewrite_and_recompute(forgery: Forgery) -> None:
    edit_text(forgery)
    forgery.recompute()


def rewrite_the_later_part_and_recompute(forgery: Forgery) -> None:
    forgery.entries[8]["body"] = forgery.entries[8]["body"].replace("env2", "new2")
    next(row for row in forgery.subjects if row["seq"] == 8)["id"] = "new2"
    forgery.recompute()


def rewrite_consistently(forgery: Forgery) -> None:
    edit_text(forgery)
    edit_subject(forgery)
    forgery.recompute()


ATTACKS: list[tuple[Callable[[Forgery], None], Tampering, int, int]] = [
    (edit_text, Tampering.EDITED, 4, 4),
    (edit_text_and_its_hash, Tampering.EDITED, 4, 4),
    (edit_text_to_nonsense, Tampering.EDITED, 4, 4),
    (edit_stored_hash, Tampering.EDITED, 4, 4),
    (edit_search_columns, Tampering.EDITED, 4, 4),
    (edit_subject, Tampering.EDITED, 4, 4),
    (edit_subtree, Tampering.EDITED, 0, 1),
    (edit_a_peak, Tampering.EDITED, 0, 7),
    (delete, Tampering.DELETED, 4, 4),
    (delete_several, Tampering.DELETED, 4, 6),
    (delete_and_move_up, Tampering.DELETED, 4, 4),
    (delete_and_recompute, Tampering.DELETED, 4, 4),
    (insert, Tampering.INSERTED, 4, 4),
    (insert_and_recompute, Tampering.INSERTED, 4, 4),
    (insert_before_the_first, Tampering.INSERTED, 0, 0),
    (reorder, Tampering.REORDERED, 4, 4),
    (reorder_and_recompute, Tampering.REORDERED, 4, 4),
    (cut_the_tail, Tampering.TAIL_CUT, 9, 11),
    (cut_the_tail_and_its_hashes, Tampering.TAIL_CUT, 9, 10),
    (cut_the_tail_and_its_checkpoint, Tampering.TAIL_CUT, 9, 10),
    (rewrite_and_recompute, Tampering.EDITED, 4, 4),
    (rewrite_consistently, Tampering.RECOMPUTED, 0, 5),
    (rewrite_the_later_part_and_recompute, Tampering.RECOMPUTED, 6, 10),
]


@pytest.mark.parametrize(("attack", "kind", "first", "last"), ATTACKS, ids=[each[0].__name__ for each in ATTACKS])
def test_tampering_is_named_with_its_place(
    log: Log, attack: Callable[[Forgery], None], kind: Tampering, first: int, last: int
) -> None:
    forgery = Forgery(log.database)
    attack(forgery)
    forgery.put()
    report = log.verify()
    assert [(found.kind, found.first, found.last) for found in report.findings] == [(kind, first, last)]
    assert report.covered <= first
    assert report.findings[0].attacker


def test_what_was_signed_and_altered_is_not_called_unsigned(log: Log) -> None:
    forgery = Forgery(log.database)
    edit_text(forgery)
    forgery.put()
    report = log.verify()
    assert (report.signed, report.covered, report.tail) == (11, 4, 2)
    assert report.excludes == (
        "Entries 0 to 3 are as they were signed: nobody without the signing key has altered them. Entries 4 to 10 were "
        "signed too, and are no longer what was signed: no signature vouches for them any more. Entries 11 to 12 are "
        "under no checkpoint yet: whoever can write the database could have altered them."
    )


def test_a_log_that_was_cut_is_not_said_to_be_whole(log: Log) -> None:
    forgery = Forgery(log.database)
    cut_the_tail_and_its_checkpoint(forgery)
    forgery.put()
    excludes = log.verify().excludes
    assert "Entries 9 to 10 were recorded and are cut off." in excludes
    assert "was cut off" not in excludes
    assert "under no checkpoint" not in excludes


def test_an_untouched_log_taken_out_and_put_back_is_intact(log: Log) -> None:
    Forgery(log.database).put()
    assert log.verify().intact


def test_a_tail_cut_with_its_checkpoint_is_seen_only_with_the_files(log: Log) -> None:
    forgery = Forgery(log.database)
    cut_the_tail_and_its_checkpoint(forgery)
    forgery.put()
    alone = log.verify(files=False)
    assert alone.intact
    assert "may have cut the log back to an earlier checkpoint" in alone.excludes
    assert (
        log.verify().findings[0].message == "the log ends before entry 9, but a checkpoint over 11 entries was signed"
    )


@pytest.mark.parametrize("dialect", ["sqlite"])  # PostgreSQL stores no invalid text
def test_an_unreadable_text_in_the_database_is_found_and_not_stumbled_over(log: Log) -> None:
    forgery = Forgery(log.database)
    forgery.put()
    with log.database.writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_entries_no_update")
        connection.exec_driver_sql("UPDATE audit_entries SET body = CAST(x'ff00fe' AS TEXT) WHERE seq = 7")
    report = log.verify()
    assert [(found.kind, found.first) for found in report.findings] == [(Tampering.EDITED, 7)]
    assert report.warnings == ("triggers that keep the log append-only are missing: audit_entries_no_update",)


def test_a_checkpoint_by_another_key_is_named(log: Log) -> None:
    other = Signer.generate("log.example/test")
    CheckpointFiles(log.directory).write(12, sign_checkpoint(other, 12, b"x" * 32).note)
    report = log.verify()
    assert [(found.kind, found.first, found.last) for found in report.findings] == [
        (Tampering.FORGED_CHECKPOINT, 0, 11)
    ]
    assert report.findings[0].message.startswith("the checkpoint over 12 entries in the files is false: no known key")
    assert report.covered == 11


def test_a_holder_of_the_key_who_signs_a_second_history_is_named_by_the_first_ones_file(log: Log) -> None:
    forgery = Forgery(log.database)
    rewrite_consistently(forgery)
    forgery.checkpoints.clear()
    forgery.put()
    directory, log.directory = log.directory, log.directory / "elsewhere"
    service = AuditService(
        log.storage, log.service._access, CheckpointFiles(log.directory), [log.signer.verifier], log.signer
    )
    service.sign()
    assert log.verify().intact
    log.directory = directory
    assert [(found.kind, found.first, found.last) for found in log.verify().findings] == [(Tampering.FORKED, 0, 5)]


def test_missing_checkpoints_and_a_clock_that_goes_back_are_warnings(log: Log, clock: SteppingClock) -> None:
    forgery = Forgery(log.database)
    del forgery.checkpoints[0]
    forgery.put()
    (log.directory / "000000000011.checkpoint").unlink()
    clock.instant = clock.instant.replace(hour=6)
    log.append(1)
    report = log.verify()
    assert report.intact
    assert report.warnings == (
        "checkpoints are in the files and not in the table: 6",
        "checkpoints are in the table and not in the files: 11",
        "the clock went back before entry 13: 2026-11-22T06:00:16.000000Z",
    )


@pytest.mark.parametrize("attack", [rewrite_consistently, cut_the_tail_and_its_checkpoint, edit_a_peak])
def test_nothing_is_signed_over_a_log_that_contradicts_a_checkpoint(
    log: Log, attack: Callable[[Forgery], None]
) -> None:
    forgery = Forgery(log.database)
    attack(forgery)
    forgery.put()
    with pytest.raises(AuditBroken):
        log.service.sign()
    assert len(list(log.directory.iterdir())) == 2


def test_nothing_is_signed_over_an_edited_tail(log: Log) -> None:
    forgery = Forgery(log.database)
    forgery.entries[12]["body"] = forgery.entries[12]["body"].replace("env1", "env9")
    forgery.put()
    with pytest.raises(AuditBroken, match="audit entry 12 is not what was appended"):
        log.service.sign()


def test_findings_say_whom_they_point_to() -> None:
    finding = Finding(Tampering.RECOMPUTED, 0, 5, "")
    assert finding.attacker == (
        "someone who can write the database, recomputed every hash, and does not hold the signing key"
    )
