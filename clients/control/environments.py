# Environments, servers, deployments and revisions.
from __future__ import annotations

from clients.control.decode import decode
from clients.control.transport import Connection, segment
from clients.control.types import (
    ConfigDiff,
    Deployment,
    Environment,
    JsonObject,
    NewEnvironment,
    NewServer,
    Page,
    Revision,
    Server,
    ServerChanges,
)


class EnvironmentsRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, new: NewEnvironment) -> Environment:
        return decode(Environment, self._connection.post("/v1/environments", new))

    def list(self) -> Page[Environment]:
        return self._connection.page(Environment, "/v1/environments")

    def get(self, name: str) -> Environment:
        return decode(Environment, self._connection.get(f"/v1/environments/{segment(name)}"))

    def remove(self, name: str) -> None:
        self._connection.delete(f"/v1/environments/{segment(name)}")

    def set_policy(self, name: str, clauses: JsonObject, *, expected_number: int | None = None) -> Environment:
        """Replace the named clauses; with `expected_number` only while the policy still has it."""
        headers = {} if expected_number is None else {"If-Match": f'"{expected_number}"'}
        return decode(Environment, self._connection.put(f"/v1/environments/{segment(name)}/policy", clauses, headers))

    def add_server(self, environment: str, new: NewServer) -> Server:
        return decode(Server, self._connection.post(f"/v1/environments/{segment(environment)}/servers", new))

    def servers(self, environment: str) -> Page[Server]:
        return self._connection.page(Server, f"/v1/environments/{segment(environment)}/servers")

    def server(self, environment: str, name: str) -> Server:
        return decode(Server, self._connection.get(_server(environment, name)))

    def change_server(self, environment: str, name: str, changes: ServerChanges) -> Server:
        return decode(Server, self._connection.patch(_server(environment, name), changes))

    def remove_server(self, environment: str, name: str) -> None:
        self._connection.delete(_server(environment, name))

    def deployments(self, environment: str) -> Page[Deployment]:
        return self._connection.page(Deployment, f"/v1/environments/{segment(environment)}/deployments")

    def deployment(self, environment: str, model: str) -> Deployment:
        return decode(Deployment, self._connection.get(_deployment(environment, model)))

    def revisions(self, environment: str, model: str) -> Page[Revision]:
        """The newest first."""
        return self._connection.page(Revision, f"{_deployment(environment, model)}/revisions")

    def revision(self, environment: str, model: str, number: int) -> Revision:
        return decode(Revision, self._connection.get(f"{_deployment(environment, model)}/revisions/{number}"))

    def revision_diff(self, environment: str, model: str, before: int, after: int) -> ConfigDiff:
        path = f"{_deployment(environment, model)}/revisions/{after}/diff"
        return decode(ConfigDiff, self._connection.get(path, base=before))


def _server(environment: str, name: str) -> str:
    return f"/v1/environments/{segment(environment)}/servers/{segment(name)}"


def _deployment(environment: str, model: str) -> str:
    return f"/v1/environments/{segment(environment)}/deployments/{segment(model)}"
