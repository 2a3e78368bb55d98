# A process that appends to the audit log as fast as it can, and fails now and then.
from __future__ import annotations

import random

from controlplane.domain.access import Actor, PrincipalKind
from controlplane.domain.audit import Action, AuditFact
from controlplane.storage.database import create_database
from controlplane.storage.unit_of_work import Storage


def append_many(url: str, worker: int, count: int) -> None:
    """`count` transactions: some append twice, some fail after they have written."""
    database = create_database(url)
    storage = Storage(database)
    chance = random.Random(worker)
    fact = AuditFact(Actor(f"worker{worker}", PrincipalKind.SERVICE_ACCOUNT), Action.POLICY_SET, {"environment": "a"})
    for _ in range(count):
        try:
            with storage.write() as unit:
                for _ in range(chance.randint(1, 2)):
                    unit.audit.append(fact)
                if chance.random() < 0.2:
                    unit.audit.write_queued()
                    raise InterruptedError  # noqa: TRY301 - in the middle of the transaction
        except InterruptedError:
            continue
    database.close()


def committed(worker: int, count: int) -> int:
    """How many entries `append_many` commits: the same dice, thrown again."""
    chance = random.Random(worker)
    total = 0
    for _ in range(count):
        facts = chance.randint(1, 2)
        total += 0 if chance.random() < 0.2 else facts
    return total
