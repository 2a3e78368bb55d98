# What a report is made of: a sweep with its trials and measurements, and what belongs to them.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_course import asked_of
from controlplane.domain.sweep_figures import Asked
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweeps import Sweep, Trial, evidence_digest


@dataclass(frozen=True)  # no slots: what is derived is kept
class Material:
    """`measurements` are in the order in which they were taken, with their histograms. `fingerprints` are by digest, as far as they are
    known; `description` is the model's own."""

    sweep: Sweep
    trials: tuple[Trial, ...]
    measurements: tuple[Measurement, ...]
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)
    description: str = ""
    dropped: tuple[str, ...] = ()
    """What was renamed or left out, in words; empty where nothing was: then digests can be taken again."""
    capsule: str | None = None
    """The file that all of this was read from: here another sweep has its number, and its texts are a stranger's."""

    @cached_property
    def by_candidate(self) -> Mapping[str, Trial]:
        return {trial.candidate: trial for trial in self.trials}

    @cached_property
    def by_name(self) -> Mapping[str, Trial]:
        return {trial.name: trial for trial in self.trials}

    @cached_property
    def asked(self) -> Asked:
        """What its blocks were to show."""
        return asked_of(self.sweep)

    @cached_property
    def digest_now(self) -> str:
        """Of the rows that are here; the sweep's own is of those that its answer rests on."""
        return evidence_digest(self.sweep, self.trials, self.measurements)
