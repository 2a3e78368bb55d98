# Recording what differs from the accepted revision, for whoever saw it first.
from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json
from controlplane.domain.environments import UNOBSERVED, Deployment
from controlplane.storage.unit_of_work import UnitOfWork


def unobserved(deployment: Deployment, kind: str) -> list[str]:
    """What is known of drift when nobody could look: what was known before, and the kind of failure.

    The kind alone, without the error's changing text, so that one outage is one finding.
    """
    return [*_known(deployment.drift), f"{UNOBSERVED} ({kind})"]


def audit_drift(unit: UnitOfWork, deployment: Deployment, drift: Sequence[str]) -> None:
    """Say in the log that what is known of drift changed, if it did. An outage is said once, whatever its errors."""
    old = deployment.drift
    if list(old) == list(drift) or (_away(old) and _away(drift) and _known(old) == _known(drift)):
        return
    found: list[Json] = list(drift)
    subjects = {"environment": deployment.environment, "model": deployment.model}
    action = Action.DEPLOYMENT_DRIFTED if drift else Action.DEPLOYMENT_RECONCILED
    unit.audit.append(AuditFact(SYSTEM, action, subjects, {"drift": found}))


def _known(drift: Sequence[str]) -> list[str]:
    return [text for text in drift if not text.startswith(UNOBSERVED)]


def _away(drift: Sequence[str]) -> bool:
    return any(text.startswith(UNOBSERVED) for text in drift)
