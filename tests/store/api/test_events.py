# The stream of a change's events belongs to whoever may see the change, and to nobody who no longer may.
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from clients.control.errors import ApiError
from controlplane.domain.access import Role
from tests.store.api.conftest import Api, Cli

LOST: dict[str, tuple[Callable[[Api], object], str]] = {
    "disabled": (lambda api: api.services.access.disable(api.admin, "viewer"), "access.unauthenticated"),
    "token-revoked": (
        lambda api: api.services.access.revoke_token(api.admin, api.services.access.tokens(api.admin, "viewer")[0].id),
        "access.unauthenticated",
    ),
    "role-revoked": (
        lambda api: api.services.access.revoke(api.admin, "viewer", Role.VIEWER),
        "access.permission_denied",
    ),
}


@pytest.mark.parametrize("how", LOST)
def test_a_stream_ends_soon_after_its_reader_may_no_longer_read(api: Api, cli: Cli, model: str, how: str) -> None:
    lose, code = LOST[how]
    cli("model", "register", "double", model)
    cli("environment", "policy", "prod", "--approvals", "0", "--context", "admin")
    wish = ("--version", "1", "--config", "generated", "--reason", "r", "--apply", "--no-wait")
    cli("change", "propose", "double", "-e", "prod", *wish)  # nobody works on it: it goes on for ever
    begun, ended = threading.Event(), threading.Event()
    told: list[str] = []

    def read() -> None:
        with api.http("viewer") as http, http.stream("GET", "/v1/changes/1/events") as answer:
            for line in answer.iter_lines():
                told.append(line)
                begun.set()
        ended.set()

    def follow() -> None:
        with pytest.raises(ApiError) as error:
            for _ in api.as_("viewer").changes.watch(1, deadline_seconds=60):
                pass
        told.append(error.value.code)

    threads = [threading.Thread(target=read), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    assert not ended.wait(0.5)
    lose(api)
    for thread in threads:
        thread.join(60)
    assert ended.is_set()
    assert told[0] == "event: change"
    assert code in told
