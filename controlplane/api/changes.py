# Change requests: propose, review, apply, watch, roll back.
from __future__ import annotations

from dataclasses import asdict

from fastapi import Request
from starlette.responses import StreamingResponse

from clients.control import types
from controlplane.api import events, pages, wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.artifacts import FileEntry
from controlplane.domain.changes import ACTIVE, ChangeState, ReviewState
from controlplane.domain.evidence import Evidence
from controlplane.errors import InvalidInput
from controlplane.services.change_views import ChangeView
from controlplane.services.planning import Proposal
from controlplane.services.rooms import Services


def propose_change(body: types.NewChange, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.propose(caller, _proposal(body, rooms)))


def list_changes(
    *,
    caller: Caller,
    rooms: Rooms,
    environment: str | None = None,
    model: str | None = None,
    state: ChangeState | None = None,
    review: ReviewState | None = None,
    cursor: str | None = None,
    limit: pages.Limit = 50,
) -> types.Page[types.ChangeSummary]:
    """The newest first. `review` is that of a broken glass: `open` lists what somebody still has to look at."""
    found = rooms.changes.list(
        caller,
        environment=environment,
        model=model,
        state=state,
        review=review,
        before=pages.after(cursor),
        limit=limit + 1,
    )
    following = pages.cursor(found[limit - 1].id) if len(found) > limit else None
    return types.Page(tuple(wire.of(types.ChangeSummary, item) for item in found[:limit]), following)


def show_change(change: int, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.show(caller, change))


def replan_change(*, change: int, body: types.NewChange | None = None, caller: Caller, rooms: Rooms) -> types.Change:
    """Plans anew on the current revision and policy: the same wish without a body, or the one that the body says whole.
    Raises InvalidInput for a body that wishes nothing: it would replace the old wish by none."""
    if body is not None and body == types.NewChange(
        body.environment, body.model, body.reason, body.hypothesis, body.expected_effect, acknowledge=body.acknowledge
    ):
        raise InvalidInput(
            "a replan with a reason says nothing of what is wished",
            hint="say the whole wish again, or replan without options",
        )
    edits = _proposal(body, rooms) if body is not None else None
    return change_of(rooms.changes.replan(caller, change, edits))


def approve_change(change: int, body: types.Vote, caller: Caller, rooms: Rooms) -> types.Change:
    """Consent to the plan of this digest, and to no other."""
    return change_of(rooms.changes.approve(caller, change, body.plan, body.comment))


def reject_change(change: int, body: types.Vote, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.reject(caller, change, body.plan, body.comment))


def withdraw_change(change: int, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.withdraw(caller, change))


def apply_change(change: int, body: types.Application, caller: Caller, rooms: Rooms) -> types.Change:
    """Accepted: the worker does it. Watch it by its events."""
    return change_of(rooms.changes.apply(caller, change, break_glass=body.break_glass))


def resume_change(change: int, body: types.Resumption, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.resume(caller, change, body.decision))


def close_review(change: int, body: types.Comment, caller: Caller, rooms: Rooms) -> types.Change:
    return change_of(rooms.changes.close_review(caller, change, body.comment))


def roll_back(env: str, model: str, body: types.NewRollback, caller: Caller, rooms: Rooms) -> types.Change:
    """Proposes the rollback, and starts it when the policy asks for no approval."""
    return change_of(rooms.changes.rollback(caller, env, model, to=body.to, reason=body.reason))


def watch_change(change: int, caller: Caller, rooms: Rooms, request: Request) -> StreamingResponse:
    """Server-sent events: `change` with the whole change, whenever it moved. The stream ends when nothing is under way, and
    soon after the caller's token or right to look ended."""
    return events.stream(
        "change",
        caller,
        rooms,
        request,
        look=lambda principal: rooms.changes.show(principal, change),
        told=change_of,
        moves=lambda view: view.request.state in ACTIVE,
    )


def _proposal(body: types.NewChange, rooms: Services) -> Proposal:
    return Proposal(
        environment=body.environment,
        model=body.model,
        reason=body.reason,
        hypothesis=body.hypothesis,
        expected_effect=body.expected_effect,
        versions=body.versions,
        config=rooms.configs.parse(body.config) if body.config is not None else None,
        generate=body.generate,
        beside=None
        if body.beside is None
        else rooms.blobs.manifest(FileEntry(file.path, file.size, file.sha256) for file in body.beside),
        adopted_from=body.adopted_from,
        sets=body.sets,
        unsets=body.unsets,
        undeploy=body.undeploy,
        from_environment=body.from_environment,
        reconcile=body.reconcile,
        acknowledge=body.acknowledge,
    )


def _evidence(evidence: Evidence | None) -> types.Evidence | None:
    if evidence is None:
        return None
    findings = tuple(asdict(finding) for finding in evidence.findings)
    return wire.of(types.Evidence, evidence, figures=evidence.to_json()["figures"], findings=findings)


def change_of(view: ChangeView) -> types.Change:
    plan = wire.of(
        types.Plan,
        view.plan,
        desired_digest=view.plan.desired.digest,
        versions=tuple(wire.of(types.VersionRef, ref) for ref in view.plan.desired.versions),
        config=view.plan.desired.config,
        beside=tuple(wire.of(types.File, entry) for entry in view.plan.desired.beside.files),
        policy=view.plan.clauses,
        evidence=_evidence(view.plan.evidence),
    )
    return wire.of(
        types.Change,
        view,
        summary=wire.of(types.ChangeSummary, view.request),
        plan=plan,
        proofs=view.request.proofs,
    )
