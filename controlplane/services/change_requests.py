# Writing a new change request: the request, its first plan and what the log says of them, in the caller's transaction.
from __future__ import annotations

from datetime import datetime, timedelta

from controlplane.domain.access import Principal
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.blockers import Situation
from controlplane.domain.canonical import Json
from controlplane.domain.changes import ChangeRequest, ChangeState, Plan
from controlplane.services.change_refusals import subjects
from controlplane.services.change_views import asides, situation
from controlplane.services.evidence import evidence_gate
from controlplane.services.planning import Draft, Proposal
from controlplane.storage.neighbours import neighbours
from controlplane.storage.unit_of_work import UnitOfWork


def ask(
    unit: UnitOfWork, principal: Principal, proposal: Proposal, draft: Draft, now: datetime
) -> tuple[ChangeRequest, Plan, Situation]:
    """The open request, its plan, and what decides whether it may be applied. Raises NotFound when the environment has no
    server any more."""
    environment, model = proposal.environment, proposal.model
    unit.environments.ensure_deployment(environment, model)
    policy = unit.environments.get(environment).policy
    request = unit.changes.add(
        ChangeRequest(
            id=0,
            environment=environment,
            model=model,
            kind=draft.kind,
            state=ChangeState.OPEN,
            reason=proposal.reason,
            hypothesis=proposal.hypothesis,
            expected_effect=proposal.expected_effect,
            author=principal.name,
            last_editor=principal.name,
            created_at=now,
            expires_at=now + timedelta(hours=policy.expires_after_hours),
            plan_number=1,
        )
    )
    around = neighbours(unit.session, environment, model)
    plan = draft.plan(
        request.id,
        1,
        principal.name,
        now,
        asides=asides(unit, draft, policy, request, around=around, now=now),
        gates=evidence_gate(unit, draft, environment, model, now),
    )
    unit.changes.add_plan(plan)
    unit.catalog.keep_beside(model, plan.desired.beside)
    details: dict[str, Json] = {
        "plan": plan.digest,
        "kind": draft.kind.value,
        "base": plan.base_digest,
        "content": plan.desired.digest,
        "reload_class": plan.reload_class,
        "reason": proposal.reason,
    }
    if plan.evidence is not None:
        details["evidence"] = plan.evidence.recorded()
    unit.audit.append(AuditFact(principal.actor, Action.CHANGE_PROPOSED, subjects(request), details))
    if proposal.adopted_from:
        described = {"source": proposal.adopted_from, "content": plan.desired.digest}
        unit.audit.append(AuditFact(principal.actor, Action.MODEL_ADOPTED, subjects(request), described))
    return request, plan, situation(unit, request, plan, now, around)
