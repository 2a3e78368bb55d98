# Starting, listing, cancelling and resuming sweeps: who may, what is refused and why, what the audit log keeps.
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Inspection
from controlplane.domain.environments import Revision, RevisionContent, VersionRef
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape, spec_from_json
from controlplane.domain.sweeps import SweepState
from controlplane.errors import LeaseLost, NotFound, PermissionDenied, SweepInvalid, TransitionIllegal
from controlplane.services.environments import EnvironmentService
from controlplane.storage.unit_of_work import Storage
from tests.simulated_bench import FINGERPRINT
from tests.store.clock import NOON, SteppingClock
from tests.store.sweeping import MODEL, P99, SweepHouse, generated, version


@pytest.fixture
def house(storage: Storage, clock: SteppingClock) -> SweepHouse:
    return SweepHouse(storage, clock)


def test_a_sweep_is_queued_with_its_plan_its_candidates_and_the_refused_ones(house: SweepHouse) -> None:
    sweep = house.start(space={"instances": [1, 2], "threads": [1, 16]})
    assert (sweep.id, sweep.state, sweep.model, sweep.started_by) == (1, SweepState.QUEUED, MODEL, "olga")
    assert sweep.spec_digest == house.spec(space={"instances": [1, 2], "threads": [1, 16]}).digest
    assert sweep.plan["candidates"] == 2
    assert sweep.load["finds_rate"] is True
    assert [one["name"] for one in sweep.objectives] == ["fast"]
    trials = [one.trial for one in house.sweeps.trials(house["vera"], sweep.id)]
    assert [(one.number, one.base, bool(one.refused)) for one in trials] == [
        (1, True, False),
        (2, False, False),
        (3, False, True),
        (4, False, True),
    ]
    assert trials[1].parameters == {"instances": 2, "threads": 1}
    assert trials[1].artifact == version(2).artifact
    assert "over twice as many" in trials[2].refused[0]
    assert house.get(sweep) == sweep
    assert house.actions(sweep) == [("olga", "sweep.started")]


def test_a_plan_alone_keeps_nothing_and_is_the_same_each_time(house: SweepHouse) -> None:
    """Sweep acceptance 4: the same spec and seed give the same plan and order."""
    first = house.sweeps.plan_only(house["olga"], house.spec())
    again = house.sweeps.plan_only(house["olga"], house.spec())
    other = house.sweeps.plan_only(house["olga"], house.spec(search={"seed": 4}))
    assert house.sweeps.list(house["vera"]) == ()
    assert first.trials == again.trials
    assert first.sweep == replace(again.sweep, created_at=first.sweep.created_at)
    assert [one.candidate for one in other.trials] != [one.candidate for one in first.trials]
    started = house.start()
    kept = [replace(one.trial, sweep=0) for one in house.sweeps.trials(house["vera"], started.id)]
    assert kept == list(first.trials)


@pytest.mark.parametrize("who", ["vera", "anna"])
def test_only_who_operates_plans_starts_cancels_and_resumes(house: SweepHouse, who: str) -> None:
    """A plan of a large space costs seconds of a processor."""
    sweep = house.start()
    with pytest.raises(PermissionDenied, match=r"sweep\.run"):
        house.sweeps.plan_only(house[who], house.spec())
    with pytest.raises(PermissionDenied, match=r"sweep\.run"):
        house.start(who)
    for act in (house.sweeps.cancel, house.sweeps.resume):
        with pytest.raises(PermissionDenied, match=r"sweep\.run"):
            act(house[who], sweep.id)
    assert house.get(sweep).state is SweepState.QUEUED


def test_versions_are_compared_in_one_sweep_and_their_sizes_are_known(house: SweepHouse) -> None:
    sweep = house.start(versions=[1, 2], space={})
    trials = [one.trial for one in house.sweeps.trials(house["vera"], sweep.id)]
    assert [(one.version, one.base) for one in trials] == [(1, True), (2, True)]


def test_the_base_is_what_an_environment_serves(house: SweepHouse) -> None:
    environments = EnvironmentService(house.storage, house.access, house.clock)
    environments.create(house["ada"], "production", "", {})
    environments.add_server(house["ada"], "production", "one", "127.0.0.1:1", "/nowhere/models")
    with pytest.raises(NotFound, match="is not deployed in 'production'"):
        house.sweeps.start(house["olga"], house.spec(), environment="production")
    config = house.codec.check(generated(version(1), embedded=False)) | {"max_batch_size": 16}
    with house.storage.write() as unit:
        unit.environments.ensure_deployment("production", MODEL)
        refs = (VersionRef(1, version(1).artifact),)
        content = RevisionContent(refs, config)
        unit.environments.add_revision(Revision("production", MODEL, 1, content, None, NOON, ()))
        token = unit.environments.claim("production", MODEL, "me", NOON, 1)
        assert token is not None
        unit.environments.guard("production", MODEL, token, revision=1)
    sweep = house.sweeps.start(house["olga"], house.spec(), environment="production")
    assert (sweep.environment, sweep.base_revision) == ("production", 1)
    first = house.sweeps.trial(house["vera"], sweep.id, 1).trial
    assert (first.base, first.version, first.config) == (True, 1, config)


def test_an_opaque_version_is_swept_from_its_own_config(house: SweepHouse) -> None:
    config: JsonObject = {
        "backend": "tensorrt",
        "max_batch_size": 4,
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    }
    with house.storage.write() as unit:
        unit.catalog.add_version(version(3, config=config))
    sweep = house.start(versions=[3], space={"instances": [1, 2]})
    base = house.sweeps.trial(house["vera"], sweep.id, 1).trial
    assert base.base
    assert base.config is not None
    assert base.config["backend"] == "tensorrt"


def refused(house: SweepHouse, **spec: Json) -> SweepInvalid:
    with pytest.raises(SweepInvalid) as error:
        house.start(**spec)
    assert house.sweeps.list(house["vera"]) == ()
    return error.value


def test_a_version_without_recorded_inferences_is_refused(house: SweepHouse) -> None:
    """Sweep acceptance 7, here and in the next two: what cannot be swept is refused with a reason."""
    with house.storage.write() as unit:
        unit.catalog.add_version(version(3, golden=False))
    error = refused(house)
    assert error.message == "version 3 of digits has no recorded inferences to send"
    assert error.hint is not None
    assert "--samples" in error.hint


def test_an_ensemble_is_refused_and_its_members_are_named(house: SweepHouse) -> None:
    steps: list[Json] = [{"model_name": "cut", "model_version": "-1"}, {"model_name": "read", "model_version": "-1"}]
    config: JsonObject = {"platform": "ensemble", "ensemble_scheduling": {"step": steps}}
    with house.storage.write() as unit:
        unit.catalog.add_version(replace(version(3), inspection=Inspection(None, None, "ensemble"), config=config))
    error = refused(house)
    assert "is an ensemble" in error.message
    assert error.hint == "sweep its members: cut, read"


def test_a_space_with_nothing_to_vary_is_refused_with_why(house: SweepHouse) -> None:
    error = refused(house, space={"instances": [1]})
    assert error.message.startswith("digits: there is nothing to vary. instance_group[0].count: 1, as the spec says")


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        (
            {"space": {"dynamic_batching.preserve_orderin": [True, False]}},
            "space: config path dynamic_batching.preserve_orderin leads nowhere",
            "preserve_ordering",
        ),
        (
            {"space": {"instances": {"values": [1, 2], "when": "max_batch_siz!=1"}}},
            "space.instances.when: config path max_batch_siz leads nowhere",
            "max_batch_size",
        ),
        (
            {"load": {"concurrency": 4, "rows": 500}},
            "digits: no config of its space can be tried. max_batch_size: requests of 500 rows do not fit into max_batch_size",
            "load.rows",
        ),
    ],
)
def test_what_no_config_has_or_fits_is_named(house: SweepHouse, spec: JsonObject, said: str, hint: str) -> None:
    error = refused(house, **{"defaults": True, **spec})
    assert error.message.startswith(said)
    assert hint in str(error.hint)


def test_a_space_of_more_choices_than_a_number_can_count_is_swept(house: SweepHouse) -> None:
    space: dict[str, Json] = {f'parameters["{n}"].string_value': "1:64:1" for n in range(9)}
    spec: dict[str, Json] = {"space": space, "search": {"candidates": 4}}
    sweep = house.start(**spec)
    assert sweep.space["choices"] == str(64**9)
    assert house.get(sweep).space == sweep.space


def test_a_plan_counts_its_refusals_by_reason(house: SweepHouse) -> None:
    because = house.start(space={"instances": [1, 1000], "max_batch_size": [1, 8]}).space["refused_because"]
    reason = 'parameters["intra_op_thread_count"].string_value: 1000 instances of 1 threads'
    assert isinstance(because, list)
    assert [(str(one["reason"]).startswith(reason), one["choices"]) for one in map(dict, because)] == [(True, 2)]


def test_a_plan_says_which_batches_its_load_never_fills(house: SweepHouse) -> None:
    space: JsonObject = {"max_batch_size": [1, 8, 99999], "instances": [1, 2]}
    note = "max_batch_size 99999 is never filled: the load has 8 rows in flight"
    assert note in str(house.start(space=space, load={"concurrency": "1,8"}).plan["notes"])
    assert note not in str(house.start(space=space, load={"rate": 100}).plan["notes"])


def test_a_rate_is_not_looked_for_without_a_latency_to_hold(house: SweepHouse) -> None:
    with house.storage.write() as unit:
        unit.catalog.remove_objective(MODEL, P99.name)
    assert "has no such objective" in refused(house, load={"find_rate": "10:1000"}).message
    assert house.start().load["concurrency"] == "1,4,16,64"


def test_a_version_that_does_not_exist_is_not_found(house: SweepHouse) -> None:
    with pytest.raises(NotFound, match="no version 9"):
        house.start(versions=[9])
    with pytest.raises(NotFound, match="no model 'nothing'"):
        house.sweeps.start(house["olga"], spec_from_json({"model": "nothing"}))


@pytest.mark.parametrize("bench", ["10.1.2.3:8001", "dask://elsewhere:8786"])
def test_a_worker_connects_to_no_bench_that_the_settings_do_not_name(house: SweepHouse, bench: str) -> None:
    with pytest.raises(SweepInvalid, match="not one of the benches") as error:
        house.sweeps.start(house["olga"], house.spec(), bench=bench)
    assert error.value.hint is not None
    assert "TRITONCTL_SWEEPS__BENCHES" in error.value.hint
    with pytest.raises(SweepInvalid, match="is no bench"):
        house.sweeps.start(house["olga"], house.spec(), bench="file:///etc")
    assert house.sweeps.start(house["olga"], house.spec(), bench="127.0.0.1:8001").bench == "127.0.0.1:8001"


def test_hosts_behind_a_scheduler_are_taken_for_embedded_servers(house: SweepHouse) -> None:
    """Their workers start one each; a server that stands by itself may be another one."""
    said = {
        bench: str(house.sweeps.start(house["olga"], house.spec(defaults=True), bench=bench).space["reasons"])
        for bench in ("embedded", "dask://127.0.0.1:8786", "127.0.0.1:8001")
    }
    assert said["embedded"] == said["dask://127.0.0.1:8786"]
    assert "the embedded server has none" in said["embedded"]
    assert "the embedded server" not in said["127.0.0.1:8001"]


def test_sweeps_are_listed_the_newest_first_by_pages(house: SweepHouse) -> None:
    sweeps = [house.start() for _ in range(3)]
    house.sweeps.cancel(house["olga"], sweeps[1].id)
    listed = house.sweeps.list
    assert [one.id for one in listed(house["vera"])] == [3, 2, 1]
    assert [one.id for one in listed(house["vera"], before=3, limit=1)] == [2]
    assert [one.id for one in listed(house["vera"], state=SweepState.QUEUED)] == [3, 1]
    assert listed(house["vera"], model="other") == ()
    with pytest.raises(NotFound, match="there is no sweep 9"):
        house.sweeps.get(house["vera"], 9)
    with pytest.raises(NotFound, match="has no trial 77"):
        house.sweeps.trial(house["vera"], 1, 77)


def test_a_cancelled_sweep_is_resumed_and_a_finished_one_is_not(house: SweepHouse) -> None:
    sweep = house.start()
    cancelled = house.sweeps.cancel(house["olga"], sweep.id)
    assert (cancelled.state, cancelled.message) == (SweepState.CANCELLED, "cancelled by olga")
    assert house.sweeps.cancel(house["olga"], sweep.id) == cancelled
    resumed = house.sweeps.resume(house["olga"], sweep.id)
    assert (resumed.state, resumed.finished_at, resumed.message) == (SweepState.QUEUED, None, "")
    assert house.sweeps.resume(house["olga"], sweep.id) == resumed
    with house.storage.write() as unit:
        claimed = unit.sweeps.claim("w", house.clock.now(), 30)
        assert claimed is not None
        unit.sweeps.move(sweep.id, SweepState.FINISHED)
    for act in (house.sweeps.resume, house.sweeps.cancel):
        with pytest.raises(TransitionIllegal, match="sweep 1 is finished"):
            act(house["olga"], sweep.id)
    assert house.actions(sweep) == [("olga", f"sweep.{what}") for what in ("started", "cancelled", "resumed")]


def test_a_lease_is_taken_once_and_lost_with_time_or_by_cancelling(house: SweepHouse) -> None:
    sweep = house.start()

    def claim(owner: str) -> tuple[int, int] | None:
        with house.storage.write() as unit:
            return unit.sweeps.claim(owner, house.clock.now(), 30)

    def guard(token: int) -> None:
        with house.storage.write() as unit:
            unit.sweeps.guard(sweep.id, token)

    assert claim("one") == (sweep.id, 1)
    assert house.get(sweep).state is SweepState.RUNNING
    assert claim("two") is None
    guard(1)
    house.clock.instant += timedelta(seconds=60)
    assert claim("two") == (sweep.id, 2)
    with pytest.raises(LeaseLost):
        guard(1)
    house.sweeps.cancel(house["olga"], sweep.id)
    with pytest.raises(LeaseLost):
        guard(2)
    assert claim("three") is None


def test_a_bench_measures_one_sweep_at_a_time(house: SweepHouse) -> None:
    first, second = house.start(), house.start()
    other = house.sweeps.start(house["olga"], house.spec(), bench="127.0.0.1:8001")
    claimed = []
    for _ in range(3):
        with house.storage.write() as unit:
            claimed.append(unit.sweeps.claim("w", house.clock.now(), 300))
    assert claimed == [(first.id, 1), (other.id, 1), None]
    assert house.get(second).state is SweepState.QUEUED


def test_a_block_is_kept_once(house: SweepHouse) -> None:
    """Sweep acceptance 5: none is counted twice."""
    sweep = house.start()
    trial = house.sweeps.trial(house["vera"], sweep.id, 1).trial
    order = BlockOrder(0, 0, trial.candidate, Step(Shape.RATE, "100"), 1.5, 7)
    one = Measurement(
        sweep.id,
        1,
        Stage.RACE,
        order,
        Verdict.VALID,
        (),
        NOON,
        NOON + timedelta(seconds=1.5),
        seconds=1.5,
        figures={"throughput": 99.9},
        server={"queue_ns": 2**60},
        batches={4: 12},
        fingerprint=FINGERPRINT.digest,
    )
    with house.storage.write() as unit:
        assert unit.sweeps.take(one, 1)
    with house.storage.write() as unit:
        assert not unit.sweeps.take(replace(one, figures={"throughput": 1.0}), 2)
        unit.sweeps.keep_fingerprint(FINGERPRINT)
        unit.sweeps.keep_fingerprint(FINGERPRINT)
    assert house.sweeps.measurements(house["vera"], sweep.id) == (one,)
    assert house.sweeps.measurements(house["vera"], sweep.id, trial=2) == ()
    with house.storage.read() as unit:
        assert unit.sweeps.fingerprints([one.fingerprint, "sha256:0"]) == {FINGERPRINT.digest: FINGERPRINT}
