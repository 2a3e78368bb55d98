# The fixtures of the live tests and of both databases.
from __future__ import annotations

from tests.live.conftest import make_triton, runtime, shared_triton, triton
from tests.store.conftest import clock, database, dialect, postgres, postgres_template, sqlite_template

__all__ = [
    "clock",
    "database",
    "dialect",
    "make_triton",
    "postgres",
    "postgres_template",
    "runtime",
    "shared_triton",
    "sqlite_template",
    "triton",
]
