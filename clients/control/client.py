# The SDK of the HTTP API: one object, a room each for what it manages.
from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from clients.control import contexts
from clients.control.access import AccessRoom
from clients.control.audit import AuditRoom
from clients.control.catalog import CatalogRoom
from clients.control.changes import ChangesRoom
from clients.control.configs import ConfigsRoom
from clients.control.environments import EnvironmentsRoom
from clients.control.pinned import Witness
from clients.control.sweeps import SweepsRoom
from clients.control.transport import Connection
from clients.control.uploads import UploadsRoom
from clients.control.webhooks import WebhooksRoom


class ControlClient:
    """Every call raises ApiError when it was refused or no answer came. Not for sharing between threads."""

    def __init__(
        self,
        api: str,
        token: str | None,
        *,
        timeout_seconds: float = 30.0,
        on_checkpoint: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.connection = Connection(
            api, token, timeout_seconds=timeout_seconds, on_checkpoint=on_checkpoint, transport=transport
        )
        self.access = AccessRoom(self.connection)
        self.audit = AuditRoom(self.connection)
        self.catalog = CatalogRoom(self.connection)
        self.changes = ChangesRoom(self.connection)
        self.configs = ConfigsRoom(self.connection)
        self.environments = EnvironmentsRoom(self.connection)
        self.sweeps = SweepsRoom(self.connection)
        self.uploads = UploadsRoom(self.connection)
        self.webhooks = WebhooksRoom(self.connection)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(context: str | None = None, *, timeout_seconds: float = 120.0) -> ControlClient:
    """A client for a context, by default the one in use; TRITONCTL_TOKEN is used instead of its token. It is a witness of
    the audit log, and raises CheckpointMismatch from any call when the log is not the one that the context knows."""
    path = contexts.context_path()
    name, found = contexts.find(path, context)
    witness = Witness(path, name, found)
    token = os.environ.get("TRITONCTL_TOKEN") or found.token
    client = ControlClient(found.api, token, timeout_seconds=timeout_seconds, on_checkpoint=witness)
    witness.client = client
    return client
