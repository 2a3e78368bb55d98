# Webhooks: what is told, the letter's bytes, its signature, the pauses and the addresses.
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.access import SYSTEM, Actor, PrincipalKind
from controlplane.domain.audit import Action, AuditEntry
from controlplane.domain.webhooks import (
    EVENTS,
    Event,
    Letter,
    Outcome,
    Webhook,
    check_url,
    letter,
    ping,
    receiver,
    retry_after,
    signature,
)
from controlplane.errors import InvalidInput

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def webhook(*events: Event, environment: str | None = None) -> Webhook:
    return Webhook(3, "http://receiver", frozenset(events), environment, "ada", NOON, None, 0)


def entry(action: str, **subjects: str) -> AuditEntry:
    return AuditEntry(7, NOON, SYSTEM, action, subjects, {})


def test_the_table_is_this_and_tells_every_event() -> None:
    """Written out again on purpose: what others rely on has to be changed twice."""
    assert {str(action): event.value for action, event in EVENTS.items()} == {
        "change.proposed": "change.waits_for_approval",
        "change.replanned": "change.waits_for_approval",
        "change.applied": "change.applied",
        "change.undone": "change.undone",
        "change.stuck": "change.stuck",
        "change.paused": "change.paused",
        "deployment.drifted": "deployment.drifted",
        "deployment.healed": "deployment.healed",
        "glass.broken": "glass.broken",
    }
    assert set(EVENTS.values()) == set(Event)
    assert set(EVENTS) <= set(Action)


@pytest.mark.parametrize(
    ("asks", "happened", "told"),
    [
        (webhook(), entry("change.applied", environment="prod"), Event.APPLIED),
        (webhook(), entry("change.approved", environment="prod"), None),
        (webhook(), entry("of.a.later.version"), None),
        (webhook(Event.STUCK), entry("change.applied", environment="prod"), None),
        (webhook(Event.STUCK, Event.APPLIED), entry("change.applied", environment="prod"), Event.APPLIED),
        (webhook(environment="prod"), entry("change.applied", environment="prod"), Event.APPLIED),
        (webhook(environment="prod"), entry("change.applied", environment="dev"), None),
        (webhook(environment="prod"), entry("change.applied"), None),
    ],
)
def test_a_webhook_is_told_its_events_of_its_environment(
    asks: Webhook, happened: AuditEntry, told: Event | None
) -> None:
    assert asks.event(happened) == told


def test_a_letter_says_digests_and_reasons_and_where_to_look() -> None:
    happened = AuditEntry(
        seq=7,
        at=NOON,
        actor=Actor("björn", PrincipalKind.PERSON),
        action="change.applied",
        subjects={"environment": "prod", "model": "a b", "change": "12"},
        details={"content": "sha256:00", "reason": "tune", "proofs": [{"seen": "much"}], "secret": "never"},
        request_id="r",
    )
    assert letter(3, Event.APPLIED, happened) == Letter(
        event="change.applied",
        delivery="3-7",
        body=(
            '{"actor":{"kind":"person","name":"björn"},"at":"2026-11-22T12:00:00.000000Z",'
            '"details":{"content":"sha256:00","reason":"tune"},"event":"change.applied",'
            '"links":{"change":"/v1/changes/12","deployment":"/v1/environments/prod/deployments/a%20b"},"seq":7,'
            '"subjects":{"change":"12","environment":"prod","model":"a b"}}'
        ).encode(),
    )


def test_a_ping_says_who_sent_it() -> None:
    assert ping(3, "ada", NOON, "0f") == Letter(
        event="ping",
        delivery="3-ping-0f",
        body=b'{"actor":{"name":"ada"},"at":"2026-11-22T12:00:00.000000Z","event":"ping","webhook":3}',
    )


def test_the_signature_is_that_of_another_implementation() -> None:
    """`printf '1795003200.{}' | openssl dgst -sha256 -hmac tcw_secret`."""
    expected = "a3a50dd99c05a043d50807e6eaaa2854d55d26aba6be91d15d9a59145891cf9f"
    assert signature("tcw_secret", 1795003200, b"{}") == expected
    assert Letter("ping", "3-ping-0f", b"{}").headers("tcw_secret", datetime.fromtimestamp(1795003200.9, UTC)) == {
        "Content-Type": "application/json",
        "Tritonctl-Event": "ping",
        "Tritonctl-Delivery": "3-ping-0f",
        "Tritonctl-Signature": f"t=1795003200,v1={expected}",
    }


def test_pauses_double_up_to_ten_minutes() -> None:
    seconds = [retry_after(failures) // timedelta(seconds=1) for failures in (1, 2, 3, 8, 9, 10, 11, 10_000)]
    assert seconds == [2, 4, 8, 256, 512, 600, 600, 600]


@pytest.mark.parametrize(
    ("outcome", "delivered"),
    [
        (Outcome(199), False),
        (Outcome(200), True),
        (Outcome(204), True),
        (Outcome(299), True),
        (Outcome(302), False),
        (Outcome(500), False),
        (Outcome(None, "no answer"), False),
    ],
)
def test_only_a_status_of_the_200s_is_a_delivery(outcome: Outcome, delivered: bool) -> None:
    assert outcome.delivered is delivered


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/hook", "https://hooks.example.com/T0/B0?key=x", "http://[::1]:80/"]
)
def test_addresses_of_http_are_taken_as_they_are(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/hidden", "letters are sent by http or https, not by 'ftp'"),
        ("file:///hidden", "letters are sent by http or https, not by 'file'"),
        ("hidden", "letters are sent by http or https, not by ''"),
        ("http:///hidden", "the URL names no host"),
        ("http://me:hidden@host/", "the URL has a name or a password in it"),
        ("http://host:99999/hidden", "the URL cannot be read: Port out of range 0-65535"),
        ("http://ho st/hidden", "the URL has more than 2000 characters, or some that no URL has"),
        ("http://host/\nhidden", "the URL has more than 2000 characters, or some that no URL has"),
        ("http://höst/hidden", "the URL has more than 2000 characters, or some that no URL has"),
        ("http://host/hidden" + "x" * 2000, "the URL has more than 2000 characters, or some that no URL has"),
    ],
)
def test_other_addresses_are_refused_without_repeating_them(url: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_url(url)
    assert refusal.value.message == reason
    assert "hidden" not in f"{refusal.value.message} {refusal.value.hint}"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "100.100.100.200",
        "168.63.129.16",
        "[fd00:ec2::254]",
    ],
)
def test_where_a_machines_secrets_are_no_letter_goes_unless_it_is_allowed(host: str) -> None:
    with pytest.raises(InvalidInput, match="a link-local address or a cloud's metadata service") as refusal:
        check_url(f"http://{host}/latest")
    assert refusal.value.hint is not None
    assert "TRITONCTL_WEBHOOKS__LINK_LOCAL" in refusal.value.hint
    assert check_url(f"http://{host}/latest", link_local=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "[::1]", "[fd12::1]", "receiver", "a.b.c.d"])
def test_a_receiver_may_be_on_this_machine_or_in_a_private_network(host: str) -> None:
    assert check_url(f"http://{host}:8080/letters")


def test_only_the_host_of_an_address_is_logged() -> None:
    assert receiver("https://hooks.example.com:8443/T0/B0?key=x") == "https://hooks.example.com:8443"
