# Which revision a rollback goes back to.
from __future__ import annotations

from controlplane.domain.environments import NOTHING, Deployment, RevisionContent
from controlplane.errors import Conflict, NotFound
from controlplane.storage.unit_of_work import UnitOfWork


def rollback_target(
    unit: UnitOfWork, deployment: Deployment, content: RevisionContent, number: int | None
) -> RevisionContent:
    """The content of the revision to go back to."""
    where = f"{deployment.model!r} in {deployment.environment!r}"
    listed = f"tritonctl revision list {deployment.model} --env {deployment.environment}"
    if deployment.revision == 0 and deployment.active_change is None:
        raise Conflict(
            f"{where} was never deployed: there is nothing to roll back",
            hint=how_to_deploy(deployment.environment, deployment.model),
        )
    if number == 0:
        return NOTHING
    if number is not None:
        found = unit.environments.revision(deployment.environment, deployment.model, number).content
        if found.digest == content.digest and deployment.active_change is None and not deployment.drift:
            raise Conflict(
                f"{where} serves the content of revision {number} already (it is at revision {deployment.revision})",
                hint=f"choose another: {listed}",
            )
        return found
    if deployment.active_change is not None:
        return content
    bad = unit.changes.rolled_back_digests(deployment.environment, deployment.model)
    for revision in unit.environments.revisions(deployment.environment, deployment.model):
        if revision.number < deployment.revision and revision.content.digest not in {content.digest, *bad}:
            return revision.content
    if deployment.revision == 1:
        raise NotFound(
            f"revision 1 of {where} is its first: there is no earlier one to go back to",
            hint=f"to serve nothing of it: tritonctl rollback {deployment.model} --env {deployment.environment} --to 0 "
            "--reason …",
        )
    raise NotFound(
        f"{where} has no earlier revision that was not rolled back", hint=f"name one with --to N; see: {listed}"
    )


def how_to_deploy(environment: str, model: str) -> str:
    return f"tritonctl change propose {model} --env {environment} --version N --reason …"
