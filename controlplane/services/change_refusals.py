# What is said and recorded when a decision on a change is refused.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.domain.access import Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.blockers import LIFTED_BY_GLASS, Blocker
from controlplane.domain.canonical import Json
from controlplane.domain.changes import ACTIVE, ChangeRequest, ChangeState
from controlplane.domain.times import format_instant
from controlplane.errors import ChangeBlocked, Conflict, PermissionDenied
from controlplane.storage.unit_of_work import Storage, UnitOfWork

# By reason: the decision that is refused, why, and who decides instead.
_WHO = {
    "self_approval": (
        "approve",
        "{name} wrote or edited change {change}: authors and editors do not approve their own change",
        "ask somebody else, who may: tritonctl change approve {change}",
    ),
    "not_author": (
        "withdraw",
        "change {change} is not {name}'s: only {author} or an admin withdraws it",
        "an approver may reject it: tritonctl change reject {change} --comment …",
    ),
    "own_review": (
        "close_review",
        "{name} wrote or edited change {change}, or broke the glass: its review is closed by someone else",
        "ask another approver: tritonctl change close-review {change} --comment …",
    ),
    "not_a_person": (
        "resume",
        "{name} is a service account: what cannot be verified on change {change} is for a person to decide",
        "ask an operator: tritonctl change resume {change} --decision accept|restart",
    ),
}

# By the code of the first blocker, where the next command is not to look at the change.
_NEXT = {
    "approvals": "ask somebody else, who may: tritonctl change approve {change}",
    "stale": "tritonctl change replan {change}",
    "policy": "tritonctl change replan {change}",
}

# Where a freeze window is all that keeps it from being applied, beside what nobody needs in an emergency.
_FROZEN = "wait; in an emergency, as an admin: tritonctl change apply {change} --break-glass WHY"


class Refusals:
    """Each commits an entry of its own before the error is raised: the transaction that it came from wrote nothing."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @contextmanager
    def recorded(self, principal: Principal, change: int, decision: str) -> Iterator[None]:
        """Around a decision on a change, outside transactions: state, plan or policy may refuse it by a Conflict."""
        try:
            yield
        except Conflict as error:
            with self._storage.read() as unit:
                request = unit.changes.get(change)
            self._record(principal, request, decision, {"reason": error.code, **error.details})
            raise

    def refuse(self, principal: Principal, request: ChangeRequest, reason: str) -> None:
        """Because of who they are. Raises PermissionDenied."""
        decision, message, hint = _WHO[reason]
        self._record(principal, request, decision, {"reason": reason})
        known = {"name": principal.name, "change": request.id, "author": request.author}
        raise PermissionDenied(message.format(**known), hint=hint.format(**known))

    def _record(self, principal: Principal, request: ChangeRequest, decision: str, details: dict[str, Json]) -> None:
        fact = AuditFact(principal.actor, Action.CHANGE_REFUSED, subjects(request), {**details, "decision": decision})
        with self._storage.write() as unit:
            unit.audit.append(fact)


def subjects(request: ChangeRequest) -> dict[str, str]:
    return {"environment": request.environment, "model": request.model, "change": str(request.id)}


def blocked(request: ChangeRequest, found: tuple[Blocker, ...], *, glass: bool = False) -> ChangeBlocked:
    """`glass` says whether the policy lets somebody break it."""
    codes = {blocker.code for blocker in found}
    frozen = glass and "freeze" in codes and codes <= LIFTED_BY_GLASS
    hint = _FROZEN if frozen else _NEXT.get(found[0].code, "tritonctl change show {change}")
    return ChangeBlocked(
        f"change {request.id} may not be applied: " + "; ".join(b.message for b in found),
        hint=hint.format(change=request.id),
        details={"blockers": [{"code": b.code, "message": b.message} for b in found]},
    )


def in_force(unit: UnitOfWork, request: ChangeRequest) -> bool:
    """Whether what the change brought is what is served now, as far as is known: to apply it again asks for nothing."""
    deployment = unit.environments.deployment(request.environment, request.model)
    if request.state is not ChangeState.APPLIED or deployment is None:
        return False
    return deployment.active_change is None and not deployment.drift and _revision(unit, request) == deployment.revision


def over(unit: UnitOfWork, request: ChangeRequest) -> Blocker:
    """Why a change that is no longer open is not applied (again), and what to do instead."""
    model, where = request.model, f"{request.model} --env {request.environment}"
    if request.state in ACTIVE:
        return Blocker("state", f"it is {request.state.value}: tritonctl change watch {request.id}")
    ended = f" since {format_instant(request.finished_at)}" if request.finished_at else ""
    if request.state is not ChangeState.APPLIED:
        return Blocker("state", f"it is {request.state.value}{ended}: propose it again")
    deployment = unit.environments.deployment(request.environment, model)
    mine = _revision(unit, request)
    if deployment is not None and deployment.revision == mine:
        mend = f"tritonctl change propose {where} --reconcile --reason …" if deployment.drift else "wait for it"
        why = "drift was observed" if deployment.drift else f"change {deployment.active_change} is being applied"
        return Blocker("state", f"it is applied{ended} as revision {mine}, but {why}: {mend}")
    now = "nowhere" if deployment is None else f"at revision {deployment.revision}"
    return Blocker(
        "state",
        f"it was applied as revision {mine}, and {model!r} is {now} by now: "
        f"tritonctl rollback {where} --to {mine} --reason … goes back to it",
    )


def _revision(unit: UnitOfWork, request: ChangeRequest) -> int | None:
    """The number of the revision that the change made."""
    revisions = unit.environments.revisions(request.environment, request.model)
    return next((revision.number for revision in revisions if revision.change == request.id), None)
