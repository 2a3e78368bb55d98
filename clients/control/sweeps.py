# Sweeps: from a model and its objectives to a config with a reason.
from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import IO

from clients.control.decode import decode
from clients.control.errors import ApiError
from clients.control.transport import Connection
from clients.control.types import (
    Change,
    ComparisonView,
    FingerprintsView,
    MeasurementView,
    NewReplay,
    NewSweep,
    NewTrialProposal,
    Page,
    PlanView,
    SweepSummary,
    SweepView,
    TrialView,
)

ACTIVE = frozenset({"queued", "running"})
_REOPEN_SECONDS = 0.2
_PLANNING_SECONDS = 120.0
"""A space is walked and its configs are linted before the answer comes."""


class SweepsRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def plan(self, new: NewSweep) -> PlanView:
        """What `start` would do; nothing is kept."""
        return decode(PlanView, self._connection.post("/v1/sweeps/plan", new, timeout_seconds=_PLANNING_SECONDS))

    def start(self, new: NewSweep) -> SweepView:
        return decode(SweepView, self._connection.post("/v1/sweeps", new, timeout_seconds=_PLANNING_SECONDS))

    def list(
        self,
        *,
        model: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[SweepSummary]:
        return self._connection.page(SweepSummary, "/v1/sweeps", model=model, state=state, cursor=cursor, limit=limit)

    def get(self, sweep: int) -> SweepView:
        return decode(SweepView, self._connection.get(f"/v1/sweeps/{sweep}"))

    def trials(self, sweep: int, *, cursor: str | None = None, limit: int | None = None) -> Page[TrialView]:
        return self._connection.page(TrialView, f"/v1/sweeps/{sweep}/trials", cursor=cursor, limit=limit)

    def all_trials(self, sweep: int) -> tuple[TrialView, ...]:
        found: list[TrialView] = []
        cursor: str | None = None
        while True:
            page = self.trials(sweep, cursor=cursor, limit=500)
            found += page.items
            cursor = page.next
            if cursor is None:
                return tuple(found)

    def trial(self, sweep: int, trial: int) -> TrialView:
        return decode(TrialView, self._connection.get(f"/v1/sweeps/{sweep}/trials/{trial}"))

    def measurements(
        self,
        sweep: int,
        *,
        trial: int | None = None,
        histograms: bool = False,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[MeasurementView]:
        """In the order in which they were measured."""
        path = f"/v1/sweeps/{sweep}/measurements"
        wanted = "true" if histograms else None
        return self._connection.page(MeasurementView, path, trial=trial, histograms=wanted, cursor=cursor, limit=limit)

    def cancel(self, sweep: int) -> SweepView:
        return decode(SweepView, self._connection.post(f"/v1/sweeps/{sweep}/cancellation"))

    def resume(self, sweep: int) -> SweepView:
        return decode(SweepView, self._connection.post(f"/v1/sweeps/{sweep}/resumption"))

    def fingerprints(self, sweep: int) -> FingerprintsView:
        """What its blocks were measured on."""
        return decode(FingerprintsView, self._connection.get(f"/v1/sweeps/{sweep}/fingerprints"))

    def compare(self, sweep: int, one: int, other: int) -> ComparisonView:
        tree = self._connection.get(f"/v1/sweeps/{sweep}/comparison", one=one, other=other)
        return decode(ComparisonView, tree)

    def propose(self, sweep: int, new: NewTrialProposal) -> Change:
        """A change of a trial, with what was measured of it as evidence."""
        return decode(Change, self._connection.post(f"/v1/sweeps/{sweep}/proposals", new))

    def export(self, sweep: int, file: IO[bytes], *, artifacts: bool = False, anonymize: bool = False) -> None:
        """The capsule, written as it comes: look at it before it is used."""
        wanted = {"artifacts": artifacts, "anonymize": anonymize}
        said = {name: "true" for name, value in wanted.items() if value}
        self._connection.download(f"/v1/sweeps/{sweep}/capsule", file, **said)

    def replay(self, new: NewReplay) -> SweepView:
        """What the capsule needs was uploaded before."""
        tree = self._connection.post("/v1/sweeps/replays", new, timeout_seconds=_PLANNING_SECONDS)
        return decode(SweepView, tree)

    def watch(self, sweep: int, *, deadline_seconds: float) -> Iterator[SweepSummary]:
        """The sweep as it is, and again whenever it got further, until it is over. Raises ApiError (`operation.timed_out`) when
        it goes on after the deadline. A stream that the API ends before is opened again, which says so when it was
        ended because our token was."""
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() <= deadline:
            with self._connection.events(f"/v1/sweeps/{sweep}/events") as events:
                for event, data in events:
                    if time.monotonic() > deadline:
                        break
                    if event == "sweep":
                        seen = decode(SweepSummary, json.loads(data))
                        yield seen
                        if seen.state not in ACTIVE:
                            return
            time.sleep(_REOPEN_SECONDS)
        raise ApiError(
            f"sweep {sweep} is not at its end after {deadline_seconds:.0f} s",
            code="operation.timed_out",
            exit_code=10,
            hint=f"it goes on: tritonctl sweep watch {sweep}",
        )
