# What the load generator refuses before it sends anything, and how it fails.
"""
LoadInputError         wrong input
├── ModelNotReady      the server does not serve that model
└── ServerUnreachable  no Triton answers there
LoadFailed             the generator itself broke down
"""

from __future__ import annotations

from typing import ClassVar


class LoadInputError(Exception):
    """Wrong input: what, with which value; `hint` is what to do instead. `status` is the command's exit status."""

    status: ClassVar[int] = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ModelNotReady(LoadInputError):
    status = 4


class ServerUnreachable(LoadInputError):
    status = 9


class LoadFailed(Exception):
    """The generator itself broke down: nothing can be said of the server."""
