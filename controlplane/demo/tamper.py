# Somebody who has the database rewrites history: on a copy, with plain SQL.
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

BLAME = """UPDATE audit_entries
   SET actor = 'author', body = replace(body, '"name":"approver"', '"name":"author"')
 WHERE seq = {seq}"""
"""Puts an approval down to somebody else."""


@dataclass(frozen=True, slots=True)
class Forgery:
    """`refusal` is what the triggers said to the first attempt, `dropped` the triggers that had to go for the second."""

    statement: str
    refusal: str
    dropped: tuple[str, ...]


def forge(database: Path, copy: Path, seq: int) -> Forgery:
    """Copy a SQLite database that is in use, and put the blame for entry `seq` on another in the copy. Raises
    sqlite3.Error; `refusal` is empty when the triggers let it pass."""
    statement = BLAME.format(seq=seq)
    with _open(database) as source, _open(copy) as target:
        source.backup(target)
        try:
            target.execute(statement)
            refusal = ""
        except sqlite3.IntegrityError as error:
            refusal = str(error)
        named = target.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_entries'")
        dropped = tuple(sorted(name for (name,) in named))
        for name in dropped:
            target.execute(f"DROP TRIGGER {name}")
        target.execute(statement)
        target.commit()
    return Forgery(statement, refusal, dropped)


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection
