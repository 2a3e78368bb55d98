# Webhooks on both databases, delivered to real HTTP receivers.
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.domain.access import SYSTEM, Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.environments import Environment
from controlplane.domain.policies import Policy
from controlplane.domain.webhooks import Event, Outcome
from controlplane.errors import InvalidInput, NotFound
from controlplane.services.access import AccessService
from controlplane.services.courier import CLAIM_SECONDS, Courier
from controlplane.services.ports import Poster
from controlplane.services.webhooks import WebhookService
from controlplane.storage.unit_of_work import Storage
from controlplane.webhook_post import HttpPoster
from tests.store.clock import NOON, SteppingClock
from tests.store.receivers import Receiver, certificate, receiver

GO = threading.Event()  # never set: nobody is asked to stop
POST = HttpPoster(2.0)


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(receiver())


@pytest.fixture
def access(storage: Storage, clock: SteppingClock) -> AccessService:
    return AccessService(storage, clock)


@pytest.fixture
def admin(access: AccessService) -> Principal:
    return access.bootstrap("ada", None)[0]


@pytest.fixture
def service(storage: Storage, access: AccessService, clock: SteppingClock) -> WebhookService:
    return WebhookService(storage, access, clock, POST)


@pytest.fixture
def courier(storage: Storage, clock: SteppingClock) -> Courier:
    return Courier(storage, clock, POST)


def happen(storage: Storage, *actions: Action, environment: str = "prod", **details: Json) -> None:
    subjects = {"environment": environment, "model": "digits"}
    with storage.write() as unit:
        for action in actions:
            unit.audit.append(AuditFact(SYSTEM, action, subjects, details))


def log_size(storage: Storage) -> int:
    with storage.read() as unit:
        return unit.audit.size()


def due(storage: Storage, clock: SteppingClock) -> tuple[int, ...]:
    with storage.read() as unit:
        return unit.webhooks.due(clock.now())


def test_a_webhook_is_told_in_order_what_happens_after_it_was_added(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal, receivers: Callable[[], Receiver]
) -> None:
    there, courier = receivers(), Courier(storage, clock, POST)
    happen(storage, Action.CHANGE_APPLIED)
    issued = service.add(admin, f"{there.url}/hook?key=x")
    first = log_size(storage)
    happen(storage, Action.CHANGE_STUCK, message="why", proofs=["not told"])
    happen(storage, Action.CHANGE_APPROVED, Action.CHANGE_UNDONE, Action.DEPLOYMENT_HEALED)
    assert due(storage, clock) == (1,)

    courier.deliver(1, GO)

    assert [(one.event, one.delivery) for one in there.letters] == [
        ("change.stuck", f"1-{first}"),
        ("change.undone", f"1-{first + 2}"),
        ("deployment.healed", f"1-{first + 3}"),
    ]
    letter = there.letters[0]
    assert letter.path == "/hook?key=x"
    assert letter.headers["content-type"] == "application/json"
    assert all(one.signed_with(issued.secret) for one in there.letters)
    assert not letter.signed_with(issued.secret[:-1])
    tree = json.loads(letter.body)
    assert tree.pop("at").endswith("Z")
    assert tree == {
        "event": "change.stuck",
        "seq": first,
        "actor": {"name": "system", "kind": "system"},
        "subjects": {"environment": "prod", "model": "digits"},
        "details": {"message": "why"},
        "links": {"deployment": "/v1/environments/prod/deployments/digits"},
    }
    told = service.get(admin, 1)
    assert (told.cursor, told.failures, told.status, told.error) == (first + 4, 0, 204, None)
    assert due(storage, clock) == ()


def test_what_is_not_for_a_webhook_is_passed_over(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal, receivers: Callable[[], Receiver]
) -> None:
    there, courier = receivers(), Courier(storage, clock, POST)
    with storage.write() as unit:
        unit.environments.add(Environment("prod", "", Policy(), 1, NOON))
    added = service.add(admin, there.url, {Event.APPLIED}, "prod").webhook
    happen(storage, *[Action.CHANGE_STUCK] * 150)
    happen(storage, Action.CHANGE_APPLIED, environment="dev")
    happen(storage, Action.CHANGE_APPLIED)
    happen(storage, Action.CHANGE_STUCK)

    courier.deliver(added.id, GO)

    assert [json.loads(one.body)["seq"] for one in there.letters] == [added.cursor + 152]
    assert service.get(admin, added.id).cursor == log_size(storage)
    assert due(storage, clock) == ()


def test_a_letter_that_failed_is_sent_again_later_and_the_others_after_it(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal, receivers: Callable[[], Receiver]
) -> None:
    there, courier = receivers(), Courier(storage, clock, POST)
    there.answers = [500, 302]
    service.add(admin, there.url)
    first = log_size(storage)
    happen(storage, Action.CHANGE_APPLIED, Action.CHANGE_UNDONE)

    courier.deliver(1, GO)
    failed = service.get(admin, 1)
    assert failed.attempted_at is not None
    assert (failed.cursor, failed.failures, failed.status, failed.next_attempt_at) == (
        first - 1,
        1,
        500,
        failed.attempted_at + timedelta(seconds=2),
    )
    with storage.read() as unit:
        assert unit.webhooks.due(failed.attempted_at) == ()
        assert unit.webhooks.due(failed.attempted_at + timedelta(seconds=2)) == (1,)

    clock.instant += timedelta(seconds=5)
    courier.deliver(1, GO)
    redirected = service.get(admin, 1)
    assert (redirected.failures, redirected.status) == (2, 302)

    courier.deliver(1, GO)  # too early: nothing
    clock.instant += timedelta(seconds=10)
    courier.deliver(1, GO)
    assert [(one.path, one.delivery) for one in there.letters] == [
        ("/", f"1-{first}"),
        ("/", f"1-{first}"),
        ("/", f"1-{first}"),
        ("/", f"1-{first + 1}"),
    ]
    assert len({one.body for one in there.letters[:3]}) == 1
    told = service.get(admin, 1)
    assert (told.cursor, told.failures, told.status, told.next_attempt_at) == (first + 2, 0, 204, None)


def test_a_receiver_that_is_not_there_is_a_failure_with_its_reason(
    storage: Storage, service: WebhookService, admin: Principal, courier: Courier
) -> None:
    service.add(admin, "http://127.0.0.1:1/")
    happen(storage, Action.CHANGE_APPLIED)
    courier.deliver(1, GO)
    failed = service.get(admin, 1)
    assert (failed.failures, failed.status) == (1, None)
    assert failed.error is not None
    assert failed.error.startswith("ConnectError: ")


@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_a_receiver_that_takes_its_time_is_left_at_the_deadline(how: str, receivers: Callable[[], Receiver]) -> None:
    there = receivers()
    if how == "silent":
        there.hold = threading.Event()
    else:
        there.drip = 0.05
    assert HttpPoster(0.4)(there.url, {}, b"{}") == Outcome(None, "no answer within 0.4 seconds")


def test_a_receiver_must_show_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, authority = certificate(tmp_path)
    with receiver(tls) as there:
        refused = HttpPoster()(there.url, {}, b"{}")
        assert there.letters == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert HttpPoster()(there.url, {}, b"{}") == Outcome(204)
    assert refused.status is None
    assert refused.error is not None
    assert "CERTIFICATE_VERIFY_FAILED" in refused.error


def test_a_slow_receiver_delays_no_other(
    storage: Storage,
    service: WebhookService,
    admin: Principal,
    courier: Courier,
    receivers: Callable[[], Receiver],
) -> None:
    slow, quick = receivers(), receivers()
    slow.hold = threading.Event()
    service.add(admin, slow.url)
    service.add(admin, quick.url)
    stop = threading.Event()
    running = threading.Thread(target=courier.run, args=(stop,))
    running.start()
    happen(storage, Action.CHANGE_APPLIED, Action.CHANGE_UNDONE)
    slow.wait(1)
    happen(storage, Action.CHANGE_STUCK)
    assert [one.event for one in quick.wait(3)] == ["change.applied", "change.undone", "change.stuck"]
    stop.set()
    slow.hold.set()
    running.join(60)
    assert not running.is_alive()


def test_couriers_at_once_send_each_letter_once_and_in_order(
    storage: Storage,
    clock: SteppingClock,
    service: WebhookService,
    admin: Principal,
    receivers: Callable[[], Receiver],
) -> None:
    there = receivers()
    service.add(admin, there.url)
    first = log_size(storage)
    happen(storage, *[Action.CHANGE_APPLIED] * 12)
    couriers = [Courier(storage, clock, POST) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: each.deliver(1, GO), couriers))
    assert [one.delivery for one in there.letters] == [f"1-{first + number}" for number in range(12)]


def test_a_claim_that_ran_out_is_taken_over_and_its_old_holder_changes_nothing(
    storage: Storage,
    clock: SteppingClock,
    service: WebhookService,
    admin: Principal,
    receivers: Callable[[], Receiver],
) -> None:
    there = receivers()
    service.add(admin, there.url)
    first = log_size(storage)
    happen(storage, Action.CHANGE_APPLIED, Action.CHANGE_UNDONE)
    other = Courier(storage, clock, POST)

    def sleep_over_it(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        other.deliver(1, GO)
        assert there.letters == []  # it is not the other's turn yet
        clock.instant += timedelta(seconds=CLAIM_SECONDS)
        other.deliver(1, GO)
        return Outcome(500)

    Courier(storage, clock, sleep_over_it).deliver(1, GO)
    assert [one.delivery for one in there.letters] == [f"1-{first}", f"1-{first + 1}"]
    told = service.get(admin, 1)
    assert (told.cursor, told.failures, told.status) == (first + 2, 0, 204)


def test_no_transaction_is_open_while_a_letter_is_sent(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal
) -> None:
    service.add(admin, "http://receiver")
    happen(storage, Action.CHANGE_APPLIED)
    sent = []

    def writing(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        happen(storage, Action.MODEL_REGISTERED)  # the database refuses a writing transaction inside another
        sent.append(url)
        return Outcome(204)

    Courier(storage, clock, writing).deliver(1, GO)
    assert sent == ["http://receiver"]


def meanwhile(storage: Storage, clock: SteppingClock, act: Callable[[], object]) -> list[bytes]:
    """What is sent to webhook 1 when `act` happens during its first letter."""
    sent: list[bytes] = []

    def post(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        sent.append(body)
        act()
        return Outcome(204)

    poster: Poster = post
    Courier(storage, clock, poster).deliver(1, GO)
    return sent


def test_disabling_ends_a_delivery_and_enabling_begins_at_the_end(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal, courier: Courier
) -> None:
    service.add(admin, "http://receiver")
    happen(storage, Action.CHANGE_APPLIED, Action.CHANGE_UNDONE)
    assert len(meanwhile(storage, clock, lambda: service.disable(admin, 1))) == 1
    assert service.get(admin, 1).disabled_at is not None
    assert due(storage, clock) == ()
    size = log_size(storage)
    enabled = service.enable(admin, 1)
    assert (enabled.disabled_at, enabled.cursor, enabled.failures) == (None, size, 0)
    assert service.enable(admin, 1) == enabled
    assert log_size(storage) == size + 1  # the second one is no fact
    assert due(storage, clock) == ()
    happen(storage, Action.CHANGE_STUCK)
    assert due(storage, clock) == (1,)


def test_removing_ends_a_delivery_and_the_number_is_never_used_again(
    storage: Storage, clock: SteppingClock, service: WebhookService, admin: Principal
) -> None:
    service.add(admin, "http://receiver")
    happen(storage, Action.CHANGE_APPLIED, Action.CHANGE_UNDONE)
    assert len(meanwhile(storage, clock, lambda: service.remove(admin, 1))) == 1
    with pytest.raises(NotFound, match="there is no webhook 1"):
        service.get(admin, 1)
    assert service.webhooks(admin) == ()
    assert service.add(admin, "http://receiver").webhook.id == 2


def test_a_ping_arrives_signed_and_leaves_the_delivery_state(
    service: WebhookService, admin: Principal, receivers: Callable[[], Receiver]
) -> None:
    there = receivers()
    there.answers = [200, 418]
    issued = service.add(admin, there.url)
    service.disable(admin, 1)
    before = service.get(admin, 1)
    assert (service.ping(admin, 1), service.ping(admin, 1)) == (Outcome(200), Outcome(418))
    assert [one.event for one in there.letters] == ["ping", "ping"]
    assert len({one.delivery for one in there.letters}) == 2
    assert there.letters[0].signed_with(issued.secret)
    assert service.get(admin, 1) == before


def test_adding_disabling_enabling_and_removing_are_audited_without_secrets(
    storage: Storage, service: WebhookService, admin: Principal
) -> None:
    with storage.write() as unit:
        unit.environments.add(Environment("prod", "", Policy(), 1, NOON))
    before = log_size(storage)
    issued = service.add(admin, "https://hooks.example.com/T0?key=hidden", {Event.STUCK, Event.APPLIED}, "prod")
    service.disable(admin, 1)
    service.disable(admin, 1)
    service.enable(admin, 1)
    service.remove(admin, 1)
    with storage.read() as unit:
        entries = unit.audit.entries()[::-1][before:]
    receiver_only = {"receiver": "https://hooks.example.com"}
    assert [(entry.actor.name, entry.action, dict(entry.details)) for entry in entries] == [
        ("ada", "webhook.added", {**receiver_only, "events": ["change.applied", "change.stuck"]}),
        ("ada", "webhook.disabled", receiver_only),
        ("ada", "webhook.enabled", receiver_only),
        ("ada", "webhook.removed", receiver_only),
    ]
    assert all(entry.subjects == {"webhook": "1", "environment": "prod"} for entry in entries)
    assert issued.secret not in repr(issued)


def test_secrets_are_random_and_long(service: WebhookService, admin: Principal) -> None:
    made = {service.add(admin, "http://receiver").secret for _ in range(5)}
    assert len(made) == 5
    assert {(secret[:4], len(secret)) for secret in made} == {("tcw_", 47)}


def test_a_webhook_that_cannot_be_is_refused_and_leaves_nothing(
    storage: Storage, service: WebhookService, admin: Principal
) -> None:
    before = log_size(storage)
    with pytest.raises(InvalidInput):
        service.add(admin, "ftp://receiver")
    with pytest.raises(NotFound):
        service.add(admin, "http://receiver", (), "nowhere")
    assert service.webhooks(admin) == ()
    assert log_size(storage) == before
