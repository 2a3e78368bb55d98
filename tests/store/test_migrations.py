# The schema and its migrations, on both databases.
from __future__ import annotations

import subprocess
import sys

import pytest

from controlplane.errors import DatabaseNotReady
from controlplane.storage.database import Database
from controlplane.storage.migrate import check, check_ready, current, downgrade, head, upgrade
from controlplane.storage.triggers import missing_audit_triggers, restore_audit_triggers


def missing(database: Database) -> frozenset[str]:
    with database.reading() as connection:
        return missing_audit_triggers(connection)


def test_the_schema_goes_up_matches_the_tables_goes_down_and_up_again(empty_database: Database) -> None:
    upgrade(empty_database)
    check(empty_database)
    downgrade(empty_database, "base")
    assert current(empty_database) is None
    upgrade(empty_database)
    check(empty_database)
    assert current(empty_database) == head()


def test_the_audit_triggers_stand_after_an_upgrade(database: Database) -> None:
    assert missing(database) == frozenset()


def test_restoring_the_audit_triggers_puts_back_lost_ones(database: Database) -> None:
    with database.writing() as connection:
        suffix = "" if database.dialect == "sqlite" else " ON audit_entries"
        connection.exec_driver_sql(f"DROP TRIGGER audit_entries_no_disorder{suffix}")
    assert missing(database) == {"audit_entries_no_disorder"}
    with database.writing() as connection:
        restore_audit_triggers(connection)
    assert missing(database) == frozenset()


def test_several_processes_may_upgrade_at_once(empty_database: Database) -> None:
    url = empty_database.engine.url.render_as_string(hide_password=False)

    program = (
        "import sys\n"
        "from controlplane.storage.database import create_database\n"
        "from controlplane.storage.migrate import upgrade\n"
        "upgrade(create_database(sys.argv[1]))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert current(empty_database) == head()


def test_an_empty_database_is_not_ready_and_the_hint_mends_it(empty_database: Database) -> None:
    with empty_database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE anything (id INTEGER)")
    with pytest.raises(DatabaseNotReady) as refusal:
        check_ready(empty_database)
    assert refusal.value.message == f"the database has schema none, this program needs {head()}"
    assert refusal.value.hint == "tritonctl db upgrade"


def test_a_migrated_database_is_ready(database: Database) -> None:
    check_ready(database)
