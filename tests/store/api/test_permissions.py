# Acceptance 10: every route with every role: who is let in is what the permission table says, and nothing else.
from __future__ import annotations

import re

import httpx
import pytest

from controlplane.api.openapi import Route
from controlplane.api.routes import ROUTES
from controlplane.domain.access import PERMISSIONS, Permission, PrincipalKind, Role
from tests.store.api.conftest import Api

# What is named does not exist: whoever is let in meets 404 or 422, and nothing happens.
PARAMETERS = {
    "name": "nobody",
    "model": "nothing",
    "env": "nowhere",
    "change": "999",
    "number": "999",
    "sweep": "999",
    "trial": "999",
    "role": "viewer",
    "sha256": f"sha256:{'0' * 64}",
}
WITHOUT_PARAMETERS = {
    "/v1/principals": {"name": "not a name"},
    "/v1/tokens": {"principal": "nobody"},
    "/v1/environments": {"name": "not a name"},
    "/v1/changes": {"environment": "nowhere", "model": "nothing", "reason": "none"},
    "/v1/configs/parse": {"text": "no: config"},
    "/v1/configs/lint": {"text": "no: config"},
    "/v1/configs/diff": {"before": "no: config", "after": ""},
}


def ask(client: httpx.Client, route: Route) -> int:
    path = re.sub(r"\{(\w+)\}", lambda match: PARAMETERS[match[1]], route.path)
    body = WITHOUT_PARAMETERS.get(route.path, {}) if route.method in {"POST", "PUT", "PATCH"} else None
    return client.request(route.method, path, json=body, params={"old": 0, "new": 0, "base": 0}).status_code


def test_every_route_is_in_the_table_with_a_permission(api: Api) -> None:
    document = httpx.get(f"{api.url}/v1/openapi.json", trust_env=False).json()
    served = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if path not in {"/healthz", "/readyz"}
    }
    assert served == {(route.method, route.path) for route in ROUTES}
    assert all(isinstance(route.permission, Permission) for route in ROUTES)


@pytest.mark.parametrize("role", [None, *Role], ids=str)
def test_a_role_is_let_into_exactly_the_routes_of_its_permissions(api: Api, role: Role | None) -> None:
    api.add("somebody", *([role] if role else []))
    with api.http("somebody") as client:
        let_in = {(route.method, route.path): ask(client, route) not in {401, 403} for route in ROUTES if not route.own}
    assert let_in == {
        (route.method, route.path): role in PERMISSIONS[route.permission] for route in ROUTES if not route.own
    }


def test_nobody_is_let_in_without_a_token(api: Api) -> None:
    with api.http() as client:
        assert {(route.method, route.path): ask(client, route) for route in ROUTES} == {
            (route.method, route.path): 401 for route in ROUTES
        }


def test_a_service_account_with_every_role_may_not_consent(api: Api) -> None:
    api.add("robot", *Role, kind=PrincipalKind.SERVICE_ACCOUNT)
    with api.http("robot") as client:
        refused = {route.permission for route in ROUTES if not route.own and ask(client, route) == 403}
    assert refused == {Permission.CHANGE_APPROVE, Permission.REVIEW_CLOSE, Permission.ACCESS_MANAGE}


def test_what_is_ones_own_needs_no_role(api: Api) -> None:
    api.add("somebody")
    mine, others = api.http("somebody"), api.http("viewer")
    number = mine.get("/v1/tokens", params={"principal": "somebody"}).json()["items"][0]["id"]
    assert [
        mine.get("/v1/whoami").status_code,
        mine.get("/v1/principals/somebody").status_code,
        mine.get("/v1/principals/admin").status_code,
        mine.get("/v1/tokens").status_code,
        others.delete(f"/v1/tokens/{number}").status_code,
        mine.delete(f"/v1/tokens/{number}").status_code,
        mine.get("/v1/whoami").status_code,
    ] == [200, 200, 403, 403, 403, 200, 401]
    mine.close()
    others.close()


def test_a_refusal_is_in_the_audit_log(api: Api) -> None:
    with api.http("viewer") as client:
        refused = client.post("/v1/principals", json={"name": "friend"})
    assert refused.status_code == 403
    entry = api.as_("admin").audit.entries(limit=1).items[0]
    assert (entry.actor, entry.action, entry.subjects["permission"], entry.request_id) == (
        "viewer",
        "permission.refused",
        "access.manage",
        refused.json()["request_id"],
    )
