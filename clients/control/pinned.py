# What a context knows of the audit log, checked with every answer: each client is a witness.
from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

from clients.control import contexts
from clients.control.contexts import Context
from clients.control.witness import CheckpointMismatch, check_consistent, open_checkpoint

if TYPE_CHECKING:
    from clients.control.client import ControlClient


class Witness:
    """Called with the latest checkpoint of every answer. The log's key is pinned when it is first seen."""

    def __init__(self, path: Path, name: str, context: Context) -> None:
        self._path = path
        self._name = name
        self._key = context.audit_key
        self._seen = context.checkpoint
        self._asking = False
        self.client: ControlClient | None = None

    def __call__(self, checkpoint: str) -> None:
        """Raises CheckpointMismatch when the log is not the one that was seen before, or has lost what it had."""
        if self._asking or checkpoint == self._seen:
            return
        assert self.client is not None
        self._asking = True
        try:
            key = self._key or self.client.audit.checkpoint().key
            new = open_checkpoint(_note(checkpoint), key)
            if self._seen:
                old = open_checkpoint(_note(self._seen), key)
                proof = self.client.audit.consistency(old.size, new.size) if 0 < old.size < new.size else ()
                check_consistent(old, new, proof)
        finally:
            self._asking = False
        contexts.remember(self._path, self._name, audit_key=key, before=self._seen, checkpoint=checkpoint)
        self._key, self._seen = key, checkpoint


def _note(checkpoint: str) -> str:
    try:
        return base64.b64decode(checkpoint, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise CheckpointMismatch("the checkpoint of the answer cannot be read") from None
