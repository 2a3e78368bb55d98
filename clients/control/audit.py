# The audit log.
from __future__ import annotations

import base64

from clients.control.decode import decode
from clients.control.transport import Connection
from clients.control.types import AuditEntry, Checkpoint, Consistency, Page, ProofFile


class AuditRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def entries(
        self,
        *,
        subject: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[AuditEntry]:
        """The newest first; `subject` is KIND:ID."""
        return self._connection.page(
            AuditEntry,
            "/v1/audit/entries",
            subject=subject,
            actor=actor,
            action=action,
            cursor=cursor,
            limit=limit,
        )

    def checkpoint(self) -> Checkpoint:
        """The latest signed one."""
        return decode(Checkpoint, self._connection.get("/v1/audit/checkpoint"))

    def sign(self) -> Checkpoint:
        return decode(Checkpoint, self._connection.post("/v1/audit/checkpoint"))

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        found = decode(Consistency, self._connection.get("/v1/audit/consistency", old=old, new=new))
        return tuple(base64.b64decode(text) for text in found.hashes)

    def proof(self, change: int) -> str:
        return decode(ProofFile, self._connection.get(f"/v1/audit/changes/{change}/proof")).text
