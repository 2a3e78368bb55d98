# Bad input is answered with a clear error of the caller's, whatever it is and whichever database is below.
from __future__ import annotations

import json
import re
from typing import Any

import pytest

from controlplane.api.routes import ROUTES
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import build_services
from tests.store.api.conftest import Api
from tests.store.api.test_permissions import PARAMETERS, WITHOUT_PARAMETERS

pytestmark = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)

ODD_SEGMENTS = [
    "%00",
    "a%00b",
    "..%2f..",
    "%ff",
    "9" * 40,
    "-1",
    "0",
    "a" * 3000,
    "'; DROP TABLE models; --",
    "%F0%9F%98%80",
]
ODD_VALUES: list[Any] = ["\0", "\ud800", "a\nb", "x" * 5000, 2**70, -(2**70), 1.5, True, None, [], {}, "$(touch x)"]


def test_no_odd_path_is_an_error_of_ours(api: Api) -> None:
    with api.http("admin") as client:
        found = {}
        for route in ROUTES:
            for odd in ODD_SEGMENTS:
                path = route.path
                for name, value in PARAMETERS.items():
                    path = path.replace(f"{{{name}}}", odd if f"{{{name}}}" in route.path else value)
                if path != route.path and route.method in {"GET", "DELETE"}:
                    status = client.request(route.method, path, params={"base": "0"}).status_code
                    if not 400 <= status < 500:
                        found[route.method, route.path, odd] = status
    assert found == {}


@pytest.mark.parametrize("path", ["/v1/changes", "/v1/audit/entries", "/v1/models", "/v1/sweeps", "/v1/tokens"])
def test_no_odd_query_is_an_error_of_ours(api: Api, path: str) -> None:
    with api.http("admin") as client:
        for name in ("cursor", "limit", "model", "environment", "state", "subject", "actor", "principal"):
            for odd in ("%00", "%ff", "9" * 40, "-1", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw"):
                assert client.get(f"{path}?{name}={odd}").status_code < 500, (name, odd)
        for name in ("old", "new"):
            assert client.get(f"/v1/audit/consistency?old=0&new=0&{name}={'9' * 40}").status_code == 422


@pytest.mark.parametrize("odd", ODD_VALUES, ids=ascii)
def test_no_odd_field_is_an_error_of_ours(api: Api, odd: object) -> None:
    with api.http("admin") as client:
        document = client.get("/v1/openapi.json").json()
        found, tried = {}, 0
        for route in ROUTES:
            for field in _fields(document, route.path, route.method.lower()):
                path = re.sub(r"\{(\w+)\}", lambda match: PARAMETERS[match[1]], route.path)
                body = json.dumps({**WITHOUT_PARAMETERS.get(route.path, {}), field: odd})
                status = client.request(route.method, path, content=body).status_code
                tried += 1
                if status >= 500:
                    found[route.path, field] = status
    assert found == {}
    assert tried > 80


def _fields(document: dict[str, Any], path: str, method: str) -> list[str]:
    """Of the route's body; the one that takes any field is given a clause of a policy."""
    body = document["paths"][path][method].get("requestBody")
    if body is None:
        return []
    schema = body["content"]["application/json"]["schema"]
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            return list(document["components"]["schemas"][option["$ref"].rpartition("/")[2]]["properties"])
    return ["approvals", "gates", "freeze_windows", "anything"]


def test_a_body_that_is_no_json_is_said_so(api: Api) -> None:
    with api.http("admin") as client:
        for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"nul", b""):
            answer = client.post("/v1/environments", content=body, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (422, "input.invalid"), body[:10]


def test_without_a_schema_everything_says_that_the_database_is_not_ready(
    api: Api, empty_database: Database, serving: tuple[Any, str]
) -> None:
    serving[0].state.services = build_services(api.settings, Storage(empty_database))
    with api.http("admin") as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"], answer.json()["hint"]) == (
        503,
        "database.not_ready",
        "tritonctl db upgrade",
    )
