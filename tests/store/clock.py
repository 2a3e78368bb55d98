# A clock that tells a new second every time it is asked.
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@dataclass
class SteppingClock:
    """A clock that tells a new second every time it is asked."""

    instant: datetime = field(default=NOON)

    def now(self) -> datetime:
        self.instant += timedelta(seconds=1)
        return self.instant
