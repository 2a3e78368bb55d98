# The audit log's speed: appends by one and by eight writing processes, and verifying it whole.
from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from sqlalchemy import text

from controlplane.domain.access import Actor, PrincipalKind
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.notes import Signer
from controlplane.services.audit_verify import verify
from controlplane.storage.database import Database, create_database
from controlplane.storage.migrate import upgrade
from controlplane.storage.unit_of_work import Storage
from tests.bench.report import Report, by_turns
from tests.store.postgres import postgres_server

FACT = AuditFact(
    Actor("bench", PrincipalKind.SERVICE_ACCOUNT), Action.POLICY_SET, {"environment": "bench"}, {"number": 1}
)
SECONDS = 1.0
TURNS = 3
ENTRIES = 100_000
_TOGETHER = 2_000  # entries of one transaction while the log is filled; not what is measured


def measure(report: Report, scratch: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server())
        urls = {
            "SQLite": f"sqlite:///{scratch / 'audit.sqlite'}",
            "PostgreSQL (fsync off)": server.create().render_as_string(hide_password=False),
        }
        for name, url in urls.items():
            _measure_one(report, name, url)


def _measure_one(report: Report, name: str, url: str) -> None:
    with _migrated(url) as database, _Writers(url, 8) as writers:
        one, eight, bare = by_turns(
            TURNS, lambda: writers.rate(_append, 1), lambda: writers.rate(_append, 8), lambda: writers.rate(_insert, 1)
        )
        report.add(f"audit appends, 1 writer, {name}", "1/s", one, bare, "bare inserts, 1 writer")
        report.add(f"audit appends, 8 writers, {name}", "1/s", eight, one, "appends, 1 writer")
        if name == "SQLite":  # the tree is recomputed here, whoever holds the rows; filling a second log takes a minute
            _fill(database)
            size = _size(database)
            whole, read = by_turns(2, lambda: _verify(database), lambda: _read(database))
            per_second = [size / seconds for seconds in whole], [size / seconds for seconds in read]
            report.add(f"audit verify of {size} entries, {name}", "1/s", *per_second, "reading the rows")


@contextmanager
def _migrated(url: str) -> Iterator[Database]:
    database = create_database(url)
    upgrade(database)
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE bare (id INTEGER PRIMARY KEY, body TEXT)"))
    yield database
    database.close()


def _append(storage: Storage, _serial: int) -> None:
    with storage.write() as unit:
        unit.audit.append(FACT)


def _insert(storage: Storage, serial: int) -> None:
    """The least that a durable row costs: the same transaction, without tree or canonical bytes."""
    with storage.database.writing() as connection:
        connection.execute(text("INSERT INTO bare (id, body) VALUES (:id, :body)"), {"id": serial, "body": "x" * 300})


class _Writers:
    """Processes that wait for their turn, connected."""

    def __init__(self, url: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_write, args=(url, number, theirs), daemon=True).start()
            self._pipes.append(ours)
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(None)

    def rate(self, act: Callable[[Storage, int], None], count: int) -> float:
        """Transactions a second of `count` processes that all write as fast as they can."""
        for pipe in self._pipes[:count]:
            pipe.send(act)
        return float(sum(pipe.recv() for pipe in self._pipes[:count])) / SECONDS


def _write(url: str, number: int, pipe: Connection) -> None:
    database = create_database(url)
    storage = Storage(database)
    serial = number * 100_000_000
    with storage.read() as unit:
        unit.audit.size()
    pipe.send("ready")
    while (act := pipe.recv()) is not None:
        done, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            done += 1
            act(storage, serial + done)
        serial += done
        pipe.send(done)
    database.close()


def _size(database: Database) -> int:
    with Storage(database).read() as unit:
        return unit.audit.size()


def _fill(database: Database) -> None:
    storage = Storage(database)
    while (size := _size(database)) < ENTRIES:
        with storage.write() as unit:
            for _ in range(min(_TOGETHER, ENTRIES - size)):
                unit.audit.append(FACT)


def _verify(database: Database) -> float:
    verifier = Signer.generate("bench").verifier
    begin = time.monotonic()
    report = verify(database, [verifier], None, one_owner=False)
    taken = time.monotonic() - begin
    assert report.intact
    return taken


def _read(database: Database) -> float:
    begin = time.monotonic()
    with Storage(database).read() as unit:
        seen = sum(len(chunk) for chunk in unit.raw_audit.entries())
    assert seen >= ENTRIES
    return time.monotonic() - begin
