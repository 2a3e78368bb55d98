# Errors as problem+json (RFC 9457): the one place where an exception becomes an HTTP answer.
from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from controlplane.errors import (
    ControlPlaneError,
    Detail,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)

_LOG = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"


def answer(error: ControlPlaneError, request_id: str) -> Response:
    """`type`, `title`, `status` and `detail` are RFC 9457's; `code` is what programs branch on, `hint` the next command,
    `exit_code` what the command line ends with."""
    document: dict[str, Detail] = {
        "type": f"urn:tritonctl:error:{error.code}",
        "title": _title(type(error)),
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "exit_code": error.exit_code,
        "hint": error.hint,
        "details": error.details,
        "request_id": request_id,
    }
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else None
    return JSONResponse(document, status_code=error.status, headers=headers, media_type=CONTENT_TYPE)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ControlPlaneError, _known)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unknown)


def schema() -> dict[str, object]:
    """The document for OpenAPI."""
    text: dict[str, object] = {"type": "string"}
    return {
        "type": "object",
        "title": "Problem",
        "required": ["type", "title", "status", "detail", "code", "exit_code", "details", "request_id"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"type": "string", "description": "stable; what programs branch on"},
            "exit_code": {"type": "integer", "description": "the exit status of the command line"},
            "hint": {"type": ["string", "null"], "description": "the next command or action"},
            "details": {"type": "object"},
            "request_id": text,
        },
    }


def _title(kind: type[ControlPlaneError]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).capitalize()


def _request_id(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, ControlPlaneError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("%s %s: [%s] %s", request.method, request.url.path, error.code, error.message)
    return answer(error, _request_id(request))


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: list[Detail] = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        found.append({"where": where, "message": str(item["msg"])})
    first = found[0]
    assert isinstance(first, Mapping)
    problem = InvalidInput(f"{first['where']}: {first['message']}", details={"fields": found})
    return answer(problem, _request_id(request))


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    problem: ControlPlaneError
    if isinstance(error.__cause__, ControlPlaneError):  # raised while the framework read the body
        problem = error.__cause__
    elif error.status_code == HTTPStatus.NOT_FOUND:
        problem = NotFound(f"there is no {path}", hint="the routes stand in /v1/openapi.json")
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        problem = MethodNotAllowed(f"{path} does not take {method}", hint="the routes stand in /v1/openapi.json")
    else:
        problem = InvalidInput(str(error.detail))
    return answer(problem, _request_id(request))


async def _unknown(request: Request, error: Exception) -> Response:
    """A bug: its text may hold anything, so only the log gets it (from the server's own error handling)."""
    request_id = _request_id(request)
    _LOG.error("request %s: %s %s raised %s", request_id, request.method, request.url.path, type(error).__name__)
    problem = ControlPlaneError(
        "the control plane failed", hint=f"look for request {request_id} in the log of the api", details={}
    )
    return answer(problem, request_id)
