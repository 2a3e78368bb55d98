# What the load generator refuses before it sends anything, and how it fails.
from __future__ import annotations


class LoadInputError(Exception):
    """Wrong input: what, with which value; `hint` is what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LoadFailed(Exception):
    """The generator itself broke down: nothing can be said of the server."""
