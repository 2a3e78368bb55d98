# Use cases of environments, their servers, deployments and revisions.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import ChangeKind
from controlplane.domain.environments import NOTHING, UNOBSERVED, Deployment, Environment, Revision, ServerSpec
from controlplane.domain.names import check_name
from controlplane.domain.policies import Policy
from controlplane.errors import Conflict, NotFound, PreconditionFailed
from controlplane.services.access import AccessService
from controlplane.services.ports import Clock
from controlplane.services.server_changes import changed, check_metrics_url, check_unused, normal, said_of
from controlplane.storage.lineage import origins
from controlplane.storage.unit_of_work import Storage, UnitOfWork


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment with its current revision; `current` is None at revision 0."""

    deployment: Deployment
    current: Revision | None


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision with the kind and the reason of the change that made it; both are None at revision 0."""

    revision: Revision
    kind: ChangeKind | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server and what the worker's last look at a deployment on it found, at `watched_at`: `reachable`, or that it
    `cannot be observed`, with the code of the error. `unknown` while nothing is deployed on it."""

    spec: ServerSpec
    state: str
    watched_at: datetime | None


class EnvironmentService:
    def __init__(self, storage: Storage, access: AccessService, clock: Clock) -> None:
        self._storage = storage
        self._access = access
        self._clock = clock

    def create(self, principal: Principal, name: str, description: str, clauses: JsonObject) -> Environment:
        self._access.require(principal, Permission.ENVIRONMENT_MANAGE)
        environment = Environment(
            check_name(name, "environment"), description, Policy.from_json(clauses), 1, self._clock.now()
        )
        with self._storage.write() as unit:
            environment = unit.environments.add(environment)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.ENVIRONMENT_CREATED,
                    {"environment": name},
                    {"policy": environment.policy.to_json()},
                )
            )
        return environment

    def environments(self, principal: Principal) -> tuple[Environment, ...]:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            return unit.environments.all()

    def get(self, principal: Principal, name: str) -> Environment:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            return unit.environments.present(name)

    def remove(self, principal: Principal, name: str) -> None:
        """Of an environment without servers and open changes, and so without anything served. Its history stays, and
        creating it again brings it back."""
        self._access.require(principal, Permission.ENVIRONMENT_MANAGE)
        with self._storage.write() as unit:
            unit.environments.present(name, lock=True)
            check_unused(unit, name, f"environment {name!r} cannot be removed")
            for spec in unit.environments.servers(name):
                raise Conflict(
                    f"environment {name!r} cannot be removed: it has the server {spec.name!r}",
                    hint=f"tritonctl server remove {spec.name} --env {name}",
                )
            unit.environments.remove(name, self._clock.now())
            unit.audit.append(AuditFact(principal.actor, Action.ENVIRONMENT_REMOVED, {"environment": name}))

    def set_policy(
        self, principal: Principal, name: str, clauses: JsonObject, *, expected_number: int | None
    ) -> Environment:
        """Replace the clauses that are named and keep the others. `expected_number` guards against a lost update."""
        self._access.require(principal, Permission.POLICY_SET)
        with self._storage.write() as unit:
            before = unit.environments.present(name)
            if expected_number is not None and expected_number != before.policy_number:
                raise PreconditionFailed(
                    f"the policy of {name!r} is at number {before.policy_number}, not {expected_number}",
                    hint=f"look at it again: tritonctl environment show {name}",
                )
            policy = Policy.from_json({**before.policy.to_json(), **clauses})
            unit.environments.set_policy(name, policy, before.policy_number + 1)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.POLICY_SET,
                    {"environment": name},
                    {"before": before.policy.to_json(), "after": policy.to_json()},
                )
            )
            return unit.environments.get(name)

    def add_server(
        self,
        principal: Principal,
        environment: str,
        name: str,
        address: str,
        repository: str,
        *,
        metrics_url: str | None = None,
        admin_key: str | None = None,
        log_file: str | None = None,
        home: str | None = None,
        tls_ca: str | None = None,
        tls_certificate: str | None = None,
        tls_key: str | None = None,
    ) -> ServerSpec:
        self._access.require(principal, Permission.SERVER_MANAGE)
        repository = normal(repository)
        check_metrics_url(metrics_url)
        spec = ServerSpec(
            name=check_name(name, "server"),
            environment=environment,
            address=address,
            metrics_url=metrics_url,
            repository=repository,
            admin_key=admin_key,
            log_file=log_file,
            home=home,
            tls_ca=tls_ca,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            created_at=self._clock.now(),
        )
        with self._storage.write() as unit:
            unit.environments.add_server(spec)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.SERVER_ADDED,
                    {"environment": environment, "server": name},
                    {"address": address, "repository": repository},
                )
            )
        return spec

    def place_server(
        self, principal: Principal, environment: str, name: str, address: str, metrics_url: str | None
    ) -> ServerSpec:
        """Where a server that we launched listens now. Nothing to do, and to audit, when it is there already."""
        self._access.require(principal, Permission.SERVER_MANAGE)
        check_metrics_url(metrics_url)
        with self._storage.write() as unit:
            before = _server(unit, environment, name)
            if (before.address, before.metrics_url) == (address, metrics_url):
                return before
            placed = replace(before, address=address, metrics_url=metrics_url)
            unit.environments.set_server(placed)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.SERVER_CHANGED,
                    {"environment": environment, "server": name},
                    {"before": before.address, "after": address},
                )
            )
        return placed

    def change_server(
        self,
        principal: Principal,
        environment: str,
        name: str,
        changes: Mapping[str, str],
        *,
        expected_digest: str | None = None,
    ) -> ServerView:
        """Set the fields that are named, to nothing where the text is empty. `expected_digest` guards against a lost
        update. Another address, key or log is how the same server is reached, which may change at any time; another
        repository is other content, which may not while anything is served from it or on its way there."""
        self._access.require(principal, Permission.SERVER_MANAGE)
        with self._storage.write() as unit:
            unit.environments.present(environment, lock=True)
            before = _server(unit, environment, name)
            if expected_digest not in (None, before.digest):
                raise PreconditionFailed(
                    f"server {name!r} was changed meanwhile",
                    hint=f"look at it again: tritonctl server show {name} --env {environment}",
                )
            after = changed(before, changes)
            if after != before:
                if after.repository != before.repository:
                    check_unused(unit, environment, f"the repository of {name!r} cannot change")
                unit.environments.set_server(after)
                unit.audit.append(
                    AuditFact(
                        principal.actor,
                        Action.SERVER_CHANGED,
                        {"environment": environment, "server": name},
                        said_of(before, after),
                    )
                )
            return _server_view(unit, after)

    def remove_server(self, principal: Principal, environment: str, name: str) -> None:
        """The row alone: the server and its repository stay as they are."""
        self._access.require(principal, Permission.SERVER_MANAGE)
        with self._storage.write() as unit:
            unit.environments.present(environment, lock=True)
            spec = _server(unit, environment, name)
            check_unused(unit, environment, f"server {name!r} cannot be removed")
            unit.environments.remove_server(name)
            unit.audit.append(
                AuditFact(
                    principal.actor,
                    Action.SERVER_REMOVED,
                    {"environment": environment, "server": name},
                    {"address": spec.address, "repository": spec.repository},
                )
            )

    def server(self, principal: Principal, environment: str, name: str) -> ServerView:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            return _server_view(unit, _server(unit, environment, name))

    def servers(self, principal: Principal, environment: str) -> tuple[ServerView, ...]:
        """From the rows: no server is asked."""
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            return tuple(_server_view(unit, spec) for spec in unit.environments.servers(environment))

    def deployments(self, principal: Principal, environment: str) -> tuple[DeploymentView, ...]:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            return tuple(_view(unit, deployment) for deployment in unit.environments.deployments(environment))

    def deployment(self, principal: Principal, environment: str, model: str) -> DeploymentView:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            return _view(unit, _existing(unit, environment, model))

    def revisions(self, principal: Principal, environment: str, model: str) -> tuple[RevisionView, ...]:
        """The newest first."""
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            _existing(unit, environment, model)
            made = origins(unit.session, environment, model)
            return tuple(
                RevisionView(revision, *made.get(revision.number, (None, None)))
                for revision in unit.environments.revisions(environment, model)
            )

    def revision(self, principal: Principal, environment: str, model: str, number: int) -> RevisionView:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            deployment = _existing(unit, environment, model)
            if number == 0:
                created_at = unit.environments.get(environment).created_at
                return RevisionView(Revision(environment, model, 0, NOTHING, None, created_at, ()), None, None)
            revision = unit.environments.revision(deployment.environment, deployment.model, number)
            if revision.change is None:
                return RevisionView(revision, None, None)
            made = unit.changes.get(revision.change)
            return RevisionView(revision, made.kind, made.reason)


def _server(unit: UnitOfWork, environment: str, name: str) -> ServerSpec:
    spec = unit.environments.server(name)
    if spec is None or spec.environment != environment:
        where = f"list --env {environment}" if spec is None else f"show {name} --env {spec.environment}"
        raise NotFound(f"there is no server {name!r} in {environment!r}", hint=f"tritonctl server {where}")
    return spec


def _server_view(unit: UnitOfWork, spec: ServerSpec) -> ServerView:
    return ServerView(spec, *_last_look(unit.environments.deployments(spec.environment)))


def _last_look(deployments: Sequence[Deployment]) -> tuple[str, datetime | None]:
    """At any of them: an environment has one server."""
    looks = [(d.watched_at, d.drift) for d in deployments if d.watched_at is not None]
    if not looks:
        return "unknown", None
    watched_at, drift = max(looks)
    return next((words for words in drift if words.startswith(UNOBSERVED)), "reachable"), watched_at


def _existing(unit: UnitOfWork, environment: str, model: str) -> Deployment:
    unit.environments.get(environment)
    deployment = unit.environments.deployment(environment, model)
    if deployment is None:
        raise NotFound(
            f"{model!r} was never deployed in {environment!r}",
            hint=f"tritonctl change propose {model} --env {environment} --version N --reason …",
        )
    return deployment


def _view(unit: UnitOfWork, deployment: Deployment) -> DeploymentView:
    if deployment.revision == 0:
        return DeploymentView(deployment, None)
    current = unit.environments.revision(deployment.environment, deployment.model, deployment.revision)
    return DeploymentView(deployment, current)
