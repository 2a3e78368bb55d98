# Webhooks over the API and the command line, with a real worker that delivers.
from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import parser

from clients.control import contexts
from clients.control.client import ControlClient
from clients.control.contexts import Context
from clients.control.errors import ApiError
from clients.control.types import NewChange, NewEnvironment, NewServer, NewVersion, NewWebhook, Ping
from controlplane.cli.app import main
from controlplane.wiring import build_worker
from tests.store.api.conftest import Api
from tests.store.receivers import Receiver, receiver

DOUBLE = "double (float[N,4] x) => (float[N,4] y) <float f = {2.0}> { y = Mul(x, f) }"


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def working(api: Api) -> Iterator[None]:
    """A worker as the command line runs it, on the API's database."""
    stop = threading.Event()
    thread = threading.Thread(target=build_worker(api.settings, api.storage, name="worker").run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(90)
    assert not thread.is_alive()


def prepare(api: Api, directory: Path) -> ControlClient:
    """Environments `prod`, which asks for an approval, and `dev`, which does not; an author with a model."""
    admin, author = api.as_("admin"), api.as_("author")
    for name, approvals in (("prod", 1), ("dev", 0)):
        admin.environments.create(NewEnvironment(name, policy={"approvals": approvals}))
        admin.environments.add_server(name, NewServer(f"{name}-1", "127.0.0.1:1", str(directory / name)))
    graph = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {DOUBLE}')
    path = directory / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    author.catalog.register("double", NewVersion(files=(author.uploads.upload(path, "model.onnx"),)))
    return author


@pytest.mark.usefixtures("working")
def test_a_worker_tells_of_a_change_that_waits_and_not_of_one_that_does_not(
    api: Api, there: Receiver, tmp_path: Path
) -> None:
    author = prepare(api, tmp_path)
    issued = api.as_("admin").webhooks.add(NewWebhook(there.url))
    assert issued.secret is not None
    author.changes.propose(NewChange("dev", "double", reason="no approval", versions=(1,), generate=True))
    change = author.changes.propose(NewChange("prod", "double", reason="first", versions=(1,), generate=True))

    letter = there.wait(1)[0]

    assert letter.signed_with(issued.secret)
    tree = json.loads(letter.body)
    assert (tree["event"], tree["actor"], tree["subjects"], tree["links"]) == (
        "change.waits_for_approval",
        {"name": "author", "kind": "person"},
        {"environment": "prod", "model": "double", "change": str(change.summary.id)},
        {
            "change": f"/v1/changes/{change.summary.id}",
            "deployment": "/v1/environments/prod/deployments/double",
        },
    )
    assert tree["details"] == {
        "plan": change.plan.digest,
        "base": tree["details"]["base"],
        "content": change.plan.desired_digest,
        "reason": "first",
    }
    author.changes.withdraw(change.summary.id)
    author.changes.propose(NewChange("prod", "double", reason="second", versions=(1,), generate=True))
    assert [json.loads(one.body)["details"]["reason"] for one in there.wait(2)] == ["first", "second"]


def test_a_webhook_over_the_api(api: Api, there: Receiver) -> None:
    admin = api.as_("admin").webhooks
    issued = admin.add(NewWebhook(there.url, ("change.stuck", "change.applied")))
    added = issued.webhook
    assert (added.id, added.url, added.events, added.environment, added.created_by, added.failures) == (
        1,
        there.url,
        ("change.applied", "change.stuck"),
        None,
        "admin",
        0,
    )
    assert admin.webhook(1) == added
    assert admin.webhooks().items == (added,)
    assert admin.ping(1) == Ping(204, None, delivered=True)
    assert admin.disable(1).disabled_at is not None
    assert admin.enable(1).disabled_at is None
    admin.remove(1)
    assert admin.webhooks().items == ()


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewWebhook("ftp://host"), "input.invalid"),
        (NewWebhook("http://host", ("change.forgotten",)), "input.invalid"),
        (NewWebhook("http://host", (), "nowhere"), "not_found"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused(api: Api, new: NewWebhook, code: str) -> None:
    with pytest.raises(ApiError) as refusal:
        api.as_("admin").webhooks.add(new)
    assert refusal.value.code == code


def test_a_repeated_request_adds_one_webhook_and_shows_no_secret_again(api: Api) -> None:
    body = {"url": "http://host"}
    with api.http("admin") as client:
        first, second = (
            client.post("/v1/webhooks", json=body, headers={"Idempotency-Key": "k"}).json() for _ in range(2)
        )
    assert first["secret"].startswith("tcw_")
    assert second == {**first, "secret": None}
    assert len(api.as_("admin").webhooks.webhooks().items) == 1


def test_a_webhook_by_the_command_line(
    api: Api,
    there: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("TRITONCTL_TOKEN", "TRITONCTL_CONTEXT", "TRITONCTL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITONCTL_HOME", str(tmp_path / "home"))
    contexts.put(tmp_path / "home" / "context.toml", "here", Context(api.url, api.tokens["admin"]))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--context", "here", "webhook", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, secret, err = run("add", there.url, "--event", "change.stuck")
    assert (code, err) == (
        0,
        "webhook 1; its secret is not shown again:\nlook whether a letter arrives: tritonctl webhook test 1\n",
    )
    assert run("test", "1") == (0, "", "the receiver answered 204\n")
    assert there.letters[0].signed_with(secret.strip())
    there.answers = [404]
    assert run("test", "1") == (
        7,
        "",
        (
            "error [webhook.not_delivered]: the ping was not taken: the receiver answered 404\n"
            "next: tritonctl webhook show 1\n"
        ),
    )
    assert run("list")[1].splitlines() == [
        f"ID  URL{' ' * (len(there.url) - 3)}  EVENTS        ENVIRONMENT  STATE",
        f"1   {there.url}  change.stuck  all          new",
    ]
    assert "disabled" in run("disable", "1")[1]
    assert "disabled" not in run("enable", "1")[1]
    shown = dict(re.split(r"\s\s+", line, maxsplit=1) for line in run("show", "1")[1].splitlines())
    assert shown.pop("added").endswith("Z by admin")
    assert shown == {
        "webhook": "1",
        "url": there.url,
        "events": "change.stuck",
        "environment": "all",
        "state": "new",
        "told up to": f"audit entry {api.as_('admin').webhooks.webhook(1).cursor}",
    }
    assert run("remove", "1") == (0, "", "webhook 1 is removed\n")
    assert run("list")[1:] == ("", "no webhooks yet: tritonctl webhook add URL\n")
