# The triggers that keep the audit log append-only, on both databases.
"""They stop mistakes and ordinary SQL users. Whoever owns the database can drop them: what he then alters is what
signed checkpoints are for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class _AppendOnly:
    """`next_row` holds when NEW may be inserted. It also stops INSERT OR REPLACE, whose implicit delete fires no
    DELETE trigger: a key that is already there is never the next one."""

    table: str
    next_row: str


_TABLES = (
    _AppendOnly("audit_entries", "NEW.seq = (SELECT coalesce(max(seq), -1) + 1 FROM audit_entries)"),
    _AppendOnly(
        "audit_subjects",
        "NEW.seq = (SELECT max(seq) FROM audit_entries) AND NOT EXISTS "
        "(SELECT 1 FROM audit_subjects WHERE kind = NEW.kind AND id = NEW.id AND seq = NEW.seq)",
    ),
    _AppendOnly(
        "audit_subtrees",
        "NEW.position = (SELECT coalesce(max(position), -1) + 1 FROM audit_subtrees WHERE level = NEW.level)",
    ),
    _AppendOnly(
        "audit_checkpoints",
        "NEW.size > (SELECT coalesce(max(size), 0) FROM audit_checkpoints) "
        "AND NEW.size <= (SELECT coalesce(max(seq), -1) + 1 FROM audit_entries)",
    ),
)

TRIGGERS = {
    "sqlite": frozenset(f"{rule.table}_no_{verb}" for rule in _TABLES for verb in ("update", "delete", "disorder")),
    "postgresql": frozenset(f"{rule.table}_no_{verb}" for rule in _TABLES for verb in ("change", "disorder")),
}


@contextmanager
def audit_triggers_lifted(connection: Connection) -> Iterator[None]:
    """Put it around every Alembic batch on these tables. SQLite's batch replaces the table: it silently loses the
    table's own triggers, and fails on those of others that name it. Nobody sees the gap: it is inside the transaction."""
    drop_audit_triggers(connection)
    yield
    restore_audit_triggers(connection)


def restore_audit_triggers(connection: Connection) -> None:
    """Create the triggers, or create them anew."""
    for statement in _statements(connection.dialect.name):
        connection.exec_driver_sql(statement)


def drop_audit_triggers(connection: Connection) -> None:
    for rule in _TABLES:
        for verb in ("update", "delete", "disorder", "change"):
            name = f"{rule.table}_no_{verb}"
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
            else:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {rule.table}")
                connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}()")


def missing_audit_triggers(connection: Connection) -> frozenset[str]:
    """Those that were dropped or disabled."""
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A'",
    }[connection.dialect.name]
    return TRIGGERS[connection.dialect.name] - set(connection.exec_driver_sql(query).scalars())


def _statements(dialect: str) -> list[str]:
    return [text for rule in _TABLES for text in (_sqlite(rule) if dialect == "sqlite" else _postgresql(rule))]


def _sqlite(rule: _AppendOnly) -> list[str]:
    table = rule.table
    events = (
        ("update", f"UPDATE ON {table}", "append-only"),
        ("delete", f"DELETE ON {table}", "append-only"),
        ("disorder", f"INSERT ON {table} WHEN NOT coalesce({rule.next_row}, 0)", "not the next row"),
    )
    drop = [f"DROP TRIGGER IF EXISTS {table}_no_{verb}" for verb, _, _ in events]
    return drop + [
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{table}: {reason}'); END"
        for verb, event, reason in events
    ]


def _postgresql(rule: _AppendOnly) -> list[str]:
    table = rule.table
    change = f"RAISE EXCEPTION '{table}: append-only';"
    disorder = f"IF NOT coalesce({rule.next_row}, false) THEN RAISE EXCEPTION '{table}: not the next row'; END IF;"
    statements = []
    for verb, event, action in (
        ("change", f"UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT", change),
        ("disorder", f"INSERT ON {table} FOR EACH ROW", disorder),
    ):
        name = f"{table}_no_{verb}"
        statements += [
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action} RETURN NEW; END $$",
            f"CREATE OR REPLACE TRIGGER {name} BEFORE {event} EXECUTE FUNCTION {name}()",
            # ALWAYS: also for a session that calls itself a replica.
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
        ]
    return statements
