# Environments, servers, deployments with their leases, and revisions.
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, CursorResult, ForeignKeyConstraint, String, delete, or_, select, update
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
from controlplane.domain.times import format_instant
from controlplane.errors import AlreadyExists, Conflict, LeaseLost, NotFound
from controlplane.storage.server_rows import EnvironmentRow, LoadRow, ServerRow
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


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

    def add(self, environment: Environment) -> Environment:
        """One that was removed comes back: its history is that of the name, and its policy's number goes on."""
        name, number = environment.name, environment.policy_number
        row = self._session.get(EnvironmentRow, name, populate_existing=True, with_for_update=True)
        if row is None:
            row = EnvironmentRow(name=name, created_at=environment.created_at)
            self._session.add(row)
        elif row.removed_at is None:
            raise AlreadyExists(f"environment {name!r} exists", hint="tritonctl environment list")
        else:
            number = row.policy_number + 1
        row.description, row.removed_at = environment.description, None
        row.policy, row.policy_number = environment.policy.to_json(), number
        self._session.flush()
        return _environment(row)

    def get(self, name: str) -> Environment:
        """Also one that was removed: changes and revisions are read by it."""
        return _environment(self._row(name))

    def present(self, name: str, *, lock: bool = False) -> Environment:
        """One that was not removed. Locked, nothing is proposed, applied or added there until the transaction ends."""
        row = self._row(name, lock=lock)
        if row.removed_at is not None:
            raise NotFound(
                f"environment {name!r} was removed at {format_instant(row.removed_at)}",
                hint=f"its history: tritonctl change list --env {name}; to have it again: tritonctl environment create {name}",
            )
        return _environment(row)

    def _row(self, name: str, *, lock: bool = False) -> EnvironmentRow:
        row = self._session.get(EnvironmentRow, name, populate_existing=True, with_for_update=lock or None)
        if row is None:
            raise NotFound(f"there is no environment {name!r}", hint="tritonctl environment list")
        return row

    def remove(self, name: str, now: datetime) -> None:
        """Hide it. Changes, votes and revisions name it and are read with its policy, so the row stays."""
        self._session.execute(update(EnvironmentRow).where(EnvironmentRow.name == name).values(removed_at=now))

    def all(self) -> tuple[Environment, ...]:
        """Those that were not removed."""
        rows = self._session.scalars(
            select(EnvironmentRow).where(EnvironmentRow.removed_at.is_(None)).order_by(EnvironmentRow.name)
        )
        return tuple(_environment(row) for row in rows)

    def set_policy(self, name: str, policy: Policy, number: int) -> None:
        self._session.execute(
            update(EnvironmentRow)
            .where(EnvironmentRow.name == name)
            .values(policy=policy.to_json(), policy_number=number)
        )

    def add_server(self, spec: ServerSpec) -> None:
        """Of two at the same time for one environment the second waits, and then finds the first."""
        self.present(spec.environment, lock=True)
        same = self.server(spec.name)
        if same is not None:
            raise AlreadyExists(
                f"server {spec.name!r} exists, in environment {same.environment!r}: a name is given once",
                hint=f"tritonctl server show {spec.name} --env {same.environment}",
            )
        if self.servers(spec.environment):
            raise Conflict(
                f"environment {spec.environment!r} has a server already",
                hint=f"give each server its own environment; that one: tritonctl server list --env {spec.environment}",
            )
        self._check_repository(spec)
        self._session.add(ServerRow(**{name: getattr(spec, name) for name in spec.__dataclass_fields__}))
        self._flush(spec)

    def set_server(self, spec: ServerSpec) -> None:
        """Replace the row of the same name. With another repository nothing is known any more of what was loaded."""
        row = self._session.get_one(ServerRow, spec.name)
        if row.repository != spec.repository:
            self._check_repository(spec)
            self._session.execute(delete(LoadRow).where(LoadRow.server == spec.name))
        for name in spec.__dataclass_fields__:
            setattr(row, name, getattr(spec, name))
        self._flush(spec)

    def remove_server(self, name: str) -> None:
        self._session.execute(delete(LoadRow).where(LoadRow.server == name))
        self._session.execute(delete(ServerRow).where(ServerRow.name == name))

    def _check_repository(self, spec: ServerSpec) -> None:
        owner = self._session.scalar(select(ServerRow).where(ServerRow.repository == spec.repository))
        if owner is not None:
            raise Conflict(
                f"the repository {spec.repository!r} belongs to another server, {owner.name!r} in {owner.environment!r}",
                hint="environments have separate repositories",
            )

    def _flush(self, spec: ServerSpec) -> None:
        try:
            self._session.flush()
        except IntegrityError:
            raise Conflict(
                f"another server took the name {spec.name!r} or the repository {spec.repository!r} just now",
                hint="look at what is there: tritonctl server list",
            ) from None

    def server(self, name: str) -> ServerSpec | None:
        row = self._session.get(ServerRow, name, populate_existing=True)
        return None if row is None else _server(row)

    def servers(self, environment: str) -> tuple[ServerSpec, ...]:
        rows = self._session.scalars(
            select(ServerRow).where(ServerRow.environment == environment).order_by(ServerRow.name)
        )
        return tuple(_server(row) for row in rows)

    # deployments

    def deployment(self, environment: str, model: str) -> Deployment | None:
        row = self._session.get(DeploymentRow, (environment, model), populate_existing=True)
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
        """A deployment at revision 0, unless this environment knows the model. A server that is there now stays until
        the transaction ends: a change is never proposed where none is."""
        self._session.get(EnvironmentRow, environment, populate_existing=True, with_for_update={"read": True})
        if not self.servers(environment):
            raise NotFound(
                f"the server of {environment!r} was removed just now",
                hint=f"tritonctl server add NAME --env {environment} --address … --repository …",
            )
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
        return self._session.get_one(DeploymentRow, (environment, model), populate_existing=True).lease_token

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
        # Rows are read anew whenever they are asked for, so none that the session may hold has to follow.
        options = {"synchronize_session": False}
        result = cast("CursorResult[object]", self._session.execute(statement, execution_options=options))  # type: ignore[call-overload]
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
