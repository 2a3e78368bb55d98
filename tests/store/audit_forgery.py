# An attacker with full power over the database, and none over the signing key.
from __future__ import annotations

from typing import Any

from sqlalchemy import text

from controlplane.domain.merkle import Frontier, leaf_hash
from controlplane.storage.database import Database
from controlplane.storage.triggers import drop_audit_triggers, restore_audit_triggers

Row = dict[str, Any]
TABLES = ("audit_checkpoints", "audit_subtrees", "audit_subjects", "audit_entries")


class Forgery:
    """Take the log out, change `entries`, `subjects`, `subtrees` and `checkpoints` at will, and `put` it back, triggers
    and all."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as connection:
            tables = {
                name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]
                for name in TABLES
            }
        self.entries = sorted(tables["audit_entries"], key=lambda row: int(row["seq"]))
        self.subjects = tables["audit_subjects"]
        self.subtrees = tables["audit_subtrees"]
        self.checkpoints = sorted(tables["audit_checkpoints"], key=lambda row: int(row["size"]))

    def rehash(self, entry: Row) -> None:
        entry["leaf_hash"] = leaf_hash(entry["body"].encode()).hex()

    def renumber(self) -> None:
        """Give every entry the number of its place, in the row and not in the text."""
        moved = {entry["seq"]: number for number, entry in enumerate(self.entries)}
        self.subjects = [{**row, "seq": moved[row["seq"]]} for row in self.subjects if row["seq"] in moved]
        for number, entry in enumerate(self.entries):
            entry["seq"] = number

    def recompute(self) -> None:
        """Make every hash fit again."""
        tree = Frontier()
        self.subtrees = []
        for entry in self.entries:
            self.rehash(entry)
            for (level, position), value in tree.append(bytes.fromhex(entry["leaf_hash"])):
                self.subtrees.append({"level": level, "position": position, "hash": value.hex()})

    def put(self) -> None:
        with self._database.writing() as connection:
            drop_audit_triggers(connection)
            for name in TABLES:
                connection.execute(text(f"DELETE FROM {name}"))
            for name, rows in (
                ("audit_entries", self.entries),
                ("audit_subjects", self.subjects),
                ("audit_subtrees", self.subtrees),
                ("audit_checkpoints", self.checkpoints),
            ):
                for row in rows:
                    places = ", ".join(f":{column}" for column in row)
                    connection.execute(text(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({places})"), row)
            restore_audit_triggers(connection)
