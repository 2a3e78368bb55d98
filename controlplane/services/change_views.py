# A change as people look at it, computed inside one transaction.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.access import PrincipalKind
from controlplane.domain.blockers import Blocker, Situation, Voter, blockers, counted, needed
from controlplane.domain.changes import (
    ACTIVE,
    Approval,
    ChangeKind,
    ChangeRequest,
    ChangeState,
    JournalEntry,
    Plan,
    RollbackTarget,
)
from controlplane.domain.ensembles import Neighbour, conflicts
from controlplane.domain.environments import Direction
from controlplane.domain.evidence_clauses import asked_of
from controlplane.domain.latency_gates import LatencyMeasurement
from controlplane.domain.policies import Policy
from controlplane.domain.times import format_instant
from controlplane.services.deployments import base_content
from controlplane.services.evidence import evidence_now, exempt
from controlplane.services.planning import Draft
from controlplane.storage.lineage import rollback_target
from controlplane.storage.neighbours import neighbours
from controlplane.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class ChangeView:
    """What is asked, what is missing, what was done. `target` is None unless it is a rollback, `direction` unless the
    change is active."""

    request: ChangeRequest
    plan: Plan
    target: RollbackTarget | None
    direction: Direction | None
    approvals: tuple[Approval, ...]
    counted: tuple[str, ...]
    needed: int
    blockers: tuple[Blocker, ...]
    journal: tuple[JournalEntry, ...]
    latency: tuple[LatencyMeasurement, ...]


def view(unit: UnitOfWork, request: ChangeRequest, now: datetime) -> ChangeView:
    plan = unit.changes.plan(request)
    at = situation(unit, request, plan, now)
    active = request.state in ACTIVE and at.deployment.active_change == request.id
    return _view(
        unit,
        request,
        plan,
        unit.changes.approvals(request.id),
        at,
        direction=at.deployment.direction if active else None,
        journal=unit.changes.journal(request.id),
        latency=unit.latency.of_change(request.id),
    )


def started(
    unit: UnitOfWork, request: ChangeRequest, plan: Plan, approvals: tuple[Approval, ...], at: Situation
) -> ChangeView:
    """What `view` says of a change that this transaction let begin, from what it was decided on."""
    return _view(unit, request, plan, approvals, at, direction=Direction.FORWARD, journal=())


def asked(unit: UnitOfWork, request: ChangeRequest, plan: Plan, at: Situation) -> ChangeView:
    """What `view` says of a change that this transaction wrote."""
    return _view(unit, request, plan, (), at, direction=None, journal=())


def _view(
    unit: UnitOfWork,
    request: ChangeRequest,
    plan: Plan,
    approvals: tuple[Approval, ...],
    at: Situation,
    *,
    direction: Direction | None,
    journal: Sequence[JournalEntry],
    latency: tuple[LatencyMeasurement, ...] = (),
) -> ChangeView:
    return ChangeView(
        request=request,
        plan=plan,
        target=rollback_target(unit.session, request, plan),
        direction=direction,
        approvals=approvals,
        counted=counted(request, plan, approvals, at),
        needed=needed(request, plan, at),
        blockers=blockers(request, plan, approvals, at) if request.state is ChangeState.OPEN else (),
        journal=tuple(journal),
        latency=latency,
    )


def situation(
    unit: UnitOfWork,
    request: ChangeRequest,
    plan: Plan,
    now: datetime,
    around: tuple[Neighbour, ...] | None = None,
) -> Situation:
    """Everything outside the request that decides whether it may be applied, as this transaction sees it; `around` are the
    model's neighbours where they were read already."""
    if around is None and request.state is ChangeState.OPEN:
        around = neighbours(unit.session, request.environment, request.model)
    deployment = unit.environments.deployment(request.environment, request.model)
    assert deployment is not None
    bound, live = Policy.from_json(plan.clauses), unit.environments.get(request.environment).policy
    asked = asked_of(request.model, (*live.evidence, *bound.evidence)) is not None
    voters = {
        p.name: Voter(p.name, p.active, p.kind is PrincipalKind.PERSON, frozenset(role.value for role in p.roles))
        for p in unit.access.principals()
    }
    return Situation(
        deployment=deployment,
        base_digest=base_content(unit, deployment).digest,
        bound=bound,
        live=live,
        voters=voters,
        rolled_back=unit.changes.rolled_back_digests(request.environment, request.model),
        now=now,
        neighbours=around or (),
        evidence=evidence_now(unit, request.environment, request.model, plan.evidence, now)
        if asked and request.state is ChangeState.OPEN and request.kind is ChangeKind.CHANGE
        else None,
    )


def asides(
    unit: UnitOfWork,
    draft: Draft,
    policy: Policy,
    request: ChangeRequest,
    *,
    around: tuple[Neighbour, ...],
    now: datetime,
) -> tuple[str, ...]:
    """What whoever proposes should know besides the plan: who else wishes the same, that a freeze does not hold a
    rollback, and what going back means for ensembles. `around` are the model's neighbours."""
    wish = (draft.kind, draft.base_revision, draft.desired.digest)
    found = [*exempt(policy, draft.kind, request.model)]
    for other in unit.changes.list(environment=request.environment, model=request.model, state=ChangeState.OPEN):
        if other.id == request.id:
            continue
        plan = unit.changes.plan(other)
        if (plan.kind, plan.base_revision, plan.desired.digest) == wish:
            found.append(f"change {other.id} by {other.author}, still open, proposes the same: one of them is enough")
    if draft.kind is not ChangeKind.CHANGE:  # a change is blocked by them
        found += [clash.message for clash in conflicts(request.model, draft.desired, around)]
    if draft.kind is ChangeKind.ROLLBACK:
        found += [
            f"freeze window {window.name!r} is on until {format_instant(window.ends_at)}: rollbacks are exempt"
            for window in policy.freeze_windows
            if window.starts_at <= now < window.ends_at
        ]
    return tuple(found)
