# Transactions, column types and kept answers, on both databases.
from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from controlplane.domain.access import PrincipalKind
from controlplane.domain.canonical import Json
from controlplane.errors import DatabaseNotReady, IdempotencyMismatch, InvalidInput, SettingsInvalid
from controlplane.storage.database import Database, create_database
from controlplane.storage.idempotency import KEPT, KeptAnswer
from controlplane.storage.migrate import check_ready
from controlplane.storage.types import CanonicalJson, UtcDateTime
from controlplane.storage.unit_of_work import Storage

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SAMPLES = Table("samples", MetaData(), Column("id", Integer), Column("at", UtcDateTime), Column("tree", CanonicalJson))


@pytest.fixture
def samples(database: Database) -> Database:
    with database.writing() as connection:
        SAMPLES.create(connection)
    return database


@pytest.mark.parametrize(
    ("tree", "stored"),
    [
        ({"b": [1, None, True], "a": "ü\x00\u2028"}, '{"a":"ü\\u0000\u2028","b":[1,null,true]}'),
        ([], "[]"),
        (0, "0"),
        (None, None),
    ],
)
def test_both_databases_hold_the_same_bytes(samples: Database, tree: Json, stored: str | None) -> None:
    at = datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC)
    with samples.writing() as connection:
        connection.execute(insert(SAMPLES), {"id": 1, "at": at, "tree": tree})
    with samples.reading() as connection:
        assert tuple(connection.execute(text("SELECT at, tree FROM samples")).one()) == (
            "2026-11-22T01:02:03.000004Z",
            stored,
        )
        assert tuple(connection.execute(select(SAMPLES.c.at, SAMPLES.c.tree)).one()) == (at, tree)


@pytest.mark.parametrize("values", [{"at": datetime(2026, 11, 22)}, {"tree": 0.5}])  # noqa: DTZ001
def test_naive_times_and_floats_are_refused(samples: Database, values: dict[str, Any]) -> None:
    with pytest.raises((InvalidInput, StatementError)), samples.writing() as connection:
        connection.execute(insert(SAMPLES), {"id": 1, **values})


def test_a_failed_unit_of_work_leaves_nothing(storage: Storage) -> None:
    def fail() -> None:
        with storage.write() as unit:
            unit.access.add("bob", PrincipalKind.PERSON, (), NOW)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    with storage.read() as unit:
        assert unit.access.principals() == ()


def test_a_reader_sees_one_snapshot_while_others_write(storage: Storage) -> None:
    with storage.read() as unit:
        assert unit.access.principals() == ()

        def write() -> None:
            with storage.write() as other:
                other.access.add("bob", PrincipalKind.PERSON, (), NOW)

        writer = threading.Thread(target=write)
        writer.start()
        writer.join(90)
        assert not writer.is_alive()
        unit.session.expire_all()
        assert unit.access.principals() == ()
    with storage.read() as unit:
        assert [principal.name for principal in unit.access.principals()] == ["bob"]


def test_a_writing_transaction_inside_another_is_a_mistake_and_says_so(storage: Storage) -> None:
    def nest() -> None:
        with storage.write(), storage.write():
            pass

    with pytest.raises(AssertionError, match="a writing transaction inside another one"):
        nest()
    with storage.write() as unit:
        unit.access.add("bob", PrincipalKind.PERSON, (), NOW)


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(text("INSERT INTO principal_roles (principal_id, role) VALUES (99, 'admin')"))


def test_a_kept_answer_is_given_to_the_same_request_for_a_day(storage: Storage) -> None:
    with storage.write() as unit:
        bob = unit.access.add("bob", PrincipalKind.PERSON, (), NOW).id
        eve = unit.access.add("eve", PrincipalKind.PERSON, (), NOW).id
        unit.idempotency.keep(bob, "key", "sha256:00", KeptAnswer(201, '{"id":1}'), NOW)
    with storage.read() as unit:
        assert unit.idempotency.find(bob, "key", "sha256:00", NOW + KEPT / 2) == KeptAnswer(201, '{"id":1}')
        assert unit.idempotency.find(eve, "key", "sha256:00", NOW) is None
        assert unit.idempotency.find(bob, "key", "sha256:00", NOW + KEPT) is None
        with pytest.raises(IdempotencyMismatch, match="the Idempotency-Key 'key' was used for another request"):
            unit.idempotency.find(bob, "key", "sha256:01", NOW)


def test_keeping_an_answer_forgets_those_of_yesterday(storage: Storage) -> None:
    with storage.write() as unit:
        bob = unit.access.add("bob", PrincipalKind.PERSON, (), NOW).id
        unit.idempotency.keep(bob, "old", "sha256:00", KeptAnswer(201, ""), NOW)
        unit.idempotency.keep(bob, "young", "sha256:00", KeptAnswer(201, ""), NOW + timedelta(hours=12))
    with storage.write() as unit:
        unit.idempotency.keep(bob, "old", "sha256:02", KeptAnswer(202, ""), NOW + KEPT)
    with storage.database.reading() as connection:
        rows = connection.execute(text("SELECT key, status FROM idempotency_keys ORDER BY key")).all()
    assert [tuple(row) for row in rows] == [("old", 202), ("young", 201)]


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://root:hunter2@host/x", "oracle+x://root:hunter2@host"])
def test_a_database_that_is_not_supported_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsInvalid) as refusal:
        create_database(url)
    assert "hunter2" not in refusal.value.message
    assert refusal.value.hint == "use sqlite:///FILE or postgresql://USER@HOST/NAME"


def test_a_database_that_does_not_answer_is_not_ready_and_keeps_its_password() -> None:
    database = create_database("postgresql://root:hunter2@127.0.0.1:1/none")
    with pytest.raises(DatabaseNotReady, match="does not answer") as refusal:
        check_ready(database)
    assert "hunter2" not in refusal.value.message
    database.close()


def test_a_commit_by_anybody_is_noticed_without_a_query(samples: Database) -> None:
    elsewhere = create_database(samples.engine.url.render_as_string(hide_password=False))
    with samples.commits() as commits:
        if samples.path is None:
            assert commits() is None  # PostgreSQL: only a query can tell
            return
        before = commits()
        with samples.reading() as connection:
            connection.execute(select(SAMPLES)).all()
        assert commits() == before
        numbers = [before]
        for database in (samples, elsewhere):
            with database.writing() as connection:
                connection.execute(insert(SAMPLES), {"id": 1})
            numbers.append(commits())
    assert len(set(numbers)) == 3
    elsewhere.close()
