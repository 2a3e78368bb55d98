# Change requests.
from __future__ import annotations

import json
import time
from collections.abc import Iterator

from clients.control.decode import decode
from clients.control.errors import ApiError
from clients.control.transport import Connection, segment
from clients.control.types import (
    Application,
    Change,
    ChangeSummary,
    Comment,
    NewChange,
    NewRollback,
    Page,
    Resumption,
    Vote,
)

ACTIVE = frozenset({"applying", "paused", "undoing", "stuck"})
WORKING = frozenset({"applying", "undoing"})
"""States in which the worker acts; in every other one nothing moves until somebody decides."""
_REOPEN_SECONDS = 0.2


class ChangesRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def propose(self, new: NewChange) -> Change:
        return self._post("/v1/changes", new)

    def list(
        self,
        *,
        environment: str | None = None,
        model: str | None = None,
        state: str | None = None,
        review: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[ChangeSummary]:
        return self._connection.page(
            ChangeSummary,
            "/v1/changes",
            environment=environment,
            model=model,
            state=state,
            review=review,
            cursor=cursor,
            limit=limit,
        )

    def get(self, change: int) -> Change:
        return decode(Change, self._connection.get(f"/v1/changes/{change}"))

    def replan(self, change: int, edits: NewChange | None = None) -> Change:
        return self._post(f"/v1/changes/{change}/plans", edits)

    def approve(self, change: int, plan: str, comment: str = "") -> Change:
        """`plan` is the digest of the plan that was looked at."""
        return self._post(f"/v1/changes/{change}/approvals", Vote(plan, comment))

    def reject(self, change: int, plan: str, comment: str = "") -> Change:
        return self._post(f"/v1/changes/{change}/rejection", Vote(plan, comment))

    def withdraw(self, change: int) -> Change:
        return self._post(f"/v1/changes/{change}/withdrawal", None)

    def apply(self, change: int, *, break_glass: str | None = None) -> Change:
        return self._post(f"/v1/changes/{change}/application", Application(break_glass))

    def resume(self, change: int, decision: str) -> Change:
        return self._post(f"/v1/changes/{change}/resumption", Resumption(decision))

    def close_review(self, change: int, comment: str) -> Change:
        return self._post(f"/v1/changes/{change}/review", Comment(comment))

    def rollback(self, environment: str, model: str, *, reason: str, to: int | None = None) -> Change:
        path = f"/v1/environments/{segment(environment)}/deployments/{segment(model)}/rollback"
        return self._post(path, NewRollback(reason, to))

    def watch(self, change: int, *, deadline_seconds: float) -> Iterator[Change]:
        """The change as it is, and again whenever it moved, until nobody is working on it. Raises ApiError
        (`operation.timed_out`) when somebody still is after the deadline. A stream that the API ends before is opened
        again, which says so when it was ended because our token was."""
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() <= deadline:
            with self._connection.events(f"/v1/changes/{change}/events") as events:
                for event, data in events:
                    if time.monotonic() > deadline:
                        break
                    if event == "change":
                        seen = decode(Change, json.loads(data))
                        yield seen
                        if seen.summary.state not in WORKING:
                            return
            time.sleep(_REOPEN_SECONDS)
        raise ApiError(
            f"change {change} is not at its end after {deadline_seconds:.0f} s",
            code="operation.timed_out",
            exit_code=10,
            hint=f"it goes on: tritonctl change watch {change}",
        )

    def _post(self, path: str, body: object) -> Change:
        return decode(Change, self._connection.post(path, body))
