# What the other models of an environment serve and are to serve, in one statement however many there are.
from __future__ import annotations

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from controlplane.domain.canonical import JsonObject
from controlplane.domain.ensembles import Neighbour
from controlplane.domain.environments import NOTHING, RevisionContent
from controlplane.storage.changes import ChangeRow, PlanRow
from controlplane.storage.environments import DeploymentRow, RevisionRow


def neighbours(session: Session, environment: str, model: str) -> tuple[Neighbour, ...]:
    """All deployments of the environment but that of `model`, by name."""
    rows = session.execute(
        select(DeploymentRow.model, DeploymentRow.active_change, RevisionRow.content, PlanRow.desired)
        .outerjoin(
            RevisionRow,
            and_(
                RevisionRow.environment == DeploymentRow.environment,
                RevisionRow.model == DeploymentRow.model,
                RevisionRow.number == DeploymentRow.revision,
            ),
        )
        .outerjoin(ChangeRow, ChangeRow.id == DeploymentRow.active_change)
        .outerjoin(PlanRow, and_(PlanRow.change_id == ChangeRow.id, PlanRow.number == ChangeRow.plan_number))
        .where(DeploymentRow.environment == environment, DeploymentRow.model != model)
        .order_by(DeploymentRow.model)
    )
    return tuple(
        Neighbour(name, _content(content) or NOTHING, active, _content(desired))
        for name, active, content, desired in rows
    )


def _content(tree: JsonObject | None) -> RevisionContent | None:
    """Of a row that an outer join may not have found."""
    return None if tree is None else RevisionContent.from_json(tree)
