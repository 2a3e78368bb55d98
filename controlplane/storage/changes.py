# Change requests, their plans, votes and the journal of effects.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, Text, and_, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.domain.canonical import JsonObject
from controlplane.domain.changes import (
    Approval,
    ChangeKind,
    ChangeRequest,
    ChangeState,
    GateResult,
    JournalEntry,
    Plan,
    ReviewState,
    check_transition,
)
from controlplane.domain.converge import Effect
from controlplane.domain.environments import Direction, RevisionContent
from controlplane.domain.evidence import Evidence
from controlplane.errors import Conflict, ControlPlaneError, LoadFailed, LoadUnknown, NotFound
from controlplane.storage.environments import RevisionRow
from controlplane.storage.types import Base, CanonicalJson, UtcDateTime


class ChangeRow(Base):
    __tablename__ = "changes"
    __table_args__ = (Index(None, "environment", "model", "state"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    environment: Mapped[str] = mapped_column(String(100))
    model: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    hypothesis: Mapped[str] = mapped_column(Text)
    expected_effect: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(String(100))
    last_editor: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    plan_number: Mapped[int]
    break_glass: Mapped[str | None] = mapped_column(Text)
    review: Mapped[str] = mapped_column(String(10))
    acknowledged: Mapped[list[str]] = mapped_column(CanonicalJson)
    message: Mapped[str] = mapped_column(Text)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    proofs: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)
    found: Mapped[JsonObject | None] = mapped_column(CanonicalJson)


class PlanRow(Base):
    __tablename__ = "plans"
    __table_args__ = (ForeignKeyConstraint(["change_id"], ["changes.id"]),)
    change_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(71))
    kind: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    base_revision: Mapped[int]
    base_digest: Mapped[str] = mapped_column(String(71))
    desired: Mapped[JsonObject] = mapped_column(CanonicalJson)
    reload_class: Mapped[str] = mapped_column(String(20))
    clauses: Mapped[JsonObject] = mapped_column(CanonicalJson)
    diff: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)
    gates: Mapped[list[JsonObject]] = mapped_column(CanonicalJson)
    notes: Mapped[list[str]] = mapped_column(CanonicalJson)
    made_by: Mapped[str] = mapped_column(String(100))
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)
    acknowledged: Mapped[list[str]] = mapped_column(CanonicalJson, server_default="[]")
    evidence: Mapped[JsonObject | None] = mapped_column(CanonicalJson)


class ApprovalRow(Base):
    """No foreign key to principals: what somebody decided outlives them."""

    __tablename__ = "approvals"
    __table_args__ = (ForeignKeyConstraint(["change_id"], ["changes.id"]),)
    change_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    plan_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    principal: Mapped[str] = mapped_column(String(100), primary_key=True)
    comment: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class JournalRow(Base):
    __tablename__ = "journal"
    __table_args__ = (Index(None, "change_id"), Index(None, "server", "model"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    environment: Mapped[str] = mapped_column(String(100))
    model: Mapped[str] = mapped_column(String(100))
    change_id: Mapped[int | None]
    server: Mapped[str] = mapped_column(String(100))
    direction: Mapped[str] = mapped_column(String(10))
    effect: Mapped[str] = mapped_column(String(20))
    version: Mapped[int | None]
    because: Mapped[str] = mapped_column(Text)
    lease_token: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(50))
    error: Mapped[str | None] = mapped_column(Text)


class ChangeStore:
    """Works inside the caller's transaction and never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, request: ChangeRequest) -> ChangeRequest:
        """Insert; the returned request has its id."""
        row = ChangeRow(
            environment=request.environment,
            model=request.model,
            kind=request.kind.value,
            state=request.state.value,
            reason=request.reason,
            hypothesis=request.hypothesis,
            expected_effect=request.expected_effect,
            author=request.author,
            last_editor=request.last_editor,
            created_at=request.created_at,
            expires_at=request.expires_at,
            plan_number=request.plan_number,
            break_glass=request.break_glass,
            review=request.review.value,
            acknowledged=list(request.acknowledged),
            message=request.message,
            finished_at=request.finished_at,
            proofs=list(request.proofs),
        )
        self._session.add(row)
        self._session.flush()
        return replace(request, id=row.id)

    def get(self, change: int, *, lock: bool = False) -> ChangeRequest:
        row = self._session.get(ChangeRow, change, populate_existing=True, with_for_update=lock or None)
        if row is None:
            raise NotFound(f"there is no change {change}", hint="tritonctl change list")
        return _request(row)

    def lock(self, change: int) -> ChangeRequest:
        """`get`, and no other transaction changes the request before this one ends; the deployment is locked first."""
        return self.get(change, lock=True)

    def list(
        self,
        *,
        environment: str | None = None,
        model: str | None = None,
        state: ChangeState | None = None,
        review: ReviewState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[ChangeRequest, ...]:
        """The newest first; `before` continues a page."""
        wanted = ((ChangeRow.environment, environment), (ChangeRow.model, model), (ChangeRow.state, state))
        query = select(ChangeRow).order_by(ChangeRow.id.desc()).limit(limit)
        for column, value in (*wanted, (ChangeRow.review, review)):
            if value is not None:
                query = query.where(column == str(value))
        if before is not None:
            query = query.where(ChangeRow.id < before)
        return tuple(_request(row) for row in self._session.scalars(query))

    def expired(self, now: datetime) -> tuple[ChangeRequest, ...]:
        rows = self._session.scalars(
            select(ChangeRow).where(ChangeRow.state == ChangeState.OPEN.value, ChangeRow.expires_at <= now)
        )
        return tuple(_request(row) for row in rows)

    def states(self, changes: Sequence[int]) -> dict[int, ChangeState]:
        rows = self._session.execute(select(ChangeRow.id, ChangeRow.state).where(ChangeRow.id.in_(changes)))
        return {change: ChangeState(state) for change, state in rows}

    def move(self, change: int, new: ChangeState, **values: object) -> ChangeRequest:
        """The only way to change a state. Raises TransitionIllegal, or Conflict when another transaction moved it."""
        request = self.get(change)
        check_transition(change, request.state, new)
        moved = self._session.scalars(
            update(ChangeRow)
            .where(ChangeRow.id == change, ChangeRow.state == request.state.value)
            .values(state=new.value, **values)
            .returning(ChangeRow),
            execution_options={"populate_existing": True},
        ).one_or_none()
        if moved is None:
            raise Conflict(f"change {change} was moved by someone else", hint=f"tritonctl change show {change}")
        return _request(moved)

    def edit(self, change: int, **values: object) -> None:
        """Change columns other than the state."""
        self._session.execute(update(ChangeRow).where(ChangeRow.id == change).values(**values))

    def add_plan(self, plan: Plan) -> None:
        self._session.add(
            PlanRow(
                change_id=plan.change,
                number=plan.number,
                digest=plan.digest,
                kind=plan.kind.value,
                reason=plan.reason,
                base_revision=plan.base_revision,
                base_digest=plan.base_digest,
                desired=plan.desired.to_json(),
                reload_class=plan.reload_class,
                clauses=plan.clauses,
                diff=list(plan.diff),
                gates=[gate.to_json() for gate in plan.gates],
                notes=list(plan.notes),
                made_by=plan.made_by,
                made_at=plan.made_at,
                acknowledged=list(plan.acknowledged),
                evidence=None if plan.evidence is None else plan.evidence.to_json(),
            )
        )
        self._session.flush()

    def plan(self, request: ChangeRequest) -> Plan:
        """The current plan."""
        return _plan(self._session.get_one(PlanRow, (request.id, request.plan_number)))

    def approve(self, approval: Approval) -> None:
        """Once per person and plan; a second time changes nothing."""
        key = (approval.change, approval.plan_digest, approval.principal)
        if self._session.get(ApprovalRow, key) is None:
            self._session.add(
                ApprovalRow(
                    change_id=approval.change,
                    plan_digest=approval.plan_digest,
                    principal=approval.principal,
                    comment=approval.comment,
                    at=approval.at,
                )
            )
            self._session.flush()

    def approvals(self, change: int) -> tuple[Approval, ...]:
        """All of them, those of earlier plans too, in order of time."""
        rows = self._session.scalars(
            select(ApprovalRow).where(ApprovalRow.change_id == change).order_by(ApprovalRow.at, ApprovalRow.principal)
        )
        return tuple(Approval(row.change_id, row.plan_digest, row.principal, row.comment, row.at) for row in rows)

    def rolled_back_digests(self, environment: str, model: str) -> frozenset[str]:
        """Digests of the contents that an applied rollback went back from."""
        rows = self._session.scalars(
            select(PlanRow.base_digest)
            .distinct()
            .join(ChangeRow, (ChangeRow.id == PlanRow.change_id) & (ChangeRow.plan_number == PlanRow.number))
            .join(
                RevisionRow,
                (RevisionRow.environment == ChangeRow.environment)
                & (RevisionRow.model == ChangeRow.model)
                & (RevisionRow.change_id == ChangeRow.id),
            )
            .where(
                ChangeRow.environment == environment,
                ChangeRow.model == model,
                ChangeRow.kind == ChangeKind.ROLLBACK.value,
                # A rollback to what was accepted already only pre-empted a change: nothing accepted was left behind.
                RevisionRow.content_digest != PlanRow.base_digest,
            )
        )
        return frozenset(rows)

    def start(self, entry: JournalEntry) -> int:
        """Journal an effect that is about to happen; returns its id."""
        row = JournalRow(
            environment=entry.environment,
            model=entry.model,
            change_id=entry.change,
            server=entry.server,
            direction=entry.direction.value,
            effect=entry.effect,
            version=entry.version,
            because=entry.because,
            lease_token=entry.lease_token,
            started_at=entry.started_at,
            finished_at=None,
            error_code=None,
            error=None,
        )
        self._session.add(row)
        self._session.flush()
        return row.id

    def finish(self, entry: int, at: datetime, error: ControlPlaneError | None = None) -> None:
        self._session.execute(
            update(JournalRow)
            .where(JournalRow.id == entry)
            .values(finished_at=at, error_code=error and error.code, error=error and error.message),
            execution_options={"synchronize_session": False},
        )

    def unresolved_load(self, server: str, model: str) -> bool:
        """Whether Triton may still be loading this model because of us: the last load that reached it has no known end,
        and the server was not killed since.

        A load that was never sent (no server, no lease, no fence) tells nothing, nor does a kill that failed.
        """
        return self._unresolved(server, model) is not None

    def unfinished_healing(self, server: str, model: str) -> bool:
        """Whether that load was to heal: only changes have others."""
        load = self._unresolved(server, model)
        return load is not None and load.change_id is None

    def _unresolved(self, server: str, model: str) -> JournalRow | None:
        sent = or_(JournalRow.error_code.is_(None), JournalRow.error_code.in_([LoadUnknown.code, LoadFailed.code]))
        killed = and_(JournalRow.finished_at.is_not(None), JournalRow.error_code.is_(None))
        last = self._session.scalars(
            select(JournalRow)
            .where(
                JournalRow.server == server,
                JournalRow.model == model,
                or_(
                    and_(JournalRow.effect == Effect.LOAD.value, sent),
                    and_(JournalRow.effect == Effect.KILL_SERVER.value, killed),
                ),
            )
            .order_by(JournalRow.id.desc())
            .limit(1)
        ).first()
        if last is None or last.effect != Effect.LOAD.value:
            return None
        return last if last.finished_at is None or last.error_code == LoadUnknown.code else None

    def journal(self, change: int) -> Sequence[JournalEntry]:
        rows = self._session.scalars(select(JournalRow).where(JournalRow.change_id == change).order_by(JournalRow.id))
        return tuple(_journal(row) for row in rows)


def _request(row: ChangeRow) -> ChangeRequest:
    return ChangeRequest(
        id=row.id,
        environment=row.environment,
        model=row.model,
        kind=ChangeKind(row.kind),
        state=ChangeState(row.state),
        reason=row.reason,
        hypothesis=row.hypothesis,
        expected_effect=row.expected_effect,
        author=row.author,
        last_editor=row.last_editor,
        created_at=row.created_at,
        expires_at=row.expires_at,
        plan_number=row.plan_number,
        break_glass=row.break_glass,
        review=ReviewState(row.review),
        acknowledged=tuple(row.acknowledged),
        message=row.message,
        finished_at=row.finished_at,
        proofs=tuple(row.proofs),
        found=row.found,
    )


def _plan(row: PlanRow) -> Plan:
    return Plan(
        change=row.change_id,
        number=row.number,
        base_revision=row.base_revision,
        base_digest=row.base_digest,
        desired=RevisionContent.from_json(row.desired),
        reason=row.reason,
        kind=ChangeKind(row.kind),
        reload_class=row.reload_class,
        clauses=row.clauses,
        diff=tuple(row.diff),
        gates=tuple(GateResult(str(g["name"]), str(g["outcome"]), str(g["message"])) for g in row.gates),
        notes=tuple(row.notes),
        made_by=row.made_by,
        made_at=row.made_at,
        acknowledged=tuple(row.acknowledged),
        evidence=None if row.evidence is None else Evidence.from_json(row.evidence),
    )


def _journal(row: JournalRow) -> JournalEntry:
    return JournalEntry(
        environment=row.environment,
        model=row.model,
        change=row.change_id,
        server=row.server,
        direction=Direction(row.direction),
        effect=row.effect,
        version=row.version,
        because=row.because,
        lease_token=row.lease_token,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error_code=row.error_code,
        error=row.error,
    )
