# The evidence that a policy asks of a change: what it is held against, the gate in the plan, who is exempt.
from __future__ import annotations

from datetime import datetime

from controlplane.domain.changes import ChangeKind, GateResult
from controlplane.domain.evidence import Evidence, EvidenceNow, EvidenceOutcome, judge, objectives_digest
from controlplane.domain.evidence_clauses import ACCEPT, EVIDENCE, asked_of
from controlplane.domain.policies import Policy
from controlplane.domain.sweeps import digest_of_rows
from controlplane.errors import NotFound
from controlplane.services.planning import Draft
from controlplane.storage.unit_of_work import UnitOfWork


def evidence_now(
    unit: UnitOfWork, environment: str, model: str, evidence: Evidence | None, now: datetime
) -> EvidenceNow:
    """As this transaction sees it. The digest of a sweep is taken of its rows again."""
    seen = unit.server_fingerprints.of_environment(environment)
    known = unit.sweeps.fingerprints(seen.values())
    return EvidenceNow(
        environment=environment,
        objectives=objectives_digest(unit.catalog.objectives(model)),
        rows=None if evidence is None else rows_digest(unit, evidence.sweep),
        servers={
            server.name: known.get(seen.get(server.digest, "")) for server in unit.environments.servers(environment)
        },
        now=now,
    )


def rows_digest(unit: UnitOfWork, sweep: int) -> str | None:
    """What the sweep's evidence digest is by its rows; None where there is no such sweep."""
    try:
        found = unit.sweeps.get(sweep)
    except NotFound:
        return None
    return digest_of_rows(found, unit.sweeps.trials(sweep), unit.sweeps.measurement_digests(sweep))


def evidence_gate(
    unit: UnitOfWork, draft: Draft, environment: str, model: str, now: datetime
) -> tuple[GateResult, ...]:
    """What the plan says of it; nothing where the policy asks for none, or the change serves nothing."""
    clause = asked_of(model, draft.policy.evidence)
    if clause is None or draft.kind is not ChangeKind.CHANGE or draft.desired.config is None:
        return ()
    at = evidence_now(unit, environment, model, draft.evidence, now)
    outcome, reason = judge(draft.evidence, draft.desired, clause, at, warm=draft.policy.keep_warm)
    if outcome is EvidenceOutcome.INCONCLUSIVE and clause.inconclusive == ACCEPT:
        reason = f"{reason}; the policy accepts that"
    return (GateResult(EVIDENCE, outcome.value, reason),)


def exempt(policy: Policy, kind: ChangeKind, model: str) -> tuple[str, ...]:
    """What the plan of a change says that needs none though its policy asks the model for it."""
    if asked_of(model, policy.evidence) is None or kind is ChangeKind.CHANGE:
        return ()
    why = "going back is to be fast" if kind is ChangeKind.ROLLBACK else "it brings back what was accepted"
    return (f"no evidence is asked for, though the policy asks changes of {model} for it: {why}",)
