# How revisions and changes belong together: which change made a revision, and where a rollback goes.
from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.domain.changes import ChangeKind, ChangeRequest, Plan, RollbackTarget
from controlplane.storage.changes import ChangeRow
from controlplane.storage.environments import RevisionRow


def origins(session: Session, environment: str, model: str) -> dict[int, tuple[ChangeKind, str]]:
    """Kind and reason of the change that made each revision, by the revision's number, in one statement however many
    there are."""
    rows = session.execute(
        select(RevisionRow.number, ChangeRow.kind, ChangeRow.reason)
        .join(ChangeRow, ChangeRow.id == RevisionRow.change_id)
        .where(RevisionRow.environment == environment, RevisionRow.model == model)
    )
    return {number: (ChangeKind(kind), reason) for number, kind, reason in rows}


def rollback_target(session: Session, request: ChangeRequest, plan: Plan) -> RollbackTarget | None:
    """A plan goes back to a content: the newest revision before it that has this content. None for other changes."""
    if plan.kind is not ChangeKind.ROLLBACK:
        return None
    if plan.desired.config is None:
        return RollbackTarget(0, None)
    row = session.execute(
        select(RevisionRow.number, RevisionRow.accepted_at)
        .where(
            RevisionRow.environment == request.environment,
            RevisionRow.model == request.model,
            RevisionRow.number <= plan.base_revision,
            RevisionRow.content_digest == plan.desired.digest,
        )
        .order_by(RevisionRow.number.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else RollbackTarget(*row)
