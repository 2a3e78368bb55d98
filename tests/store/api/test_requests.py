# What every request meets: authentication, problem documents, limits, ids, headers, cursors, ETags.
from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from clients.control.errors import ApiError
from clients.control.types import NewEnvironment, NewPrincipal
from controlplane.api.routes import ROUTES
from tests.store.api.conftest import Api


def test_health_needs_no_token(api: Api) -> None:
    with api.http() as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        ("", "the request carries no token"),
        ("Basic YWRtaW46YWRtaW4=", "the request carries no token"),
        ("Bearer", "the request carries no token"),
        ("Bearer tcp_false", "the token is not known"),
    ],
)
def test_what_is_no_valid_token_is_refused_before_the_body_is_read(api: Api, authorization: str, detail: str) -> None:
    with api.http() as client:
        answer = client.post("/v1/environments", content=b"{not json", headers={"Authorization": authorization})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (answer.json()["code"], answer.json()["detail"]) == ("access.unauthenticated", detail)


def test_a_revoked_token_stops_working_at_once(api: Api) -> None:
    viewer = api.as_("viewer")
    assert viewer.access.whoami().name == "viewer"
    token = api.as_("admin").access.tokens("viewer").items[0]
    api.as_("admin").access.revoke_token(token.id)
    with pytest.raises(ApiError) as caught:
        viewer.access.whoami()
    assert (caught.value.code, caught.value.status, caught.value.exit_code) == ("access.unauthenticated", 401, 3)


def test_an_error_is_a_problem_document_with_code_and_hint(api: Api) -> None:
    with api.http("admin") as client:
        answer = client.get("/v1/changes/7", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:tritonctl:error:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no change 7",
        "code": "not_found",
        "exit_code": 4,
        "hint": "tritonctl change list",
        "details": {},
        "request_id": "mine-1",
    }


def test_fields_that_do_not_exist_are_refused_by_name(api: Api) -> None:
    with api.http("admin") as client:
        problem = client.post("/v1/environments", json={"name": "a", "polcy": {}}).json()
    assert problem["code"] == "input.invalid"
    assert problem["details"] == {"fields": [{"where": "body.polcy", "message": "Unexpected keyword argument"}]}


def test_unknown_routes_and_methods_are_problems_too(api: Api) -> None:
    with api.http("admin") as client:
        assert client.get("/v1/nothing").json()["code"] == "not_found"
        assert client.patch("/v1/models").json()["code"] == "input.method_not_allowed"


def test_every_answer_carries_an_id_and_security_headers(api: Api) -> None:
    with api.http() as client:
        headers = client.get("/v1/models").headers
        other = client.get("/v1/models", headers={"X-Request-ID": "no spaces allowed"}).headers
    assert {name: headers[name] for name in ("X-Content-Type-Options", "X-Frame-Options", "Cache-Control")} == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-store",
    }
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert len(headers["X-Request-ID"]) == 16
    assert other["X-Request-ID"] != "no spaces allowed"


def _megabytes(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(2**20)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused(api: Api, declared: bool) -> None:
    content: bytes | Iterator[bytes] = bytes(9 * 2**20) if declared else _megabytes(9)
    with api.http("admin") as client:
        answer = client.post("/v1/environments", content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "input.too_large")


def test_answers_carry_the_latest_checkpoint_to_whoever_is_known(api: Api) -> None:
    signed = api.as_("admin").audit.sign()
    with api.http("viewer") as known, api.http() as unknown:
        import base64

        assert base64.b64decode(known.get("/v1/models").headers["Tritonctl-Checkpoint"]).decode() == signed.note
        assert base64.b64decode(known.get("/v1/changes/7").headers["Tritonctl-Checkpoint"]).decode() == signed.note
        assert "Tritonctl-Checkpoint" not in unknown.get("/v1/models").headers


def test_a_policy_is_replaced_only_while_it_is_the_one_that_was_read(api: Api) -> None:
    admin = api.as_("admin")
    admin.environments.create(NewEnvironment("prod"))
    with api.http("admin") as client:
        tag = client.get("/v1/environments/prod").headers["ETag"]
        first = client.put("/v1/environments/prod/policy", json={"approvals": 2}, headers={"If-Match": tag})
        second = client.put("/v1/environments/prod/policy", json={"approvals": 0}, headers={"If-Match": tag})
        odd = client.put("/v1/environments/prod/policy", json={"approvals": 0}, headers={"If-Match": "W/x"})
    assert (tag, first.status_code, first.headers["ETag"]) == ('"1"', 200, '"2"')
    assert (second.status_code, second.json()["code"]) == (412, "precondition.failed")
    assert odd.status_code == 422
    assert admin.environments.get("prod").policy["approvals"] == 2


def test_a_list_is_continued_by_its_cursor_until_its_end(api: Api) -> None:
    admin = api.as_("admin")
    for number in range(5):
        admin.access.create(NewPrincipal(f"p{number}"))
    seen, cursor, pages = [], None, 0
    while True:
        page = admin.audit.entries(action="principal.created", cursor=cursor, limit=3)
        seen += [entry.subjects["principal"] for entry in page.items]
        cursor, pages = page.next, pages + 1
        if cursor is None:
            break
    assert (seen, pages) == (["p4", "p3", "p2", "p1", "p0", "viewer", "approver", "author"], 3)


@pytest.mark.parametrize("cursor", ["!", "bm90IGEgbnVtYmVy", "é"])
def test_a_cursor_that_is_not_ours_is_refused(api: Api, cursor: str) -> None:
    with api.http("admin") as client:
        answer = client.get("/v1/changes", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor.invalid")


def test_openapi_documents_every_error_that_a_route_may_answer(api: Api) -> None:
    document = httpx.get(f"{api.url}/v1/openapi.json", trust_env=False).json()
    assert document["openapi"].startswith("3.1")
    problem = {"$ref": "#/components/schemas/Problem"}
    for route in ROUTES:
        responses = document["paths"][route.path][route.method.lower()]["responses"]
        for error in route.errors:
            answer = responses[str(error.status)]
            assert answer["content"]["application/problem+json"]["schema"] == problem, (route.path, error)
            assert f"`{error.code}`" in answer["description"]
    assert document["components"]["schemas"]["Problem"]["required"][:3] == ["type", "title", "status"]
