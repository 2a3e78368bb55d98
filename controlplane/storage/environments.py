# Environments, servers, deployments with their leases, and revisions.
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, CursorResult, ForeignKeyConstraint, Index, String, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.canonical import JsonObject
from controlplane.domain.environments import (
    Deployment,
    Direction,
    Environment,
    Revision,
    RevisionContent,
    ServerSpec,
)
from controlplane.domain.policies import Policy
from controlplane.errors import AlreadyExists, Conflict, LeaseLost, NotFound
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class EnvironmentRow(Base):
    __tablename__ = "environments"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    description: Mapped[str]
    policy: Mapped[JsonObject] = mapped_column(CanonicalJson)
    policy_number: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


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


class DeploymentRow(Base):
    __tablename__ = "deployments"
    __table_args__ = (ForeignKeyConstraint(["environment"], ["environments.name"]),)
    environment: Mapped[str] = mapped_column(String(100), primary_key=True)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    revision: Mapped[int]
    active_change: Mapped[int | None]
    direction: Mapped[str] = mapped_column(String(10))
    lease_token: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    drift: Mapped[list[str]] = mapped_column(CanonicalJson)
    watched_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LoadRow(Base):
    """The last load of a model on a server that we saw succeed: the newest file time then, in nanoseconds as text."""

    __tablename__ = "loads"
    server: Mapped[str] = mapped_column(String(100), primary_key=True)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    newest_ns: Mapped[str] = mapped_column(String(24))
    loaded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RevisionRow(Base):
    __tablename__ = "revisions"
    environment: Mapped[str] = mapped_column(String(100), primary_key=True)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[JsonObject] = mapped_column(CanonicalJson)
    content_digest: Mapped[str] = mapped_column(String(71))
    change_id: Mapped[int | None]
    accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    proofs: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)


class EnvironmentStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # environments and servers

    def add(self, environment: Environment) -> None:
        if self._session.get(EnvironmentRow, environment.name) is not None:
            raise AlreadyExists(f"environment {environment.name!r} exists", hint="tritonctl environment list")
        self._session.add(
            EnvironmentRow(
                name=environment.name,
                description=environment.description,
                policy=environment.policy.to_json(),
                policy_number=environment.policy_number,
                created_at=environment.created_at,
            )
        )
        self._session.flush()

    def get(self, name: str) -> Environment:
        row = self._session.get(EnvironmentRow, name)
        if row is None:
            raise _no_environment(name)
        return _environment(row)

    def all(self) -> tuple[Environment, ...]:
        rows = self._session.scalars(select(EnvironmentRow).order_by(EnvironmentRow.name))
        return tuple(_environment(row) for row in rows)

    def set_policy(self, name: str, policy: Policy, number: int) -> None:
        self._session.execute(
            update(EnvironmentRow)
            .where(EnvironmentRow.name == name)
            .values(policy=policy.to_json(), policy_number=number)
        )

    def add_server(self, spec: ServerSpec) -> None:
        """Of two at the same time for one environment the second waits, and then finds the first."""
        if self._session.get(EnvironmentRow, spec.environment, populate_existing=True, with_for_update=True) is None:
            raise _no_environment(spec.environment)
        if self._session.get(ServerRow, spec.name) is not None:
            raise AlreadyExists(f"server {spec.name!r} exists", hint="tritonctl server list")
        if self.servers(spec.environment):
            raise Conflict(
                f"environment {spec.environment!r} has a server already", hint="give each server its own environment"
            )
        if self._session.scalar(select(ServerRow).where(ServerRow.repository == spec.repository)) is not None:
            raise Conflict(
                f"the repository {spec.repository!r} belongs to another server",
                hint="environments have separate repositories",
            )
        self._session.add(ServerRow(**{name: getattr(spec, name) for name in spec.__dataclass_fields__}))
        try:
            self._session.flush()
        except IntegrityError:
            raise Conflict(
                f"another server took the name {spec.name!r} or the repository {spec.repository!r} just now",
                hint="look at what is there: tritonctl server list",
            ) from None

    def set_server(self, spec: ServerSpec) -> None:
        """Replace the row of the same name: for a server that we launch, whose address is ours to choose."""
        row = self._session.get_one(ServerRow, spec.name)
        for name in spec.__dataclass_fields__:
            setattr(row, name, getattr(spec, name))

    def servers(self, environment: str) -> tuple[ServerSpec, ...]:
        rows = self._session.scalars(
            select(ServerRow).where(ServerRow.environment == environment).order_by(ServerRow.name)
        )
        return tuple(_server(row) for row in rows)

    # deployments

    def deployment(self, environment: str, model: str) -> Deployment | None:
        row = self._session.get(DeploymentRow, (environment, model))
        return None if row is None else _deployment(row)

    def deployments(self, environment: str | None = None) -> tuple[Deployment, ...]:
        query = select(DeploymentRow).order_by(DeploymentRow.environment, DeploymentRow.model)
        if environment is not None:
            query = query.where(DeploymentRow.environment == environment)
        return tuple(_deployment(row) for row in self._session.scalars(query))

    def waiting(self, watched_before: datetime) -> tuple[Deployment, ...]:
        """Those that a change is active on, and those last watched before that time, or never."""
        rows = self._session.scalars(
            select(DeploymentRow)
            .where(
                or_(
                    DeploymentRow.active_change.is_not(None),
                    DeploymentRow.watched_at.is_(None),
                    DeploymentRow.watched_at <= watched_before,
                )
            )
            .order_by(DeploymentRow.environment, DeploymentRow.model)
        )
        return tuple(_deployment(row) for row in rows)

    def lock(self, environment: str, model: str) -> None:
        """Until the transaction ends nobody else changes this deployment or the environment's policy.

        Whoever locks a change as well locks the deployment first, as the worker does: the other way round two
        transactions could wait for each other. SQLite's writers are alone anyway.
        """
        self._session.get(EnvironmentRow, environment, populate_existing=True, with_for_update={"read": True})
        self._session.get(DeploymentRow, (environment, model), populate_existing=True, with_for_update=True)

    def ensure_deployment(self, environment: str, model: str) -> None:
        """A deployment at revision 0, unless this environment knows the model."""
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        values = {
            "environment": environment,
            "model": model,
            "revision": 0,
            "direction": Direction.FORWARD.value,
            "lease_token": 0,
            "drift": [],
        }
        self._session.execute(dialect.insert(DeploymentRow).values(values).on_conflict_do_nothing())

    def activate(self, environment: str, model: str, *, change: int, base: int, replacing: int | None) -> bool:
        """Make `change` the active one, if the base is current and no other is active but `replacing`.

        Takes the lease away from whoever has it. False when another transaction was first.
        """
        free: ColumnElement[bool] = DeploymentRow.active_change.is_(None)
        if replacing is not None:
            free = or_(free, DeploymentRow.active_change == replacing)
        return self._changed(
            update(DeploymentRow)
            .where(
                DeploymentRow.environment == environment,
                DeploymentRow.model == model,
                DeploymentRow.revision == base,
                free,
            )
            .values(
                active_change=change,
                direction=Direction.FORWARD.value,
                lease_token=DeploymentRow.lease_token + 1,
                lease_owner=None,
                lease_expires_at=None,
            )
        )

    def claim(self, environment: str, model: str, owner: str, now: datetime, seconds: float) -> int | None:
        """Take the lease if it is free or expired; its new token, or None."""
        taken = self._changed(
            update(DeploymentRow)
            .where(
                DeploymentRow.environment == environment,
                DeploymentRow.model == model,
                or_(DeploymentRow.lease_owner.is_(None), DeploymentRow.lease_expires_at < now),
            )
            .values(
                lease_token=DeploymentRow.lease_token + 1,
                lease_owner=owner,
                lease_expires_at=now + timedelta(seconds=seconds),
            )
        )
        if not taken:
            return None
        self._session.expire_all()
        return self._session.get_one(DeploymentRow, (environment, model)).lease_token

    def guard(self, environment: str, model: str, token: int, **values: object) -> None:
        """Change the deployment's row if the lease is still the caller's; raises LeaseLost otherwise."""
        held = self._changed(
            update(DeploymentRow)
            .where(
                DeploymentRow.environment == environment,
                DeploymentRow.model == model,
                DeploymentRow.lease_token == token,
            )
            .values(**(values or {"lease_token": token}))
        )
        if not held:
            raise LeaseLost(f"another worker took over {model!r} in {environment!r}", hint="nothing to do: it goes on")

    def renew(self, environment: str, model: str, token: int, expires_at: datetime) -> None:
        self.guard(environment, model, token, lease_expires_at=expires_at)

    def release(self, environment: str, model: str, token: int) -> None:
        self.guard(environment, model, token, lease_owner=None, lease_expires_at=None)

    def _changed(self, statement: object) -> bool:
        result = cast("CursorResult[object]", self._session.execute(statement))  # type: ignore[call-overload]
        return bool(result.rowcount == 1)

    # loads and revisions

    def loaded_ns(self, server: str, model: str) -> int | None:
        row = self._session.get(LoadRow, (server, model))
        return None if row is None else int(row.newest_ns)

    def set_loaded_ns(self, server: str, model: str, newest_ns: int | None, now: datetime) -> None:
        row = self._session.get(LoadRow, (server, model))
        if newest_ns is None:
            if row is not None:
                self._session.delete(row)
            return
        if row is None:
            self._session.add(LoadRow(server=server, model=model, newest_ns=str(newest_ns), loaded_at=now))
        else:
            row.newest_ns, row.loaded_at = str(newest_ns), now

    def add_revision(self, revision: Revision) -> None:
        self._session.add(
            RevisionRow(
                environment=revision.environment,
                model=revision.model,
                number=revision.number,
                content=revision.content.to_json(),
                content_digest=revision.content.digest,
                change_id=revision.change,
                accepted_at=revision.accepted_at,
                proofs=list(revision.proofs),
            )
        )

    def revision(self, environment: str, model: str, number: int) -> Revision:
        row = self._session.get(RevisionRow, (environment, model, number))
        if row is None:
            raise NotFound(
                f"{model!r} has no revision {number} in {environment!r}",
                hint=f"tritonctl revision list {model} --env {environment}",
            )
        return _revision(row)

    def revisions(self, environment: str, model: str) -> Sequence[Revision]:
        """By number, the newest first."""
        rows = self._session.scalars(
            select(RevisionRow)
            .where(RevisionRow.environment == environment, RevisionRow.model == model)
            .order_by(RevisionRow.number.desc())
        )
        return tuple(_revision(row) for row in rows)

    def served_numbers(self, environment: str, model: str) -> Sequence[tuple[int, ...]]:
        """The version numbers that each accepted revision serves, of the newest first. Without reading the rest of it: a
        deployment may have had thousands."""
        contents = self._session.scalars(
            select(RevisionRow.content)
            .where(RevisionRow.environment == environment, RevisionRow.model == model)
            .order_by(RevisionRow.number.desc())
        )
        return tuple(RevisionContent.from_json(content).numbers for content in contents)


def _no_environment(name: str) -> NotFound:
    return NotFound(f"there is no environment {name!r}", hint="tritonctl environment list")


def _environment(row: EnvironmentRow) -> Environment:
    return Environment(row.name, row.description, Policy.from_json(row.policy), row.policy_number, row.created_at)


def _server(row: ServerRow) -> ServerSpec:
    return ServerSpec(**{name: getattr(row, name) for name in ServerSpec.__dataclass_fields__})


def _deployment(row: DeploymentRow) -> Deployment:
    return Deployment(
        environment=row.environment,
        model=row.model,
        revision=row.revision,
        active_change=row.active_change,
        direction=Direction(row.direction),
        lease_token=row.lease_token,
        lease_owner=row.lease_owner,
        lease_expires_at=row.lease_expires_at,
        drift=tuple(row.drift),
        watched_at=row.watched_at,
    )


def _revision(row: RevisionRow) -> Revision:
    return Revision(
        environment=row.environment,
        model=row.model,
        number=row.number,
        content=RevisionContent.from_json(row.content),
        change=row.change_id,
        accepted_at=row.accepted_at,
        proofs=tuple(row.proofs),
    )
