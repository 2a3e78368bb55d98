# A process that dies between sending a letter and recording it: the letter comes again, and nothing is lost.
from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.webhooks import Webhook
from controlplane.services.courier import CLAIM_SECONDS, Courier
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import Storage
from controlplane.webhook_post import HttpPoster
from tests.store.clock import SteppingClock
from tests.store.receivers import receiver

DELIVER = """
import sys, threading
from controlplane.services.courier import Courier
from controlplane.storage.database import create_database
from controlplane.storage.unit_of_work import Storage
from controlplane.webhook_post import HttpPoster
from tests.store.clock import SteppingClock
clock = SteppingClock()
courier = Courier(Storage(create_database(sys.argv[1]), clock.now), clock, HttpPoster(60.0))
courier.deliver(1, threading.Event())
"""


def test_a_killed_senders_letter_is_sent_again_under_the_same_name(database: Database, clock: SteppingClock) -> None:
    storage = Storage(database, clock.now)
    with receiver() as there:
        with storage.write() as unit:
            unit.webhooks.add(Webhook(0, there.url, frozenset(), None, "ada", clock.now(), None, 0), "tcw_secret")
            unit.audit.append(AuditFact(SYSTEM, Action.CHANGE_APPLIED))
            unit.audit.append(AuditFact(SYSTEM, Action.CHANGE_UNDONE))
        there.hold = threading.Event()
        url = database.engine.url.render_as_string(hide_password=False)
        with subprocess.Popen([sys.executable, "-c", DELIVER, url]) as sender:
            there.wait(1)
            sender.kill()
        there.hold.set()

        courier, go = Courier(storage, clock, HttpPoster()), threading.Event()
        courier.deliver(1, go)
        assert [one.delivery for one in there.letters] == ["1-0"]  # the dead one's claim still holds
        clock.instant += timedelta(seconds=CLAIM_SECONDS + 60)
        courier.deliver(1, go)

    assert [(one.event, one.delivery) for one in there.letters] == [
        ("change.applied", "1-0"),
        ("change.applied", "1-0"),
        ("change.undone", "1-1"),
    ]
    assert there.letters[0].body == there.letters[1].body
    with storage.read() as unit:
        told = unit.webhooks.get(1)
    assert (told.cursor, told.failures, told.status) == (2, 0, 204)
