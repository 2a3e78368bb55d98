# Capsules from a sweep's rows, and replays of them by the worker, on a bench that simulates. (sweep acceptance 4)
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.domain.access import PrincipalKind, Role
from controlplane.domain.artifacts import FileEntry, Manifest
from controlplane.domain.canonical import JsonObject, canonical_bytes, digest
from controlplane.domain.capsule_names import anonymized
from controlplane.domain.capsules import Capsule, CapsuleVersion
from controlplane.domain.sweep_rounds import Measurement, Requests
from controlplane.domain.sweeps import Sweep, SweepState
from controlplane.errors import CapsuleInvalid, Conflict, NotFound, PermissionDenied, SweepInvalid
from controlplane.services.capsule_files import CapsuleFile, open_capsule
from controlplane.services.capsules import CapsuleService
from controlplane.services.catalog import CatalogService
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from tests import simulated_bench
from tests.simulated_bench import Killed, SimulatedBench, capacity
from tests.store.clock import SteppingClock
from tests.store.sweeping import SweepHouse, version

BYTES = {1: b"the first weights", 2: b"the second weights, which are longer"}


@dataclass
class Capsules:
    house: SweepHouse
    store: ObjectArtifactStore
    tmp_path: Path

    def __post_init__(self) -> None:
        house = self.house
        self.service = CapsuleService(
            house.storage,
            house.access,
            self.store,
            house.clock,
            house.codec,
            staging=self.tmp_path / "staging",
        )

    def run(self, bench: SimulatedBench) -> None:
        """As a worker does, to the end of the sweep that waits."""
        house = self.house
        bench.time.instant = max(bench.time.instant, house.clock.now())
        runner = SweepRunner(
            house.storage,
            house.clock,
            bench.open,
            self.store,
            house.codec,
            name="one",
            lease_seconds=30,
            turns=Turns(),
            poll_seconds=0.01,
        )
        assert runner.once()
        house.clock.instant = max(house.clock.instant, bench.time.instant)

    @contextmanager
    def exported(self, sweep: Sweep, *, by: str = "olga", **how: bool) -> Iterator[CapsuleFile]:
        path = self.service.export(self.house[by], sweep.id, **how)
        with open_capsule(path) as opened:
            yield opened
        path.unlink()

    def upload(self, capsule: Capsule) -> str:
        """The document, as the command line does it."""
        return self.store.add_stream([canonical_bytes(capsule.to_json())])[0]

    def rows(self, sweep: Sweep) -> tuple[Measurement, ...]:
        return self.house.sweeps.measurements(self.house["vera"], sweep.id)


@pytest.fixture
def there(storage: Storage, clock: SteppingClock, store: ObjectArtifactStore, tmp_path: Path) -> Capsules:
    """With a sweep that ended, whose golden blob and version are in the store."""
    house = SweepHouse(storage, clock)
    found = Capsules(house, store, tmp_path)
    _give(house, store)
    house.start(space={"instances": [1, 2]})
    found.run(SimulatedBench())
    return found


def _give(house: SweepHouse, store: ObjectArtifactStore) -> None:
    """Version 3, with bytes that are there, is the highest: the one that is swept."""
    golden, size = store.add_stream([b"recorded"])
    weights, length = store.add_stream([BYTES[1]])
    plain = version(3)
    assert plain.inspection.golden is not None
    file = replace(plain.manifest.files[0], size=length, sha256=weights)
    inspection = replace(plain.inspection, golden=replace(plain.inspection.golden, blob=golden))
    assert size == 8
    with house.storage.write() as unit:
        unit.catalog.add_version(replace(plain, manifest=replace(plain.manifest, files=(file,)), inspection=inspection))


def first(capsules: Capsules) -> Sweep:
    return capsules.house.sweeps.get(capsules.house["vera"], 1)


def test_a_capsule_has_all_that_the_answer_rests_on_and_checks_out(there: Capsules) -> None:
    sweep = first(there)
    with there.exported(sweep, artifacts=True) as opened:
        capsule = opened.capsule
        assert opened.verify() == ()
        assert capsule.sweep == replace(sweep, progress={})
        assert capsule.measurements == there.rows(sweep)
        assert capsule.dropped == ()
        assert {b"".join(opened.blob(name)) for name in capsule.blobs} == {b"recorded", BYTES[1]}
    with there.exported(sweep) as opened:
        assert {b"".join(opened.blob(name)) for name in opened.capsule.blobs} == {b"recorded"}
    assert there.house.actions(sweep)[-2:] == [("olga", "sweep.exported")] * 2
    assert list((there.tmp_path / "staging").iterdir()) == []


def test_an_anonymous_capsule_leaves_out_a_users_own_samples_and_can_be_replayed(there: Capsules) -> None:
    sweep = first(there)
    with there.exported(sweep, anonymize=True) as opened:
        assert opened.verify() == ()
        assert b"digits" not in canonical_bytes(opened.capsule.to_json())
        assert len(opened.capsule.blobs) == 1  # the recorded inferences were generated: they are nobody's
        document = there.upload(opened.capsule)
    again = there.service.replay(there.house["olga"], document)
    assert again.model == "model-1"
    there.run(SimulatedBench())
    assert "a replay of sweep 1 of model-1: " in there.house.get(again).message


def test_an_anonymous_capsule_can_be_replayed_whatever_its_names_are(there: Capsules) -> None:
    """Words of its own document, as a name and as a value."""
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    (objective,) = capsule.sweep.objectives
    sweep = replace(
        capsule.sweep, environment="load", started_by="search", bench="plan:8001", objectives=({**objective, "stakeholder": "seed"},)
    )  # fmt: skip
    nameless = anonymized(replace(capsule, sweep=sweep), samples=False)
    again = there.service.replay(there.house["olga"], there.upload(nameless))
    there.run(SimulatedBench())
    assert there.house.get(again).state is SweepState.FINISHED
    assert "a replay of sweep 1 of model-1: " in there.house.get(again).message


def test_whoever_cancelled_a_sweep_is_not_named_either(there: Capsules) -> None:
    sweep = there.house.start(space={"instances": [1, 2]})
    otto = there.house.access.create(there.house["ada"], "otto-weiss", PrincipalKind.PERSON, [Role.OPERATOR])
    there.house.sweeps.cancel(otto, sweep.id)
    with there.exported(sweep, anonymize=True) as opened:
        assert opened.capsule.sweep.message == "cancelled by principal-2"
        assert b"otto-weiss" not in canonical_bytes(opened.capsule.to_json())


def test_a_replay_has_the_same_blocks_in_the_same_order_and_agrees(there: Capsules) -> None:
    """sweep acceptance 4: `replay` of a capsule on the same machine agrees, and orders the same."""
    sweep = first(there)
    with there.exported(sweep) as opened:
        document = there.upload(opened.capsule)
    again = there.service.replay(there.house["olga"], document, model="elsewhere")
    assert (again.state, again.model, again.environment) == (SweepState.QUEUED, "elsewhere", None)
    bench = SimulatedBench()
    there.run(bench)
    found = there.house.get(again)
    assert found.state is SweepState.FINISHED, found.message
    assert [(one.round, one.stage, one.order) for one in there.rows(again)] == [
        (one.round, one.stage, one.order) for one in there.rows(sweep)
    ]
    assert found.answer is not None
    replay = found.answer["replay"]
    assert isinstance(replay, dict)
    assert replay["differing"] == 0
    assert {one["outcome"] for one in replay["agreement"]} == {"agrees"}
    assert found.answer["notes"] == ["machine: no difference of the fingerprints"]
    assert found.evidence is not None
    assert there.house.actions(again) == [("olga", "sweep.started"), ("system", "sweep.finished")]
    with there.house.storage.read() as unit:
        assert [one.name for one in unit.catalog.models()] == ["digits"]


def test_a_replay_on_a_slower_machine_says_what_differs(there: Capsules, monkeypatch: pytest.MonkeyPatch) -> None:
    with there.exported(first(there)) as opened:
        document = there.upload(opened.capsule)
    again = there.service.replay(there.house["olga"], document)
    monkeypatch.setattr(simulated_bench, "capacity", lambda config: 0.7 * capacity(config))
    there.run(SimulatedBench())
    found = there.house.get(again)
    assert found.answer is not None
    assert "differ" in str(found.answer["reason"])
    lines = found.answer["because"]
    assert isinstance(lines, list)
    assert any("sustainable_rate: differs, 0.7" in str(line) for line in lines)


def test_a_replay_that_was_killed_goes_on_with_what_is_missing(there: Capsules) -> None:
    with there.exported(first(there)) as opened:
        document = there.upload(opened.capsule)
    again = there.service.replay(there.house["olga"], document)
    with pytest.raises(Killed):
        there.run(SimulatedBench(kill_after=5))
    assert len(there.rows(again)) == 5
    there.house.clock.instant += timedelta(minutes=1)  # the lease is over
    bench = SimulatedBench()
    there.run(bench)
    assert there.house.get(again).state is SweepState.FINISHED
    assert len(there.rows(again)) == len(there.rows(first(there)))
    assert bench.measured == len(there.rows(again)) - 5


def test_what_a_replay_reads_is_kept_until_it_has_its_answer(there: Capsules, catalog: CatalogService) -> None:
    """Of bytes that no version here needs. A cancelled one may be resumed any time later."""
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    weights = there.store.add_stream([b"a stranger's weights"])[0]
    golden = there.store.add_stream([b"a stranger's recorded inferences"])[0]
    manifest = Manifest((FileEntry("model.onnx", 20, weights),))
    foreign = replace(
        capsule,
        sweep=replace(capsule.sweep, answer=None, evidence=None),
        versions={3: CapsuleVersion(manifest, Requests(golden))},
        trials=tuple(replace(one, artifact=manifest.digest) for one in capsule.trials),
    )
    document = there.upload(foreign)
    again = there.service.replay(there.house["olga"], document)
    there.house.sweeps.cancel(there.house["olga"], again.id)
    there.house.clock.instant = there.house.clock.instant.replace(year=there.house.clock.instant.year + 100)
    orphan = there.store.add_stream([b"nobody's"])[0]

    assert catalog.prune(there.house["ada"], apply=True).blobs == (orphan,)
    there.house.sweeps.resume(there.house["olga"], again.id)
    there.run(SimulatedBench())
    assert there.house.get(again).state is SweepState.FINISHED, there.house.get(again).message
    assert catalog.prune(there.house["ada"], apply=True).blobs == tuple(sorted((weights, golden, document)))


def test_bytes_that_are_nowhere_are_asked_for_before_anything_starts(there: Capsules) -> None:
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    (number, kept), *_ = capsule.versions.items()
    lost = replace(kept, requests=replace(kept.requests, golden="sha256:" + "9" * 64))
    whole = replace(capsule, versions={number: lost})
    with pytest.raises(NotFound, match="holds no blob sha256:9999"):
        there.service.replay(there.house["olga"], there.upload(whole))
    with pytest.raises(NotFound):
        there.service.replay(there.house["olga"], "sha256:" + "8" * 64)
    assert len(there.house.sweeps.list(there.house["vera"])) == 1


def test_a_capsule_that_does_not_check_out_is_not_replayed(there: Capsules) -> None:
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    changed = replace(capsule.measurements[0], completed=1)
    with pytest.raises(CapsuleInvalid, match="does not check out: the sweep's evidence digest is"):
        there.service.replay(
            there.house["olga"],
            there.upload(replace(capsule, measurements=(changed, *capsule.measurements[1:]))),
        )


def hostile(config: JsonObject) -> list[JsonObject]:
    return [
        {**config, "default_model_filename": "../../../etc/passwd"},
        {**config, "instance_group": [{"name": "$(touch /tmp/x)", "kind": "KIND_CPU", "count": 1}]},
        {**config, "no_such_field": 1},
        {**config, "max_batch_size": "many"},
    ]


@pytest.mark.parametrize("which", range(4))
def test_a_strangers_config_is_held_to_what_everybodys_is(there: Capsules, which: int) -> None:
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    trial = capsule.trials[0]
    assert trial.config is not None
    config = hostile(trial.config)[which]
    own = digest({"version": trial.version, "config": config})
    stranger = replace(trial, config=config, config_digest=digest(config), candidate=own)
    rows = tuple(
        replace(one, order=replace(one.order, candidate=own)) if one.order.candidate == trial.candidate else one
        for one in capsule.measurements
    )
    made = replace(
        capsule,
        trials=(stranger, *capsule.trials[1:]),
        measurements=rows,
        sweep=replace(capsule.sweep, answer=None, evidence=None),
    )
    with pytest.raises(CapsuleInvalid, match="trial 1 of the capsule"):
        there.service.replay(there.house["olga"], there.upload(made))


@pytest.mark.parametrize(
    "change",
    [{"plan": {}}, {"load": {}}, {"spec": {}, "spec_digest": digest({})}, {"objectives": ({"name": 1},)}],
    ids=["plan", "load", "spec", "objectives"],
)
def test_a_strangers_plan_is_read_before_anything_starts(there: Capsules, change: dict[str, object]) -> None:
    with there.exported(first(there)) as opened:
        capsule = opened.capsule
    made = replace(capsule, sweep=replace(capsule.sweep, answer=None, evidence=None, **change))  # type: ignore[arg-type]
    with pytest.raises(CapsuleInvalid, match="cannot be re"):
        there.service.replay(there.house["olga"], there.upload(made))


def test_only_who_may_register_replays_and_only_who_sweeps_exports(there: Capsules) -> None:
    with there.exported(first(there)) as opened:
        document = there.upload(opened.capsule)
    for who in ("vera", "anna"):
        with pytest.raises(PermissionDenied):
            there.service.export(there.house[who], 1)
        with pytest.raises(PermissionDenied):
            there.service.replay(there.house[who], document)
    with pytest.raises(SweepInvalid, match="not one of the benches"):
        there.service.replay(there.house["olga"], document, bench="10.0.0.9:8001")


def test_neither_a_running_sweep_nor_a_replay_is_exported(there: Capsules) -> None:
    with pytest.raises(Conflict, match="is queued"):
        there.service.export(there.house["olga"], there.house.start().id)
    with there.exported(first(there)) as opened:
        again = there.service.replay(there.house["olga"], there.upload(opened.capsule))
    there.house.sweeps.cancel(there.house["olga"], again.id)
    with pytest.raises(Conflict, match="is a replay itself"):
        there.service.export(there.house["olga"], again.id)


def test_what_a_killed_export_left_is_removed_after_a_day(there: Capsules, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    old, new = staging / "capsule-old", staging / "capsule-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    with there.exported(first(there)):
        assert not old.exists()
    assert list(staging.iterdir()) == [new]
