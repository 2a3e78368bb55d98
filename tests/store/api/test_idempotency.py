# Idempotency-Key: the work is done once, and the answer is the first one.
from __future__ import annotations

import threading

import httpx
import pytest

from tests.store.api.conftest import Api

KEY = {"Idempotency-Key": "k-1"}


def test_a_repeated_request_is_answered_as_the_first_one_was(api: Api) -> None:
    with api.http("admin") as client:
        first = client.post("/v1/environments", json={"name": "prod"}, headers=KEY)
        again = client.post("/v1/environments", json={"name": "prod"}, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert len(api.as_("admin").environments.list().items) == 1


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/environments", {"name": "other"}), ("/v1/principals", {"name": "prod"})]
)
def test_the_key_of_another_request_is_refused(api: Api, path: str, body: dict[str, str]) -> None:
    with api.http("admin") as client:
        client.post("/v1/environments", json={"name": "prod"}, headers=KEY)
        answer = client.post(path, json=body, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency.mismatch")


def test_a_key_is_its_principals_own(api: Api) -> None:
    api.add("second", *api.admin.roles)
    with api.http("admin") as one, api.http("second") as other:
        assert one.post("/v1/environments", json={"name": "prod"}, headers=KEY).status_code == 201
        assert other.post("/v1/environments", json={"name": "prod"}, headers=KEY).json()["code"] == "already_exists"


def test_what_was_refused_may_be_tried_again_with_the_same_key(api: Api) -> None:
    with api.http("admin") as client:
        refused = client.post("/v1/environments/prod/servers", json=_server(), headers=KEY)
        client.post("/v1/environments", json={"name": "prod"})
        done = client.post("/v1/environments/prod/servers", json=_server(), headers=KEY)
    assert (refused.status_code, done.status_code) == (404, 201)


def test_a_repeated_answer_does_not_repeat_a_secret(api: Api) -> None:
    with api.http("admin") as client:
        first = client.post("/v1/tokens", json={"principal": "viewer"}, headers=KEY).json()
        again = client.post("/v1/tokens", json={"principal": "viewer"}, headers=KEY).json()
    assert again == {**first, "secret": None}
    assert first["secret"].startswith("tcp_")


def test_a_key_of_no_characters_or_too_many_is_refused(api: Api) -> None:
    with api.http("admin") as client:
        for key in ("", "k" * 256):
            answer = client.post("/v1/environments", json={"name": "prod"}, headers={"Idempotency-Key": key})
            assert (answer.status_code, answer.json()["code"]) == (422, "input.invalid")


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
def test_of_many_at_once_exactly_one_does_the_work(api: Api) -> None:
    answers: list[httpx.Response] = []

    def post() -> None:
        with api.http("admin") as client:
            answers.append(client.post("/v1/principals", json={"name": "twin"}, headers=KEY))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each of the others came while the first one worked, or after it: refused, or answered with its answer.
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"conflict"}
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    assert len(api.as_("admin").audit.entries(subject="principal:twin").items) == 1


def _server() -> dict[str, str]:
    return {"name": "one", "address": "127.0.0.1:1", "repository": "/srv/models"}
