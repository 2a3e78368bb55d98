# Engines and transactions: what a reading and a writing transaction are on SQLite and on PostgreSQL.
"""A reading transaction sees one snapshot and cannot write. A writing transaction is alone on SQLite (BEGIN IMMEDIATE)
and READ COMMITTED on PostgreSQL. One inside another in the same thread is a mistake in the program: on SQLite the inner
one would wait for the outer one until the time limit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from controlplane.errors import DatabaseBusy, SettingsInvalid

BUSY_TIMEOUT_SECONDS = 30
DatabaseFailed = (SQLAlchemyError, DatabaseBusy)
"""For those who must tell a database that failed from everything else, and may not know SQL."""
STOPPED_SECONDS = 30
"""A process that says nothing for so long inside a writing transaction is stopped: PostgreSQL ends the transaction, whose
locks would keep everybody else waiting."""
_WRITES = "controlplane_writes"
_CHANGES_SCHEMA = "controlplane_changes_schema"


class Database:
    """One engine, and the lock that makes this process's SQLite writers take turns (SQLite itself lets them starve)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._here = threading.local()
        self._write_lock = threading.RLock() if self.dialect == "sqlite" else None
        # In memory there is one connection for all threads, so reading takes a turn as well.
        self._read_lock = self._write_lock if isinstance(engine.pool, StaticPool) else None

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; None in memory and on PostgreSQL."""
        name = self.engine.url.database
        return Path(name) if self.dialect == "sqlite" and name and name != ":memory:" else None

    @contextmanager
    def writing(self, *, schema_change: bool = False) -> Iterator[Connection]:
        """A connection in a writing transaction: committed at the end, rolled back when the block raises.

        `schema_change` leaves SQLite's foreign keys unenforced: it replaces a table by dropping it, which would cascade.
        """
        with self._only_one_here(), _turn(self._write_lock), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True, _CHANGES_SCHEMA: schema_change})
            with connection.begin():
                if self.dialect == "postgresql" and not schema_change:
                    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{STOPPED_SECONDS}s'")
                yield connection

    @contextmanager
    def _only_one_here(self) -> Iterator[None]:
        assert not getattr(self._here, "writing", False), "a writing transaction inside another one"
        self._here.writing = True
        try:
            yield
        finally:
            self._here.writing = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read-only transaction on one snapshot."""
        with _turn(self._read_lock), self.engine.connect() as plain:
            connection = plain
            if self.dialect == "postgresql":
                connection = plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def commits(self) -> Iterator[Callable[[], int | None]]:
        """A function that costs microseconds: its number is another one after every commit that anybody made since. None
        where only a query can tell. For one thread."""
        if self.path is None:
            yield lambda: None
            return
        connection = self.engine.raw_connection()
        try:
            plain = connection.driver_connection
            assert isinstance(plain, sqlite3.Connection)
            yield lambda: int(plain.execute("PRAGMA data_version").fetchone()[0])
        finally:
            connection.close()

    def close(self) -> None:
        self.engine.dispose()


def create_database(url: str) -> Database:
    """Connect lazily to `sqlite:///FILE`, `sqlite:///:memory:` or `postgresql://…` (psycopg 3). Raises SettingsInvalid."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
            raise SettingsInvalid(
                f"the database {parsed.get_backend_name()!r} is not supported",
                hint="use sqlite:///FILE or postgresql://USER@HOST/NAME",
            )
        return Database(_sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed))
    except (ArgumentError, NoSuchModuleError):
        # The text may hold a password, so it is not repeated.
        raise SettingsInvalid(
            "the database URL cannot be read", hint="use sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None


def _sqlite(url: URL) -> Engine:
    connect_args = {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    if url.database in {None, "", ":memory:"}:
        engine = create_engine(url, poolclass=StaticPool, connect_args=connect_args)
    else:
        engine = create_engine(url, connect_args=connect_args)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # we say BEGIN ourselves
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    """Past SQLAlchemy's execution, which costs ten times what SQLite does: each transaction begins here."""
    options = connection.get_execution_options()
    writes = options.get(_WRITES, False)
    plain = connection.connection.driver_connection
    assert isinstance(plain, sqlite3.Connection)
    try:
        # Both switches do nothing inside a transaction, so each connection gets them right before it.
        plain.execute(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        plain.execute(f"PRAGMA foreign_keys={'OFF' if options.get(_CHANGES_SCHEMA, False) else 'ON'}")
        plain.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise DatabaseBusy(
                f"the database was busy for {BUSY_TIMEOUT_SECONDS} seconds",
                hint="try again; if it lasts, look for another process that holds the database file",
            ) from None
        raise OperationalError("BEGIN", None, error) from error
    except sqlite3.Error as error:  # such as a file that is no database
        raise DatabaseError("BEGIN", None, error) from error


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True)


def _turn(lock: threading.RLock | None) -> AbstractContextManager[object]:
    return nullcontext() if lock is None else lock
