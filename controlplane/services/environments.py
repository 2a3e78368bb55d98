# Use cases of environments, their servers, deployments and revisions.
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import JsonObject
from controlplane.domain.environments import NOTHING, UNOBSERVED, Deployment, Environment, Revision, ServerSpec
from controlplane.domain.names import check_name
from controlplane.domain.policies import Policy
from controlplane.errors import InvalidInput, NotFound, PreconditionFailed
from controlplane.services.access import AccessService
from controlplane.services.ports import Clock
from controlplane.storage.unit_of_work import Storage, UnitOfWork


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment with its current revision; `current` is None at revision 0."""

    deployment: Deployment
    current: Revision | None


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
            unit.environments.add(environment)
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
            return unit.environments.get(name)

    def set_policy(
        self, principal: Principal, name: str, clauses: JsonObject, *, expected_number: int | None
    ) -> Environment:
        """Replace the clauses that are named and keep the others. `expected_number` guards against a lost update."""
        self._access.require(principal, Permission.POLICY_SET)
        with self._storage.write() as unit:
            before = unit.environments.get(name)
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
        repository = _normal(repository)
        _check_metrics_url(metrics_url)
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
        _check_metrics_url(metrics_url)
        with self._storage.write() as unit:
            before = next((spec for spec in unit.environments.servers(environment) if spec.name == name), None)
            if before is None:
                raise NotFound(
                    f"{environment!r} has no server {name!r}", hint=f"tritonctl server list --env {environment}"
                )
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

    def servers(self, principal: Principal, environment: str) -> tuple[ServerView, ...]:
        """From the rows: no server is asked."""
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            state, watched_at = _last_look(unit.environments.deployments(environment))
            return tuple(ServerView(spec, state, watched_at) for spec in unit.environments.servers(environment))

    def deployments(self, principal: Principal, environment: str) -> tuple[DeploymentView, ...]:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            return tuple(_view(unit, deployment) for deployment in unit.environments.deployments(environment))

    def deployment(self, principal: Principal, environment: str, model: str) -> DeploymentView:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            return _view(unit, _existing(unit, environment, model))

    def revisions(self, principal: Principal, environment: str, model: str) -> tuple[Revision, ...]:
        """The newest first."""
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            _existing(unit, environment, model)
            return tuple(unit.environments.revisions(environment, model))

    def revision(self, principal: Principal, environment: str, model: str, number: int) -> Revision:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            deployment = _existing(unit, environment, model)
            if number == 0:
                return Revision(environment, model, 0, NOTHING, None, unit.environments.get(environment).created_at, ())
            return unit.environments.revision(deployment.environment, deployment.model, number)


def _last_look(deployments: Sequence[Deployment]) -> tuple[str, datetime | None]:
    """At any of them: an environment has one server."""
    looks = [(d.watched_at, d.drift) for d in deployments if d.watched_at is not None]
    if not looks:
        return "unknown", None
    watched_at, drift = max(looks)
    return next((words for words in drift if words.startswith(UNOBSERVED)), "reachable"), watched_at


def _normal(repository: str) -> str:
    """One spelling for each directory: two environments must not share one under two names."""
    if not Path(repository).is_absolute() or ".." in Path(repository).parts:
        raise InvalidInput(
            f"the repository {repository!r} is not an absolute path without '..'",
            hint="give the path as the worker sees it",
        )
    return "/" + os.path.normpath(repository).lstrip("/")


def _check_metrics_url(url: str | None) -> None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise InvalidInput(f"{url!r} is not an http or https address", hint="such as http://triton:8002/metrics")


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
