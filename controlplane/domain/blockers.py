# Why a change may not be applied now: one pure function for API, command line and UI.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import Approval, ChangeKind, ChangeRequest, ChangeState, GateResult, Plan
from controlplane.domain.ensembles import Clash, Neighbour, conflicts
from controlplane.domain.environments import UNOBSERVED, Deployment
from controlplane.domain.evidence import EvidenceNow, EvidenceOutcome, judge
from controlplane.domain.evidence_clauses import ACCEPT, EVIDENCE, asked_of
from controlplane.domain.evidence_clauses import tightened as more_evidence
from controlplane.domain.latency_gates import LATER, tightened
from controlplane.domain.policies import Policy, stricter
from controlplane.domain.times import format_instant

ROLLED_BACK = "rolled_back"
"""In a plan's `acknowledged`: the author knows that this content was rolled back before."""

LIFTED_BY_GLASS = frozenset({"approvals", "freeze", "gate", "policy"})
"""Codes of what policy asks: break-glass lifts it."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """`code` is stable; `message` says what would lift it."""

    code: str
    message: str

    def to_json(self) -> JsonObject:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Voter:
    """What counts about a principal when approvals are counted: as they are now, not as they were when they voted."""

    name: str
    active: bool
    person: bool
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything outside the request that decides whether it may be applied."""

    deployment: Deployment
    base_digest: str
    """Digest of the content of the deployment's current revision."""
    bound: Policy
    """The policy that the plan was made under."""
    live: Policy
    voters: Mapping[str, Voter]
    rolled_back: frozenset[str]
    """Digests of contents that were rolled back from."""
    now: datetime
    neighbours: tuple[Neighbour, ...] = ()
    """The other models of the environment; none where nothing is open to be applied."""
    evidence: EvidenceNow | None = None
    """None where no policy asks the model for evidence, and where nothing is open to be applied."""


def blockers(request: ChangeRequest, plan: Plan, approvals: Sequence[Approval], at: Situation) -> tuple[Blocker, ...]:
    """Empty when the change may be applied. Order: what is wrong with the request, its base, its policy, its evidence."""
    if request.state is not ChangeState.OPEN:
        return (Blocker("state", f"the change is {request.state.value}"),)
    found = []
    if at.now >= request.expires_at:
        found.append(Blocker("expired", f"it expired at {format_instant(request.expires_at)}"))
    found += _base(request, plan, at)
    drift = [text for text in at.deployment.drift if not text.startswith(UNOBSERVED)]
    if request.kind is ChangeKind.CHANGE and drift:
        found.append(Blocker("drift", f"drift was observed ({'; '.join(drift)}): reconcile or roll back first"))
    if (
        request.kind is ChangeKind.CHANGE
        and plan.desired.digest in at.rolled_back
        and ROLLED_BACK not in plan.acknowledged
    ):
        found.append(
            Blocker("rolled_back", "this content was rolled back before: propose it with --acknowledge rolled_back")
        )
    if request.break_glass is None:
        found += _policy(request, plan, approvals, at)
    return tuple(found)


def counted(request: ChangeRequest, plan: Plan, approvals: Sequence[Approval], at: Situation) -> tuple[str, ...]:
    """Names of the distinct people whose approval of the current plan counts now, in order of their vote.

    The author, the last editor and service accounts never count, unless both policies allow self-approval.
    """
    roles = frozenset(at.live.approver_roles) & frozenset(at.bound.approver_roles)
    alone = at.live.self_approval and at.bound.self_approval
    names: list[str] = []
    for approval in approvals:
        voter = at.voters.get(approval.principal)
        own = approval.principal in (request.author, request.last_editor)
        if (
            approval.plan_digest == plan.digest
            and voter is not None
            and voter.active
            and voter.person
            and voter.roles & roles
            and (alone or not own)
            and approval.principal not in names
        ):
            names.append(approval.principal)
    return tuple(names)


def needed(request: ChangeRequest, plan: Plan, at: Situation) -> int:
    """Approvals that it takes: the stricter of the bound and the live policy.

    A rollback that ends the service, or that goes to what was rolled back from before, needs those of a change as well. So
    does one that takes from an ensemble what it needs, and at least one: a change that does so is blocked.
    """
    if _broken(request, plan, at):
        return max(1, *(max(policy.approvals, policy.rollback_approvals) for policy in (at.bound, at.live)))
    ends = plan.desired.config is None and plan.desired.digest != plan.base_digest
    of_rollback = max(at.bound.rollback_approvals, at.live.rollback_approvals)
    of_change = max(at.bound.approvals, at.live.approvals)
    if request.kind is not ChangeKind.ROLLBACK:
        return of_change
    return max(of_rollback, of_change) if ends or plan.desired.digest in at.rolled_back else of_rollback


def _base(request: ChangeRequest, plan: Plan, at: Situation) -> list[Blocker]:
    found = []
    if plan.base_revision != at.deployment.revision or plan.base_digest != at.base_digest:
        found.append(
            Blocker(
                "stale",
                f"it was planned on revision {plan.base_revision}, the deployment is at {at.deployment.revision}: "
                f"tritonctl change replan {request.id}",
            )
        )
    active = at.deployment.active_change
    if active is not None and request.kind is not ChangeKind.ROLLBACK:
        found.append(Blocker("active", f"change {active} of the same model is being applied"))
    for clash in conflicts(request.model, plan.desired, at.neighbours):
        if request.kind is ChangeKind.CHANGE:
            found.append(Blocker(clash.code, clash.message))
        elif clash.code == "active":  # only a change of the same model is pre-empted
            found.append(
                Blocker("active", f"{clash.message}: wait for it, or roll that back first: {_back(request, clash)}")
            )
    return found


def _broken(request: ChangeRequest, plan: Plan, at: Situation) -> list[Clash]:
    """The ensembles that a rollback takes down."""
    if request.kind is not ChangeKind.ROLLBACK:
        return []
    return [clash for clash in conflicts(request.model, plan.desired, at.neighbours) if clash.breaks]


def _back(request: ChangeRequest, clash: Clash, to: str = "") -> str:
    return f"tritonctl rollback {clash.other} --env {request.environment}{to} --reason …"


def _policy(request: ChangeRequest, plan: Plan, approvals: Sequence[Approval], at: Situation) -> list[Blocker]:
    found = []
    new_gates = sorted(set(at.live.gates) - {gate.name for gate in plan.gates})
    tighter = (
        *tightened(at.live.latency_gates, at.bound.latency_gates, request.model),
        *more_evidence(at.live.evidence, at.bound.evidence, request.model),
    )
    if (new_gates or tighter) and request.kind is ChangeKind.CHANGE:
        words = "; ".join((*stricter(at.live, at.bound), *tighter))
        found.append(
            Blocker(
                "policy",
                f"the policy is stricter than when it was planned ({words}): tritonctl change replan {request.id}",
            )
        )
    have, want = counted(request, plan, approvals, at), needed(request, plan, at)
    if len(have) < want:
        by = f" (by {', '.join(have)})" if have else ""
        lost = sorted({a.principal for a in approvals if a.plan_digest == plan.digest} - set(have))
        not_counted = f"; not counted: {', '.join(lost)}" if lost else ""
        first = ": roll that back first" if plan.desired.config is not None else ""  # else the clash says what to do
        to = "" if first else " --to 0"
        broken = "".join(f"; {c.message}{first}: {_back(request, c, to)}" for c in _broken(request, plan, at))
        found.append(Blocker("approvals", f"{len(have)} of {want} approvals{by}{not_counted}{broken}"))
    if request.kind is ChangeKind.ROLLBACK:
        return found
    found += [
        Blocker(
            "freeze", f"freeze window {window.name!r} ends at {format_instant(window.ends_at)} (rollbacks are exempt)"
        )
        for window in at.live.freeze_windows
        if window.starts_at <= at.now < window.ends_at
    ]
    found += [
        Blocker("gate", f"gate {gate.name} {gate.outcome}: {gate.message}")
        for gate in plan.gates
        if gate.outcome not in ("passed", LATER) and gate.name != EVIDENCE
    ]
    return [*found, *_evidence(request, plan, at)]


def judged(request: ChangeRequest, plan: Plan, at: Situation) -> GateResult | None:
    """What the evidence is worth by what is there now: objectives, age and rows may have changed since it was planned. None
    where nobody asks for it, or only the live policy does: then the plan is to be made anew."""
    clause = asked_of(request.model, (*at.live.evidence, *at.bound.evidence))
    if clause is None or at.evidence is None or all(gate.name != EVIDENCE for gate in plan.gates):
        return None
    warm = at.bound.keep_warm
    outcome, reason = judge(plan.evidence, plan.desired, clause, at.evidence, warm=warm)
    if outcome is EvidenceOutcome.INCONCLUSIVE and clause.inconclusive == ACCEPT:
        outcome, reason = EvidenceOutcome.PASSED, f"inconclusive, which the policy accepts: {reason}"
    return GateResult(EVIDENCE, outcome.value, reason)


def _evidence(request: ChangeRequest, plan: Plan, at: Situation) -> list[Blocker]:
    gate = judged(request, plan, at)
    if gate is None or gate.outcome == EvidenceOutcome.PASSED.value:
        return []
    return [Blocker("gate", f"gate {EVIDENCE} {gate.outcome}: {gate.message}")]
