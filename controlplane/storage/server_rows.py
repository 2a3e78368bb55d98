# The rows of environments, of their servers, and of what was last loaded on each.
from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.domain.canonical import JsonObject
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class EnvironmentRow(Base):
    __tablename__ = "environments"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    description: Mapped[str]
    policy: Mapped[JsonObject] = mapped_column(CanonicalJson)
    policy_number: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ServerRow(Base):
    __tablename__ = "servers"
    __table_args__ = (
        ForeignKeyConstraint(["environment"], ["environments.name"]),
        Index("uq_servers_repository", "repository", unique=True),
    )
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    environment: Mapped[str] = mapped_column(String(100), index=True)
    address: Mapped[str]
    metrics_url: Mapped[str | None]
    repository: Mapped[str]
    admin_key: Mapped[str | None]
    log_file: Mapped[str | None]
    home: Mapped[str | None]
    tls_ca: Mapped[str | None]
    tls_certificate: Mapped[str | None]
    tls_key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LoadRow(Base):
    """The last load of a model on a server that we saw succeed: the newest file time then, in nanoseconds as text."""

    __tablename__ = "loads"
    server: Mapped[str] = mapped_column(String(100), primary_key=True)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    newest_ns: Mapped[str] = mapped_column(String(24))
    loaded_at: Mapped[datetime] = mapped_column(UtcDateTime)
