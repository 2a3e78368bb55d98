# The declarative base and the column types that make SQLite and PostgreSQL hold the same bytes.
from __future__ import annotations

import json
from datetime import datetime
from typing import cast

from sqlalchemy import Dialect, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from controlplane.domain.canonical import Json, canonical_bytes
from controlplane.domain.times import format_instant, parse_instant


class Base(DeclarativeBase):
    """Every table. Constraints have names on both databases, because migrations can only drop what has a name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime as RFC 3339 text with microseconds and Z; naive ones are refused. Text order is time order.

    In migrations write `sa.String(27)`.
    """

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> str | None:
        return None if value is None else format_instant(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else parse_instant(value)


class CanonicalJson(TypeDecorator[Json]):
    """A JSON tree as its canonical text (so no floats), the bytes that a digest would be taken over.

    None is SQL NULL, never JSON's null. In migrations write `sa.Text()`.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Json | None, _dialect: Dialect) -> str | None:
        return None if value is None else canonical_bytes(value).decode("utf-8")

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Json | None:
        return None if value is None else cast("Json", json.loads(value))
