# Environments, servers, deployments and revisions.
from __future__ import annotations

from typing import Annotated

from fastapi import Header, Response

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.environments import NOTHING, Environment, Revision
from controlplane.domain.times import format_instant
from controlplane.errors import InvalidInput
from controlplane.services.environments import DeploymentView, ServerView


def create_environment(body: types.NewEnvironment, caller: Caller, rooms: Rooms) -> types.Environment:
    return _environment(rooms.environments.create(caller, body.name, body.description, wire.json_object(body.policy)))


def list_environments(caller: Caller, rooms: Rooms) -> types.Page[types.Environment]:
    return types.Page(tuple(_environment(item) for item in rooms.environments.environments(caller)))


def show_environment(env: str, caller: Caller, rooms: Rooms, response: Response) -> types.Environment:
    """The ETag is the policy's number."""
    found = rooms.environments.get(caller, env)
    response.headers["ETag"] = f'"{found.policy_number}"'
    return _environment(found)


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


def _revision(revision: Revision) -> types.Revision:
    return wire.of(
        types.Revision,
        revision,
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
