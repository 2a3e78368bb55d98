# Evidence behind a change: a trial of a sweep, and whether it still answers for what is to be deployed. Pure.
"""What was measured counts as long as it is what would be deployed (artifact and config), what is asked for (objectives), from
where it would run (the class of the fingerprint), recent, and still what the sweep's rows say. One that is not fails; one that
nobody can tell is inconclusive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from clients.load.statistics import Interval
from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.domain.catalog import Objective
from controlplane.domain.environments import RevisionContent
from controlplane.domain.evidence_clauses import ANY, EvidenceClause
from controlplane.domain.fingerprints import Fingerprint, differences, same_class
from controlplane.domain.sweep_search import Finding, Met, words
from controlplane.domain.times import format_instant, parse_instant

_AHEAD = timedelta(minutes=10)
"""So far a bench's clock may be ahead of ours."""


class EvidenceOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)  # no slots: the digest is kept
class Evidence:
    """One trial as it stood when it was attached. `config` is the digest of the config without version policy, `beside` that of
    the files beside it, `objectives` that of the model's objectives, `rows` the sweep's evidence digest. `fingerprint` is None where
    the trial was measured in more than one class of environment, or in one that is not known; `beside` is None in what was kept
    before it was looked at. `measured_at` is the end of its first
    block. `figures` and `findings` are what was measured of it, and what that is to each hard objective; `load` says at which load:
    a bound on latency alone holds at any rate that is low enough, and whoever writes a spec may choose one."""

    sweep: int
    trial: int
    candidate: str
    version: int
    artifact: str
    config: str
    objectives: str
    rows: str
    fingerprint: Fingerprint | None
    measured_at: datetime
    figures: Mapping[str, Interval] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    load: str = ""
    beside: str | None = None

    @property
    def name(self) -> str:
        return f"{self.sweep}.{self.trial}"

    @cached_property
    def digest(self) -> str:
        return digest(self.to_json())

    def recorded(self) -> JsonObject:
        """What the audit log keeps of it."""
        return {"digest": self.digest, "trial": self.name, "candidate": self.candidate, "rows": self.rows}

    def to_json(self) -> JsonObject:
        beside: JsonObject = {} if self.beside is None else {"beside": self.beside}
        return {
            **beside,
            "schema": 1,
            "sweep": self.sweep,
            "trial": self.trial,
            "candidate": self.candidate,
            "version": self.version,
            "artifact": self.artifact,
            "config": self.config,
            "objectives": self.objectives,
            "rows": self.rows,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_json(),
            "measured_at": format_instant(self.measured_at),
            "figures": {
                name: [repr(float(one.value)), repr(float(one.low)), repr(float(one.high))]
                for name, one in sorted(self.figures.items())
            },
            "findings": [asdict(one) for one in self.findings],
            "load": self.load,
        }

    @classmethod
    def from_json(cls, tree: JsonObject) -> Evidence:
        """Of what `to_json` made."""
        figures, findings, fingerprint = tree["figures"], tree["findings"], tree["fingerprint"]
        assert isinstance(figures, Mapping)
        assert isinstance(findings, list)
        return cls(
            sweep=_whole(tree["sweep"]),
            trial=_whole(tree["trial"]),
            candidate=str(tree["candidate"]),
            version=_whole(tree["version"]),
            artifact=str(tree["artifact"]),
            config=str(tree["config"]),
            objectives=str(tree["objectives"]),
            rows=str(tree["rows"]),
            fingerprint=None if fingerprint is None else Fingerprint.from_json(fingerprint),
            measured_at=parse_instant(str(tree["measured_at"])),
            figures={name: _interval(ends) for name, ends in figures.items()},
            findings=tuple(Finding(one["objective"], Met(one["met"]), one["reason"]) for one in findings),
            load=str(tree.get("load", "")),
            beside=None if tree.get("beside") is None else str(tree["beside"]),
        )


@dataclass(frozen=True, slots=True)
class EvidenceNow:
    """What evidence for a change of `environment` is held against. `objectives` is the digest of the model's; `rows` what the sweep's rows give now, None where it
    has none any more; `servers` are the environment's by name, None for one whose machine nobody looked at."""

    environment: str
    objectives: str
    rows: str | None
    servers: Mapping[str, Fingerprint | None]
    now: datetime


def objectives_digest(objectives: Iterable[Objective]) -> str:
    """In whatever order they come."""
    return digest([dict(asdict(one)) for one in sorted(objectives, key=lambda one: one.name)])


def judge(
    evidence: Evidence | None,
    desired: RevisionContent,
    clause: EvidenceClause,
    at: EvidenceNow,
    *,
    warm: bool = False,
) -> tuple[EvidenceOutcome, str]:
    """The outcome and why, with numbers. `desired` has a config. `warm`: the policy keeps the version before loaded, which answers
    nobody who does not ask for it by number."""
    if evidence is None:
        how = f"tritonctl sweep propose SWEEP --env {at.environment}"
        return EvidenceOutcome.FAILED, f"there is none; it is to be {clause.words}: {how}"
    failed = [*_other(evidence, desired, at), *_old(evidence, clause, at)]
    doubts = _unmeasured(evidence, desired, warm=warm)
    for one in evidence.findings:
        if one.met is not Met.MET:
            (failed if one.met is Met.MISSED else doubts).append(f"{one.objective}: {one.reason}")
    if clause.fingerprint != ANY:
        _machines(evidence, at, failed, doubts)
    if failed:
        return EvidenceOutcome.FAILED, f"trial {evidence.name}: {'; '.join(failed)}"
    if doubts:
        return EvidenceOutcome.INCONCLUSIVE, f"trial {evidence.name}: {'; '.join(doubts)}"
    return (
        EvidenceOutcome.PASSED,
        f"trial {evidence.name}, measured from {format_instant(evidence.measured_at)}: {_seen(evidence)}",
    )


def _other(evidence: Evidence, desired: RevisionContent, at: EvidenceNow) -> list[str]:
    """What is not what was measured."""
    found = []
    highest = desired.versions[-1]
    model = str((desired.config or {}).get("name", "MODEL"))
    if highest.artifact != evidence.artifact:
        found.append(
            f"version {highest.number} has the artifact {highest.artifact}; measured was version {evidence.version}, {evidence.artifact}"
        )
    config = digest(desired.config)
    if config != evidence.config:
        found.append(f"the config is {config}; measured was {evidence.config}")
    if at.objectives != evidence.objectives:
        found.append(
            f"the model's objectives are not those that it was measured for: compare tritonctl model objective list {model} with "
            f"tritonctl sweep show {evidence.sweep}, sweep again (tritonctl sweep run {model}), and propose anew"
        )
    if at.rows is None:
        found.append(f"there is no sweep {evidence.sweep} any more")
    elif at.rows != evidence.rows:
        found.append(f"the rows of sweep {evidence.sweep} were changed: their digest is {at.rows}, not {evidence.rows}")
    return found


def _old(evidence: Evidence, clause: EvidenceClause, at: EvidenceNow) -> list[str]:
    age = at.now - evidence.measured_at
    if age < -_AHEAD:  # would stay young for as long as somebody's clock is wrong
        return [
            f"it was measured at {format_instant(evidence.measured_at)}, which is yet to come: see the bench's clock"
        ]
    if age <= timedelta(days=clause.max_age_days):
        return []
    days = age / timedelta(days=1)
    return [f"it is {days:.1f} days old, and may be {clause.max_age_days}: tritonctl sweep run, and propose anew"]


def _unmeasured(evidence: Evidence, desired: RevisionContent, *, warm: bool) -> list[str]:
    found = []
    if evidence.beside not in {None, desired.beside.digest}:  # labels slow nobody down, as far as one knows
        found.append(f"the files beside the config are {desired.beside.digest}; measured was it with {evidence.beside}")
    others = [ref.number for ref in desired.versions[:-1] if ref.artifact != evidence.artifact]
    if warm and len(others) == 1 and len(desired.versions) == 2:
        return found
    return [*found, *(f"version {number} would be served beside it, and was not measured" for number in others)]


def _machines(evidence: Evidence, at: EvidenceNow, failed: list[str], doubts: list[str]) -> None:
    how = "the policy may accept that: fingerprint=any or inconclusive=accept"
    if evidence.fingerprint is None:
        doubts.append(f"it was measured in environments of more than one class, or not known ({how})")
        return
    for name, seen in sorted(at.servers.items()):
        if seen is None:
            doubts.append(f"the machine of server {name} is not known, so its class cannot be told ({how})")
            continue
        same = same_class(evidence.fingerprint, seen)
        if same:
            continue
        mark = "(another class)" if same is False else "(so nobody can tell"
        apart = [line for line in differences(evidence.fingerprint, seen) if mark in line]
        said = f"server {name} is {'not ' if same is False else 'perhaps not '}of the class that it was measured on: "
        (failed if same is False else doubts).append(said + ", ".join(apart))


def _seen(evidence: Evidence) -> str:
    """The numbers: of each hard objective, or where there is none, of each figure; and the load that they are of."""
    shown = [f"{one.objective}: {one.reason}" for one in evidence.findings]
    shown = shown or [f"{name} {words(one)}" for name, one in sorted(evidence.figures.items())] or ["no hard objective"]
    return "; ".join([*shown, *([f"load: {evidence.load}"] if evidence.load else [])])


def _interval(ends: Json) -> Interval:
    assert isinstance(ends, list)
    value, low, high = (float(end) for end in ends)
    return Interval(value, low, high)


def _whole(value: Json) -> int:
    assert isinstance(value, int)
    return value
