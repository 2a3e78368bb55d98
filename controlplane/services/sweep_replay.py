# What a replay does next, by its rows and its capsule: the next of the capsule's blocks, or nothing, and then what agrees.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.canonical import JsonObject
from controlplane.domain.capsules import Capsule
from controlplane.domain.fingerprints import Fingerprint, differences
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_answer import Conclusion
from controlplane.domain.sweep_course import Raced, Terms, terms_of
from controlplane.domain.sweep_racing import Standing
from controlplane.domain.sweep_replay import agreement, ahead_of, answer, failures
from controlplane.domain.sweep_rounds import Measurement
from controlplane.domain.sweep_space import Space, Subject
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.domain.sweep_time import Budget
from controlplane.domain.sweeps import Sweep, Taken, Trial
from controlplane.services.capsule_files import read_capsule
from controlplane.services.ports import ArtifactStore
from controlplane.services.sweep_drafts import Material
from controlplane.services.sweep_next import Next
from controlplane.storage.unit_of_work import Storage

REPLAY = "replay"
"""The method of such a sweep, and where its plan names its capsule."""


def is_replay(sweep: Sweep) -> bool:
    return REPLAY in sweep.plan


def replayed_blobs(plan: JsonObject) -> frozenset[str]:
    """What a replay of this plan reads; nothing where it is another sweep's, whose versions are registered."""
    named = plan.get(REPLAY)
    if not isinstance(named, Mapping):
        return frozenset()
    blobs = named.get("blobs")
    return frozenset(map(str, (named["capsule"], *(blobs if isinstance(blobs, list) else ()))))


@dataclass(frozen=True, slots=True)
class ReplayNext(Next):
    """Where a replay stands: nothing is searched, so nothing is decided of trials."""

    capsule: Capsule
    machines: tuple[str, ...]
    """What differs between the machine of the capsule and this one, in words."""

    def fates(self) -> dict[int, tuple[JsonObject, ...]]:
        return {trial.number: trial.fates for trial in self.trials}

    def progress(self, done: int, seconds: float = 0.0) -> JsonObject:
        ahead, whole = self.ahead, len(self.capsule.measurements)
        left = sum(one.order.seconds for one in self.capsule.measurements[done:])
        return {
            "stage": "done" if ahead is None else REPLAY,
            "round": 0 if ahead is None else ahead.number,
            "done": done,
            "ordered": whole,
            "seconds_left": max(0, round(left - seconds)) if ahead is not None else 0,
            "leader": "",
        }

    def conclusion(self) -> Conclusion:
        margin = float(spec_from_json(self.sweep.spec).search.margin_percent) / 100
        before, after = self.capsule.measurements, self.measurements
        agreed = agreement(self.terms.asked, self.trials, before, after, margin)
        source = f"sweep {self.capsule.sweep.id} of {self.capsule.sweep.model}"
        apart = failures(self.trials, before, after)
        made = answer(agreed, apart, self.machines, self.capsule.dropped, source)
        return Conclusion(made, {}, str(made["reason"]))


def replayed(
    storage: Storage, artifacts: ArtifactStore, sweep: Sweep, trials: Sequence[Trial], taken: Sequence[Taken]
) -> tuple[ReplayNext, Material]:
    """Raises NotFound where the capsule's document is gone from the artifact store, and CapsuleInvalid."""
    named = sweep.plan[REPLAY]
    assert isinstance(named, Mapping)
    capsule = read_capsule(artifacts, str(named["capsule"]))
    measurements = tuple(one.measurement for one in taken)
    with storage.read() as unit:
        here = unit.sweeps.fingerprints(one.fingerprint for one in measurements)
    terms, ahead = terms_for(sweep, capsule), ahead_of(capsule.measurements, measurements)
    raced = Raced(Standing((), (), None), (), Budget(0.0, 0.0, 0.0), ahead)
    machines = _machines(capsule, measurements, here)
    now = ReplayNext(sweep, tuple(trials), measurements, terms, raced, None, capsule, machines)
    return now, _material(sweep, capsule)


def terms_for(sweep: Sweep, capsule: Capsule) -> Terms:
    return terms_of(sweep, {number: one.manifest.size for number, one in capsule.versions.items()}, 0)


def _material(sweep: Sweep, capsule: Capsule) -> Material:
    """Nothing is searched, so of the subject nothing is known but its name."""
    subject = Subject(sweep.model, {}, {}, HostFacts(1, 0, 0))
    return Material(
        subject,
        Space(tuple(capsule.versions), ()),
        {number: one.manifest for number, one in capsule.versions.items()},
        {number: one.requests for number, one in capsule.versions.items()},
        capsule.beside,
    )


def _machines(
    capsule: Capsule, measurements: Sequence[Measurement], here: Mapping[str, Fingerprint]
) -> tuple[str, ...]:
    """Of the last that was measured on there, and the last here."""
    there = next(
        (one.fingerprint for one in reversed(capsule.measurements) if one.fingerprint in capsule.fingerprints), None
    )
    last = next((one.fingerprint for one in reversed(measurements) if one.fingerprint in here), None)
    if there is None or last is None:
        return () if not measurements else ("one of the two fingerprints is not known",)
    return differences(capsule.fingerprints[there], here[last])
