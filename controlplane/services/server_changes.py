# What a server's fields may be, what becomes of them when they are changed, and when nothing depends on it.
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.changes import ACTIVE, ChangeState
from controlplane.domain.environments import ServerSpec
from controlplane.errors import Conflict, InvalidInput
from controlplane.storage.unit_of_work import UnitOfWork

_SETTABLE = ("address", "repository", "metrics_url", "admin_key", "log_file", "tls_ca", "tls_certificate", "tls_key")


def changed(spec: ServerSpec, changes: Mapping[str, str]) -> ServerSpec:
    """With what is named set, and removed where the text is empty."""
    if spec.home is not None:
        raise Conflict(
            f"server {spec.name!r} was launched here, and where it listens is set when it starts",
            hint="start it again: tritonctl up",
        )
    if not changes:
        raise InvalidInput("nothing to change was named", hint=f"name one of {', '.join(_SETTABLE)}")
    given: dict[str, str | None] = {name: changes[name] or None for name in _SETTABLE if name in changes}
    for name in ("address", "repository"):
        if given.get(name, "kept") is None:
            raise InvalidInput(
                f"the {name} of server {spec.name!r} cannot be empty", hint=f"it is {getattr(spec, name)}"
            )
    if "repository" in changes:
        given["repository"] = normal(changes["repository"])
    check_metrics_url(given.get("metrics_url"))
    return replace(spec, **given)  # type: ignore[arg-type]  # address and repository are texts, by the loop above


def said_of(before: ServerSpec, after: ServerSpec) -> JsonObject:
    """What differs, for the audit log. A key is named there, never shown: a spec holds the name alone."""
    fields = [name for name in _SETTABLE if getattr(before, name) != getattr(after, name)]
    old: dict[str, Json] = {name: getattr(before, name) for name in fields}
    new: dict[str, Json] = {name: getattr(after, name) for name in fields}
    return {"before": old, "after": new}


def check_unused(unit: UnitOfWork, environment: str, refused: str) -> None:
    """Nothing is served there, and no change is open that could still put something there. Raises Conflict.

    A deployment whose last revision took the model away again is history and needs no server.
    """
    for state in (*sorted(ACTIVE), ChangeState.OPEN):
        for change in unit.changes.list(environment=environment, state=state, limit=1):
            then = f"withdraw {change.id}" if state is ChangeState.OPEN else f"show {change.id}"
            raise Conflict(
                f"{refused}: change {change.id} of {change.model!r} is {state.value} in {environment!r}",
                hint=f"tritonctl change {then}",
            )
    for deployment in unit.environments.deployments(environment):
        model, number = deployment.model, deployment.revision
        if number and unit.environments.revision(environment, model, number).content.versions:
            raise Conflict(
                f"{refused}: {model!r} is deployed in {environment!r}, at revision {number}",
                hint=f"tritonctl change propose {model} --env {environment} --undeploy --reason …",
            )


def normal(repository: str) -> str:
    """One spelling for each directory: two environments must not share one under two names."""
    if not Path(repository).is_absolute() or ".." in Path(repository).parts:
        raise InvalidInput(
            f"the repository {repository!r} is not an absolute path without '..'",
            hint="give the path as the worker sees it",
        )
    return "/" + os.path.normpath(repository).lstrip("/")


def check_metrics_url(url: str | None) -> None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise InvalidInput(f"{url!r} is not an http or https address", hint="such as http://triton:8002/metrics")
