# The table of routes becomes FastAPI's routes, with every error that each may answer in OpenAPI.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from controlplane.api import problems
from controlplane.api.guard import guarded
from controlplane.domain.access import Permission
from controlplane.errors import (
    ControlPlaneError,
    DatabaseNotReady,
    IdempotencyMismatch,
    InvalidInput,
    OperationTimedOut,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
)

_ALWAYS: tuple[type[ControlPlaneError], ...] = (Unauthenticated, PermissionDenied, DatabaseNotReady, OperationTimedOut)


@dataclass(frozen=True, slots=True)
class Route:
    """`creates` honours Idempotency-Key; `errors` are those beyond what every route may answer; `own` says that
    everyone may do it to what is theirs, which the service tells apart."""

    method: str
    path: str
    permission: Permission
    endpoint: Callable[..., Any]
    status: int = 200
    creates: bool = False
    own: bool = False
    errors: tuple[type[ControlPlaneError], ...] = ()


def add(app: FastAPI, route: Route) -> None:
    takes_body = route.method in {"POST", "PUT", "PATCH"}
    errors = (*_ALWAYS, InvalidInput, *((TooLarge,) if takes_body else ()), *route.errors)
    if route.creates:
        errors = (*errors, IdempotencyMismatch)
    app.router.add_api_route(
        route.path,
        route.endpoint,
        methods=[route.method],
        status_code=route.status,
        operation_id=route.endpoint.__name__,
        tags=[route.endpoint.__module__.rpartition(".")[2]],
        summary=_summary(route.endpoint),
        description=_description(route),
        responses=_responses(errors),
        route_class_override=guarded(None if route.own else route.permission, creates=route.creates),
        openapi_extra=_idempotency_header() if route.creates else None,
    )


def _summary(endpoint: Callable[..., Any]) -> str:
    return endpoint.__name__.replace("_", " ").capitalize()


def _description(route: Route) -> str:
    whose = " for what is not the caller's own" if route.own else ""
    return f"Needs the permission `{route.permission.value}`{whose}. {route.endpoint.__doc__ or ''}".strip()


def _responses(errors: tuple[type[ControlPlaneError], ...]) -> dict[int | str, dict[str, Any]]:
    codes: dict[int, list[str]] = {}
    for error in errors:
        known = codes.setdefault(error.status, [])
        if error.code not in known:
            known.append(error.code)
    return {
        status: {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in found)}",
            "content": {problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, found in sorted(codes.items())
    }


def _idempotency_header() -> dict[str, Any]:
    text = "a key of the caller's making; a repeated request with it is answered as the first one was, for a day"
    parameter = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string", "maxLength": 255},
    }
    return {"parameters": [parameter]}
