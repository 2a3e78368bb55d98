# Use cases of a change request: propose, replan, vote, apply, roll back, resume, close a review.
from __future__ import annotations

from datetime import timedelta

from controlplane.domain.access import SYSTEM, Permission, Principal, PrincipalKind
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.blockers import Blocker, Situation, blockers, judged, needed
from controlplane.domain.canonical import Json
from controlplane.domain.changes import (
    Approval,
    ChangeRequest,
    ChangeState,
    Plan,
    ReviewState,
)
from controlplane.domain.ensembles import members
from controlplane.domain.environments import Direction
from controlplane.errors import Conflict, InvalidInput, PreconditionFailed, TransitionIllegal
from controlplane.services.access import AccessService
from controlplane.services.change_refusals import Refusals, blocked, in_force, over, subjects
from controlplane.services.change_requests import ask
from controlplane.services.change_views import ChangeView, asides, asked, situation, started, view
from controlplane.services.deployments import ACCEPT, RESTART
from controlplane.services.evidence import evidence_gate
from controlplane.services.planning import Planner, Proposal
from controlplane.services.ports import Clock
from controlplane.storage.neighbours import neighbours
from controlplane.storage.unit_of_work import Storage, UnitOfWork

DECISIONS = ("retry", "accept", "undo", "restart")


class ChangeService:
    def __init__(self, storage: Storage, access: AccessService, planner: Planner, clock: Clock) -> None:
        self._storage = storage
        self._access = access
        self._planner = planner
        self._clock = clock
        self._refusals = Refusals(storage)

    # look

    def show(self, principal: Principal, change: int) -> ChangeView:
        self._access.require(principal, Permission.CHANGE_READ)
        with self._storage.read() as unit:
            return self._view(unit, unit.changes.get(change))

    def list(
        self,
        principal: Principal,
        *,
        environment: str | None = None,
        model: str | None = None,
        state: ChangeState | None = None,
        review: ReviewState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[ChangeRequest, ...]:
        """The newest first; `before` is the id at which the page before ended."""
        self._access.require(principal, Permission.CHANGE_READ)
        with self._storage.read() as unit:
            return unit.changes.list(
                environment=environment, model=model, state=state, review=review, before=before, limit=limit
            )

    # ask

    def propose(self, principal: Principal, proposal: Proposal) -> ChangeView:
        self._access.require(principal, Permission.CHANGE_PROPOSE)
        if proposal.reconcile:
            self._access.require(principal, Permission.DEPLOYMENT_RECONCILE)
        draft = self._planner.draft(proposal)
        with self._storage.write() as unit:
            return asked(unit, *ask(unit, principal, proposal, draft, self._clock.now()))

    def replan(self, principal: Principal, change: int, edits: Proposal | None = None) -> ChangeView:
        """Plan again on the current revision and under the current policy; votes on another plan than the new one stop
        counting.

        Without `edits` the wish stays: the same desired content. Raises InvalidInput for edits of another model,
        environment or kind.
        """
        self._access.require(principal, Permission.CHANGE_PROPOSE)
        with self._storage.read() as unit:
            request = self._open(unit, change)
            plan = unit.changes.plan(request)
        if edits is not None and not edits.is_of(request):
            raise InvalidInput(
                f"change {change} is a {request.kind.value} of {request.model!r} in {request.environment!r}: "
                "an edit cannot make it another",
                hint="propose a new change",
            )
        draft = self._planner.again(request, plan, edits)
        with self._storage.write() as unit:
            request = self._still_open(unit, change)
            if request.plan_number != plan.number:
                raise Conflict(f"change {change} was planned anew meanwhile", hint=f"tritonctl change show {change}")
            policy = unit.environments.get(request.environment).policy
            now = self._clock.now()
            number = request.plan_number + 1
            unit.changes.edit(
                change,
                plan_number=number,
                last_editor=principal.name if edits is not None else request.last_editor,
                reason=draft.reason,
                hypothesis=request.hypothesis if edits is None else edits.hypothesis,
                expected_effect=request.expected_effect if edits is None else edits.expected_effect,
                expires_at=now + timedelta(hours=policy.expires_after_hours),
            )
            around = neighbours(unit.session, request.environment, request.model)
            notes = asides(unit, draft, policy, request, around=around, now=now)
            gates = evidence_gate(unit, draft, request.environment, request.model, now)
            new = draft.plan(change, number, principal.name, now, asides=notes, gates=gates)
            unit.changes.add_plan(new)
            unit.catalog.keep_beside(request.model, new.desired.beside)
            details: dict[str, Json] = {"plan": new.digest, "number": number}
            if new.evidence is not None:
                details["evidence"] = new.evidence.recorded()
            self._audit(unit, principal, Action.CHANGE_REPLANNED, request, details)
            return self._view(unit, unit.changes.get(change))

    def rollback(
        self, principal: Principal, environment: str, model: str, *, to: int | None, reason: str
    ) -> ChangeView:
        """Propose to go back to an accepted revision (by default the last one that is not what was rolled back from),
        and apply it at once where the policy needs no approval. Pre-empts an active change of the same model."""
        self._access.require(principal, Permission.CHANGE_ROLLBACK)
        proposal = Proposal(environment, model, reason, rollback=True, revision=to)
        draft = self._planner.draft(proposal)
        with self._storage.write() as unit:
            unit.environments.lock(environment, model)
            request, plan, at = ask(unit, principal, proposal, draft, self._clock.now())
            if needed(request, plan, at) > 0:
                return asked(unit, request, plan, at)
            # In one transaction where it can be: an ensemble's members are locked in an order of their own.
            if not members(plan.desired.config) and not blockers(request, plan, (), at):
                return started(unit, self._start(unit, principal, request, plan, at), plan, (), at)
        return self._apply(principal, request.id)

    # decide

    def approve(self, principal: Principal, change: int, plan_digest: str, comment: str) -> ChangeView:
        """Raises PreconditionFailed when `plan_digest` is not the current plan's: nobody approves what they did not see."""
        self._access.require(principal, Permission.CHANGE_APPROVE)
        with self._refusals.recorded(principal, change, "approve"):
            with self._storage.read() as unit:
                request = self._open(unit, change)
                policy = unit.environments.get(request.environment).policy
            if principal.name in (request.author, request.last_editor) and not policy.self_approval:
                self._refusals.refuse(principal, request, "self_approval")
            with self._storage.write() as unit:
                request = self._voted(unit, change, plan_digest)
                unit.changes.approve(Approval(change, plan_digest, principal.name, comment, self._clock.now()))
                self._audit(unit, principal, Action.CHANGE_APPROVED, request, {"plan": plan_digest, "comment": comment})
                return self._view(unit, request)

    def reject(self, principal: Principal, change: int, plan_digest: str, comment: str) -> ChangeView:
        self._access.require(principal, Permission.CHANGE_APPROVE)
        with self._refusals.recorded(principal, change, "reject"), self._storage.write() as unit:
            self._voted(unit, change, plan_digest)
            request = self._close(unit, change, ChangeState.REJECTED, comment)
            self._audit(unit, principal, Action.CHANGE_REJECTED, request, {"plan": plan_digest, "comment": comment})
            return self._view(unit, request)

    def withdraw(self, principal: Principal, change: int) -> ChangeView:
        """By whoever wrote or edited it, or somebody who manages environments."""
        self._access.require(principal, Permission.CHANGE_WITHDRAW)
        with self._storage.read() as unit:
            request = unit.changes.get(change)
        if principal.name not in (request.author, request.last_editor) and not principal.may(
            Permission.ENVIRONMENT_MANAGE
        ):
            self._refusals.refuse(principal, request, "not_author")
        with self._refusals.recorded(principal, change, "withdraw"), self._storage.write() as unit:
            self._locked(unit, change)
            request = self._close(unit, change, ChangeState.WITHDRAWN, f"withdrawn by {principal.name}")
            self._audit(unit, principal, Action.CHANGE_WITHDRAWN, request, {})
            return self._view(unit, request)

    def apply(self, principal: Principal, change: int, *, break_glass: str | None = None) -> ChangeView:
        """One transaction: nothing blocks it, and the deployment is free and at the base. The worker does the rest.

        `break_glass` is a justification: it lifts what policy asks, not what the base asks, and opens a review. A change
        that was applied and is what is served is left as it is: asking twice does what asking once does.
        """
        self._access.require(principal, Permission.CHANGE_APPLY)
        if break_glass is not None:
            self._access.require(principal, Permission.CHANGE_BREAK_GLASS)
            if len(break_glass.strip()) < 10:
                raise InvalidInput("the justification is too short to be one", hint="say why it cannot wait")
        return self._apply(principal, change, break_glass)

    def _apply(self, principal: Principal, change: int, break_glass: str | None = None) -> ChangeView:
        with self._refusals.recorded(principal, change, "apply"), self._storage.write() as unit:
            request = self._locked_with_members(unit, change)
            if in_force(unit, request):
                return self._view(unit, request)
            if request.state is not ChangeState.OPEN:
                raise blocked(request, (over(unit, request),))
            if break_glass is not None:
                request = self._break_glass(unit, principal, request, break_glass)
            plan, approvals = unit.changes.plan(request), unit.changes.approvals(change)
            at = situation(unit, request, plan, self._clock.now())
            found = blockers(request, plan, approvals, at)
            if found:
                raise blocked(request, found, glass=at.live.break_glass)
            return started(unit, self._start(unit, principal, request, plan, at), plan, approvals, at)

    def _start(
        self, unit: UnitOfWork, principal: Principal, request: ChangeRequest, plan: Plan, at: Situation
    ) -> ChangeRequest:
        replacing = at.deployment.active_change
        if replacing is not None:
            old = unit.changes.move(
                replacing,
                ChangeState.UNDONE,
                message=f"pre-empted by rollback {request.id}",
                finished_at=self._clock.now(),
            )
            self._audit(unit, principal, Action.CHANGE_PREEMPTED, old, {"by": str(request.id)})
        free = unit.environments.activate(
            request.environment, request.model, change=request.id, base=plan.base_revision, replacing=replacing
        )
        if not free:
            raise blocked(request, (Blocker("active", "another change of the same model was first"),))
        details: dict[str, Json] = {"plan": plan.digest}
        if (gate := judged(request, plan, at)) is not None:
            details["evidence"] = {"outcome": gate.outcome, "reason": gate.message}
        self._audit(unit, principal, Action.CHANGE_STARTED, request, details)
        return unit.changes.move(request.id, ChangeState.APPLYING)

    def _break_glass(
        self, unit: UnitOfWork, principal: Principal, request: ChangeRequest, justification: str
    ) -> ChangeRequest:
        if not unit.environments.get(request.environment).policy.break_glass:
            raise blocked(request, (Blocker("break_glass", "the policy of this environment has no break-glass"),))
        unit.changes.edit(request.id, break_glass=justification, review=ReviewState.OPEN.value)
        self._audit(unit, principal, Action.GLASS_BROKEN, request, {"justification": justification})
        return unit.changes.get(request.id)

    def close_review(self, principal: Principal, change: int, comment: str) -> ChangeView:
        """The review that break-glass opened, by somebody who neither asked nor broke."""
        self._access.require(principal, Permission.REVIEW_CLOSE)
        with self._storage.read() as unit:
            request = unit.changes.get(change)
            broken = unit.audit.entries(subject=("change", str(change)), action=Action.GLASS_BROKEN.value)
        own = principal.name in (request.author, request.last_editor, *(entry.actor.name for entry in broken))
        if own and request.review is ReviewState.OPEN:
            self._refusals.refuse(principal, request, "own_review")
        with self._refusals.recorded(principal, change, "close_review"), self._storage.write() as unit:
            if self._locked(unit, change).review is not ReviewState.OPEN:
                raise Conflict(f"change {change} has no open review", hint=f"tritonctl change show {change}")
            unit.changes.edit(change, review=ReviewState.CLOSED.value)
            self._audit(unit, principal, Action.REVIEW_CLOSED, request, {"comment": comment})
            return self._view(unit, unit.changes.get(change))

    def resume(self, principal: Principal, change: int, decision: str) -> ChangeView:
        """A human decides on a paused or stuck change.

        `retry` goes on in its direction, `accept` takes what verification could not decide, `undo` turns back, and
        `restart` turns back and lets the worker kill the server that it launched.
        """
        self._access.require(principal, Permission.CHANGE_APPLY)
        if decision not in DECISIONS:
            raise InvalidInput(f"{decision!r} is no decision", hint=f"one of {', '.join(DECISIONS)}")
        if decision in ("accept", "restart") and principal.kind is not PrincipalKind.PERSON:
            with self._storage.read() as unit:
                request = unit.changes.get(change)
            self._refusals.refuse(principal, request, "not_a_person")
        with self._refusals.recorded(principal, change, "resume"), self._storage.write() as unit:
            request = self._locked(unit, change)
            if request.state not in (ChangeState.PAUSED, ChangeState.STUCK):
                raise TransitionIllegal(
                    f"change {change} is {request.state.value}: there is nothing to resume",
                    hint=f"tritonctl change show {change}",
                )
            deployment = unit.environments.deployment(request.environment, request.model)
            assert deployment is not None
            back = decision in ("undo", "restart") or deployment.direction is Direction.BACK
            words = {"accept": (ACCEPT,), "restart": (RESTART,)}.get(decision, ())
            if decision == "restart" and not any(s.home for s in unit.environments.servers(request.environment)):
                raise InvalidInput(
                    "the server was not launched by us, so we do not kill it",
                    hint=f"restart it yourself, then: tritonctl change resume {change} --decision retry",
                )
            unit.environments.guard(
                request.environment,
                request.model,
                deployment.lease_token,
                direction=(Direction.BACK if back else Direction.FORWARD).value,
                watched_at=None,
            )
            unit.changes.edit(change, acknowledged=sorted({*request.acknowledged, *words}))
            moved = unit.changes.move(change, ChangeState.UNDOING if back else ChangeState.APPLYING)
            self._audit(unit, principal, Action.CHANGE_RESUMED, request, {"decision": decision})
            return self._view(unit, moved)

    # time

    def expire(self) -> int:
        """Close every open change whose time is over; called by the worker. How many there were."""
        with self._storage.read() as unit:
            due = unit.changes.expired(self._clock.now())
        for request in due:
            with self._storage.write() as unit:
                now = self._locked(unit, request.id)
                if now.state is ChangeState.OPEN and now.expires_at <= self._clock.now():
                    closed = self._close(unit, request.id, ChangeState.EXPIRED, "nobody applied it in time")
                    unit.audit.append(
                        AuditFact(
                            SYSTEM, Action.CHANGE_EXPIRED, subjects(closed), {"expires_at": str(closed.expires_at)}
                        )
                    )
        return len(due)

    # within a transaction

    def _view(self, unit: UnitOfWork, request: ChangeRequest) -> ChangeView:
        return view(unit, request, self._clock.now())

    def _open(self, unit: UnitOfWork, change: int) -> ChangeRequest:
        request = unit.changes.get(change)
        if request.state is not ChangeState.OPEN:
            raise TransitionIllegal(
                f"change {change} is {request.state.value}, not open", hint=f"tritonctl change show {change}"
            )
        return request

    def _locked(self, unit: UnitOfWork, change: int) -> ChangeRequest:
        """The request as nobody else can change it any more: what is decided on it is decided on this state and plan."""
        request = unit.changes.get(change)
        unit.environments.lock(request.environment, request.model)
        return unit.changes.lock(change)

    def _locked_with_members(self, unit: UnitOfWork, change: int) -> ChangeRequest:
        """An ensemble and its members do not start to change at the same time. In one order for all, so that nobody waits
        in a circle: members that a replan named meanwhile come too late for that."""
        request = unit.changes.get(change)
        named = members(unit.changes.plan(request).desired.config)
        for model in sorted({request.model, *named} if named else ()):
            unit.environments.lock(request.environment, model)
        request = self._locked(unit, change)
        if members(unit.changes.plan(request).desired.config).keys() - named.keys():
            raise Conflict(f"change {change} was planned anew meanwhile", hint=f"tritonctl change show {change}")
        return request

    def _still_open(self, unit: UnitOfWork, change: int) -> ChangeRequest:
        self._locked(unit, change)
        return self._open(unit, change)

    def _voted(self, unit: UnitOfWork, change: int, plan_digest: str) -> ChangeRequest:
        request = self._still_open(unit, change)
        current = unit.changes.plan(request).digest
        if plan_digest != current:
            seen = plan_digest[:80]  # whoever votes writes it, and it is recorded
            raise PreconditionFailed(
                f"change {change} has another plan now: {current}, not {seen}",
                hint=f"look at it first: tritonctl change show {change}",
                details={"plan": current, "voted_on": seen},
            )
        return request

    def _close(self, unit: UnitOfWork, change: int, state: ChangeState, message: str) -> ChangeRequest:
        return unit.changes.move(change, state, message=message, finished_at=self._clock.now())

    def _audit(
        self, unit: UnitOfWork, principal: Principal, action: Action, request: ChangeRequest, details: dict[str, Json]
    ) -> None:
        unit.audit.append(AuditFact(principal.actor, action, subjects(request), details))
