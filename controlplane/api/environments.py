# Environments, servers, deployments and revisions.
from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Header, Response

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.environments import NOTHING, Environment
from controlplane.domain.times import format_instant
from controlplane.errors import InvalidInput
from controlplane.services.environments import DeploymentView, RevisionView, ServerView


def create_environment(body: types.NewEnvironment, caller: Caller, rooms: Rooms) -> types.Environment:
    return _environment(rooms.environments.create(caller, body.name, body.description, wire.json_object(body.policy)))


def list_environments(caller: Caller, rooms: Rooms) -> types.Page[types.Environment]:
    return types.Page(tuple(_environment(item) for item in rooms.environments.environments(caller)))


def show_environment(env: str, caller: Caller, rooms: Rooms, response: Response) -> types.Environment:
    """The ETag is the policy's number."""
    found = rooms.environments.get(caller, env)
    response.headers["ETag"] = f'"{found.policy_number}"'
    return _environment(found)


def remove_environment(env: str, caller: Caller, rooms: Rooms) -> None:
    """While it has no server, nothing deployed and no open change. Its history stays; creating it again brings it back."""
    rooms.environments.remove(caller, env)


def set_policy(
    *,
    env: str,
    body: types.JsonObject,
    caller: Caller,
    rooms: Rooms,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> types.Environment:
    """Replaces the clauses that are named. With If-Match, only while the policy is still the one of that ETag."""
    changed = rooms.environments.set_policy(caller, env, wire.json_object(body), expected_number=_number(if_match))
    response.headers["ETag"] = f'"{changed.policy_number}"'
    return _environment(changed)


def add_server(env: str, body: types.NewServer, caller: Caller, rooms: Rooms) -> types.Server:
    spec = rooms.environments.add_server(
        caller,
        env,
        body.name,
        body.address,
        body.repository,
        metrics_url=body.metrics_url,
        admin_key=body.admin_key,
        log_file=body.log_file,
        home=body.home,
        tls_ca=body.tls_ca,
        tls_certificate=body.tls_certificate,
        tls_key=body.tls_key,
    )
    return wire.of(types.Server, spec, state="unknown", watched_at=None)


def show_server(env: str, name: str, caller: Caller, rooms: Rooms, response: Response) -> types.Server:
    """The ETag changes with every change of it."""
    return _tagged(rooms.environments.server(caller, env, name), response)


def change_server(
    *,
    env: str,
    name: str,
    body: types.ServerChanges,
    caller: Caller,
    rooms: Rooms,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> types.Server:
    """Sets the fields that are named, to nothing where they are empty. With If-Match, only while the server is still
    the one of that ETag. The repository stays while anything is deployed from it or a change is open."""
    changes = {field: value for field, value in asdict(body).items() if value is not None}
    expected = None if if_match is None or if_match.strip() == "*" else if_match.strip().strip('"')
    changed = rooms.environments.change_server(caller, env, name, changes, expected_digest=expected)
    return _tagged(changed, response)


def remove_server(env: str, name: str, caller: Caller, rooms: Rooms) -> None:
    """While nothing is deployed there and no change is open. The server itself and its repository are not touched."""
    rooms.environments.remove_server(caller, env, name)


def list_servers(env: str, caller: Caller, rooms: Rooms) -> types.Page[types.Server]:
    return types.Page(tuple(_server(view) for view in rooms.environments.servers(caller, env)))


def list_deployments(env: str, caller: Caller, rooms: Rooms) -> types.Page[types.Deployment]:
    return types.Page(tuple(_deployment(view) for view in rooms.environments.deployments(caller, env)))


def show_deployment(env: str, model: str, caller: Caller, rooms: Rooms) -> types.Deployment:
    return _deployment(rooms.environments.deployment(caller, env, model))


def list_revisions(env: str, model: str, caller: Caller, rooms: Rooms) -> types.Page[types.Revision]:
    """The newest first."""
    return types.Page(tuple(_revision(item) for item in rooms.environments.revisions(caller, env, model)))


def show_revision(env: str, model: str, number: int, caller: Caller, rooms: Rooms) -> types.Revision:
    return _revision(rooms.environments.revision(caller, env, model, number))


def _tagged(view: ServerView, response: Response) -> types.Server:
    response.headers["ETag"] = f'"{view.spec.digest}"'
    return _server(view)


def _server(view: ServerView) -> types.Server:
    watched_at = None if view.watched_at is None else format_instant(view.watched_at)
    return wire.of(types.Server, view.spec, state=view.state, watched_at=watched_at)


def _environment(environment: Environment) -> types.Environment:
    return wire.of(types.Environment, environment)


def _deployment(view: DeploymentView) -> types.Deployment:
    content = view.current.content if view.current else NOTHING
    return wire.of(
        types.Deployment,
        view.deployment,
        versions=tuple(wire.of(types.VersionRef, ref) for ref in content.versions),
        digest=content.digest,
    )


def _revision(view: RevisionView) -> types.Revision:
    revision = view.revision
    return wire.of(
        types.Revision,
        revision,
        kind=view.kind,
        reason=view.reason,
        digest=revision.content.digest,
        versions=tuple(wire.of(types.VersionRef, ref) for ref in revision.content.versions),
        config=revision.content.config,
        beside=tuple(wire.of(types.File, entry) for entry in revision.content.beside.files),
    )


def _number(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().strip('"')
    if not text.isdigit():
        raise InvalidInput(f"the If-Match {if_match!r} is not an ETag of a policy", hint="send the ETag as it came")
    return int(text)
