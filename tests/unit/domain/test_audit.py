# Audit entries: the registry of actions and the bytes that are hashed.
from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import controlplane
from controlplane.domain.access import Actor, PrincipalKind
from controlplane.domain.audit import Action, AuditEntry, AuditFact, read_entry
from controlplane.domain.times import format_instant, parse_instant
from controlplane.errors import AuditBroken, InvalidInput

ENTRY = AuditEntry(
    seq=7,
    at=datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC),
    actor=Actor("björn", PrincipalKind.PERSON),
    action="change.approved",
    subjects={"model": "digits", "change": "12"},
    details={"plan": "sha256:00", "comment": "gut\n\u2028"},
    request_id=None,
)
BODY = (
    '{"action":"change.approved","actor":{"kind":"person","name":"björn"},"at":"2026-11-22T12:00:00.000005Z",'
    '"details":{"comment":"gut\\n\u2028","plan":"sha256:00"},"request_id":null,"schema":1,"seq":7,'
    '"subjects":{"change":"12","model":"digits"}}'
)


def test_every_action_is_a_subject_and_what_happened_to_it() -> None:
    for action in Action:
        assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", action.value), action
        assert action.name not in {"", None}
    assert len({action.value for action in Action}) == len(Action)


def test_every_action_is_recorded_somewhere() -> None:
    """A registered action that nothing records is a promise that nobody keeps."""
    root = Path(controlplane.__file__).parent
    source = "\n".join(path.read_text() for path in sorted(root.rglob("*.py")) if path.name != "audit.py")
    assert [action.name for action in Action if f"Action.{action.name}" not in source] == []


def test_an_entry_is_stored_as_canonical_json_with_its_number_and_schema() -> None:
    assert ENTRY.body() == BODY.encode()
    assert read_entry(BODY) == ENTRY


def test_an_entry_is_made_of_a_fact() -> None:
    fact = AuditFact(ENTRY.actor, Action.CHANGE_APPROVED, ENTRY.subjects, ENTRY.details)
    assert AuditEntry.of(7, ENTRY.at, fact) == ENTRY


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY.replace('"schema":1', '"schema":2'), "audit entry 7 has schema 2, this program reads 1"),
        (BODY.replace(",", ", "), "audit entry 7 is not in canonical form"),
        (BODY.replace('"seq":7', '"seq":7,"seq":7'), "audit entry 7 is not in canonical form"),
        (BODY.replace('"seq":7', '"extra":1,"seq":7'), "audit entry 7 is not in canonical form"),
        ("][", "an audit entry cannot be read"),
        ("{}", "an audit entry cannot be read"),
        ("[]", "an audit entry cannot be read"),
        (BODY.replace("person", "robot"), "an audit entry cannot be read"),
        (BODY.replace("12:00:00.000005Z", "12:00"), "an audit entry cannot be read"),
    ],
)
def test_what_was_never_written_is_not_read(body: str, reason: str) -> None:
    with pytest.raises(AuditBroken) as refusal:
        read_entry(body)
    assert refusal.value.message.startswith(reason)


def test_details_hold_no_floats() -> None:
    with pytest.raises(InvalidInput, match="a float"):
        AuditEntry(0, ENTRY.at, ENTRY.actor, "x.y", {}, {"share": 0.5}).body()


def test_instants_are_text_whose_order_is_time_order() -> None:
    early = datetime(999, 1, 2, tzinfo=UTC)
    late = datetime(2026, 11, 22, 1, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert format_instant(early) == "0999-01-02T00:00:00.000000Z"
    assert format_instant(late) == "2026-11-21T23:00:00.000000Z"
    assert parse_instant(format_instant(late)) == late


def test_a_time_without_a_zone_or_in_another_form_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has no time zone"):
        format_instant(datetime(2026, 11, 22))  # noqa: DTZ001 - that is the point
    for text in ("", "2026-11-22T12:00:00Z", "2026-11-22 12:00:00.000000Z", "2026-11-22T12:00:00.000000+00:00"):
        with pytest.raises(InvalidInput, match="is not a time"):
            parse_instant(text)
