# From a trial to a change request: an ordinary one, with what was measured attached as evidence.
from __future__ import annotations

from collections.abc import Mapping, Sequence

from clients.load.statistics import Interval
from controlplane.domain.access import Permission, Principal
from controlplane.domain.audit import Action
from controlplane.domain.canonical import Json
from controlplane.domain.catalog import Objective
from controlplane.domain.evidence import Evidence, objectives_digest
from controlplane.domain.fingerprints import Fingerprint, same_class
from controlplane.domain.sweep_answer import figures_of_answer
from controlplane.domain.sweep_compare import figures_seen
from controlplane.domain.sweep_course import asked_of
from controlplane.domain.sweep_figures import RATE
from controlplane.domain.sweep_rounds import Measurement, Verdict
from controlplane.domain.sweep_search import Finding, Met, finding, words
from controlplane.domain.sweep_search import Trial as Seen
from controlplane.domain.sweeps import Sweep, SweepState, Trial
from controlplane.errors import Conflict, InvalidInput
from controlplane.services.access import AccessService
from controlplane.services.change_views import ChangeView
from controlplane.services.changes import ChangeService
from controlplane.services.evidence import rows_digest
from controlplane.services.planning import Proposal
from controlplane.services.sweep_drafts import beside_of, objectives_of
from controlplane.services.sweep_replay import is_replay
from controlplane.storage.unit_of_work import Storage, UnitOfWork

_LONGEST = 1900
"""Characters of what is prefilled."""


class SweepEvidence:
    """Reads what a sweep found, and proposes it."""

    def __init__(self, storage: Storage, access: AccessService, changes: ChangeService) -> None:
        self._storage = storage
        self._access = access
        self._changes = changes

    def propose(
        self,
        principal: Principal,
        sweep: int,
        *,
        trial: int | None,
        environment: str,
        reason: str = "",
        hypothesis: str = "",
        expected_effect: str = "",
        acknowledge: tuple[str, ...] = (),
    ) -> ChangeView:
        """Of the chosen trial, or another one. What is not said in words is said by the answer. Raises Conflict for a sweep that is
        not finished or replays another one, and for a trial that nothing is known of."""
        self._access.require(principal, Permission.SWEEP_READ)
        with self._storage.read() as unit:
            found = _finished(unit.sweeps.get(sweep))
            one = unit.sweeps.trial(sweep, _chosen(found) if trial is None else trial)
            rows = tuple(taken.measurement for taken in unit.sweeps.measurements(sweep, candidate=one.candidate))
            evidence = _evidence(unit, found, one, rows)
        assert one.config is not None
        return self._changes.propose(
            principal,
            Proposal(
                environment=environment,
                model=found.model,
                reason=reason or _reason(found, one),
                hypothesis=hypothesis or _why(found, one),
                expected_effect=expected_effect or _expected(evidence.figures),
                versions=(one.version,),
                config=one.config,
                acknowledge=acknowledge,
                evidence=evidence,
            ),
        )


def _finished(sweep: Sweep) -> Sweep:
    if sweep.state is not SweepState.FINISHED:
        raise Conflict(
            f"sweep {sweep.id} is {sweep.state.value}: there is no answer to propose",
            hint=f"tritonctl sweep {'resume' if sweep.state in {SweepState.CANCELLED, SweepState.FAILED} else 'watch'} {sweep.id}",
        )
    if is_replay(sweep):  # its load, objectives and requests are what a file said, whoever wrote it
        raise Conflict(
            f"sweep {sweep.id} is a replay: it says what agrees, and is no evidence of what to deploy",
            hint="measure a model that is registered here: tritonctl sweep run MODEL",
        )
    return sweep


def _chosen(sweep: Sweep) -> int:
    chosen = (sweep.answer or {}).get("chosen")
    if chosen is None:
        raise Conflict(
            f"sweep {sweep.id} chose no trial: {(sweep.answer or {}).get('reason', sweep.message)}",
            hint=f"name one: tritonctl sweep show {sweep.id}",
        )
    return int(str(chosen).rpartition(".")[2])


def _evidence(unit: UnitOfWork, sweep: Sweep, trial: Trial, rows: Sequence[Measurement]) -> Evidence:
    measured = [row for row in rows if row.verdict is not Verdict.NOT_MEASURED]
    figures = figures_of_answer(sweep).get(trial.name) or _judged(sweep, trial, rows)
    if trial.config is None or trial.failure or not figures:
        why = "; ".join(trial.refused) or trial.failure or "no block of it shows anything"
        raise Conflict(f"trial {trial.name} cannot be proposed: {why}", hint=f"tritonctl sweep show {sweep.id}")
    digest, told = rows_digest(unit, sweep.id), _told(unit, sweep)
    if digest is None or not digest == sweep.evidence == told:
        ended = sweep.evidence if digest != sweep.evidence else f"{told} by the audit log"
        raise InvalidInput(
            f"the rows of sweep {sweep.id} have the digest {digest}, and it ended with {ended}: they were changed",
            hint=f"measure again: tritonctl sweep run {sweep.model}",
        )
    seen = unit.sweeps.fingerprints(row.fingerprint for row in measured)
    return Evidence(
        sweep=sweep.id,
        trial=trial.number,
        candidate=trial.candidate,
        version=trial.version,
        artifact=trial.artifact,
        config=trial.config_digest,
        objectives=objectives_digest(objectives_of(sweep)),
        rows=digest,
        fingerprint=_one_class([seen.get(row.fingerprint) for row in measured]),
        measured_at=min(row.finished_at for row in measured),  # a sweep that was resumed a year later is a year old
        figures=figures,
        findings=_findings(sweep, trial, figures),
        load=_load(sweep, figures),
        beside=beside_of(sweep.space).digest,
    )


def _judged(sweep: Sweep, trial: Trial, rows: Sequence[Measurement]) -> Mapping[str, Interval]:
    """With what failed counted; none where every block had failing requests, whose speed is no evidence of anything."""
    asked = asked_of(sweep)
    if trial.candidate not in figures_seen(asked, rows):
        return {}
    return figures_seen(asked, rows, everything=False)[trial.candidate]


def _load(sweep: Sweep, figures: Mapping[str, Interval]) -> str:
    """Who chose it, and the rate that was found where one was looked for."""
    said = str(sweep.load.get("reason", ""))
    return f"{said}: {figures[RATE].value:.6g} a second" if sweep.load.get("finds_rate") and RATE in figures else said


def _told(unit: UnitOfWork, sweep: Sweep) -> str | None:
    """What the audit log says the sweep ended with: who can change rows can take their digest anew, too."""
    entries = unit.audit.entries(subject=("sweep", str(sweep.id)), action=Action.SWEEP_FINISHED.value, limit=1)
    return str(entries[0].details["evidence"]) if entries else None


def _one_class(fingerprints: Sequence[Fingerprint | None]) -> Fingerprint | None:
    """The last, where all are known and of its class."""
    known = [one for one in fingerprints if one is not None]
    if not known or len(known) < len(fingerprints):
        return None
    last = known[-1]
    return last if all(one == last or same_class(one, last) for one in set(known)) else None


def _findings(sweep: Sweep, trial: Trial, figures: Mapping[str, Interval]) -> tuple[Finding, ...]:
    """Of every hard objective: what the answer says of this trial. Of one that it says nothing of, the race may show that it misses
    a bound, and never that it holds one: who is ahead in a race owes a part of it to luck."""
    told = (sweep.answer or {}).get("findings")
    own = told.get(trial.name) if isinstance(told, Mapping) else None
    found = {one.objective: one for one in map(_finding, own if isinstance(own, list) else [])}
    silent = "the sweep did not measure it" if found else "the sweep did not measure the trial again at its end"
    seen = Seen(trial.name, figures, answers=0)

    def of_race(objective: Objective) -> Finding:
        one = finding(objective, seen)
        return one if one.met is Met.MISSED else Finding(objective.name, Met.CANNOT_TELL, silent)

    return tuple(found.get(one.name) or of_race(one) for one in objectives_of(sweep) if one.weight is None)


def _finding(tree: Json) -> Finding:
    assert isinstance(tree, Mapping)
    return Finding(str(tree["objective"]), Met(str(tree["met"])), str(tree["reason"]))


def _reason(sweep: Sweep, trial: Trial) -> str:
    """Why this one, said once: a message may name its trial twice. It is of the chosen trial, so another one's reason names that."""
    who, chosen = f"trial {trial.name}", (sweep.answer or {}).get("chosen")
    if chosen != trial.name:
        return f"{who} of sweep {sweep.id}, which chose {'none' if chosen is None else f'trial {chosen}'}"
    told = sweep.message.removeprefix(f"{who}: ")
    return f"sweep {sweep.id}: {told if told.startswith(f'{who} ') else f'{who}: {told}'}"[:_LONGEST]


def _why(sweep: Sweep, trial: Trial) -> str:
    """What a reviewer can check: the answer's own reason for the trial that it chose, else what was decided of it last."""
    answer = sweep.answer or {}
    if answer.get("chosen") == trial.name:
        because = answer.get("because")
        said = [str(answer.get("reason", "")), *(map(str, because) if isinstance(because, list) else ())]
        return ". ".join(one for one in said if one)[:_LONGEST]
    last = trial.fates[-1] if trial.fates else {}
    return f"{last.get('fate', 'measured')}: {last.get('reason', '')}"[:_LONGEST]


def _expected(figures: Mapping[str, Interval]) -> str:
    return "; ".join(f"{name} {words(one)}" for name, one in sorted(figures.items()))[:_LONGEST]
