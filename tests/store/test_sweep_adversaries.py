# What is no evidence though it looks like some, and what a hostile model writes.
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import inspect

from controlplane.domain.access import SYSTEM
from controlplane.domain.audit import Action, AuditFact
from controlplane.domain.canonical import Json, digest
from controlplane.domain.sweep_rounds import Verdict
from controlplane.errors import Conflict, InvalidInput, SweepInvalid
from controlplane.services.evidence import rows_digest
from controlplane.services.sweep_evidence import SweepEvidence
from controlplane.storage.sweeps import FingerprintRow, MeasurementRow, SweepRow, TrialRow
from controlplane.storage.unit_of_work import Storage
from tests.simulated_bench import FINGERPRINT, SimulatedBench
from tests.store.clock import SteppingClock
from tests.store.sweeping import SweepHouse
from tests.store.test_sweep_evidence import ENV, Swept, swept
from tests.store.test_sweep_replays import Capsules, there

__all__ = ["swept", "there"]


def sealed(swept: Swept, *, told: bool = True) -> None:
    """As if the sweep had ended with its rows as they are; the audit log too says so if it is `told`."""
    with swept.house.storage.write() as unit:
        row = unit.session.get(SweepRow, swept.sweep.id)
        assert row is not None
        row.evidence = rows_digest(unit, swept.sweep.id)
        if told:
            details: dict[str, Json] = {"chosen": None, "evidence": row.evidence, "measurements": 0}
            unit.audit.append(AuditFact(SYSTEM, Action.SWEEP_FINISHED, {"sweep": str(swept.sweep.id)}, details))


def test_rows_whose_digest_was_taken_anew_are_not_those_of_the_audit_log(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        unit.sweeps.set_fates(swept.sweep.id, swept.chosen(), [{"look": 1, "fate": "chosen", "reason": "because"}])
    sealed(swept, told=False)
    with pytest.raises(InvalidInput, match="by the audit log: they were changed"):
        swept.propose()


def test_a_replay_is_no_evidence(there: Capsules) -> None:
    """Whoever wrote the capsule chose its load, its requests and its objectives."""
    with there.exported(there.house.get(there.house.sweeps.list(there.house["vera"])[0])) as opened:
        document = there.upload(opened.capsule)
    again = there.service.replay(there.house["olga"], document)
    there.run(SimulatedBench())
    evidence = SweepEvidence(there.house.storage, there.house.access, None)  # type: ignore[arg-type]  # it gets nowhere
    for trial in (None, 1):
        with pytest.raises(Conflict, match="is a replay"):
            evidence.propose(there.house["olga"], again.id, trial=trial, environment=ENV)


def test_a_trial_whose_requests_failed_is_no_evidence(swept: Swept) -> None:
    """Nor where no objective is there that it could miss."""
    other = 1 if swept.chosen() != 1 else 2
    with swept.house.storage.write() as unit:
        rows = unit.sweeps.measurements(swept.sweep.id, candidate=unit.sweeps.trial(swept.sweep.id, other).candidate)
        for taken in rows:
            one = replace(taken.measurement, verdict=Verdict.ERRORS, figures={})
            row = unit.session.get(MeasurementRow, (one.sweep, one.round, one.order.place))
            assert row is not None
            row.content = one.to_json()
    sealed(swept)
    with pytest.raises(Conflict, match="no block of it shows anything"):
        swept.propose(trial=other)


def test_a_trial_that_failed_in_the_end_is_not_proposed(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        row = unit.session.get(TrialRow, (swept.sweep.id, swept.chosen()))
        assert row is not None
        row.failure = "the server ended (twice)"
    sealed(swept)
    with pytest.raises(Conflict, match="the server ended"):
        swept.propose()


def test_blocks_of_an_unknown_machine_leave_the_class_untold(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        taken = unit.sweeps.measurements(
            swept.sweep.id, candidate=unit.sweeps.trial(swept.sweep.id, swept.chosen()).candidate
        )[0]
        one = replace(taken.measurement, fingerprint=f"sha256:{'0' * 64}")
        row = unit.session.get(MeasurementRow, (one.sweep, one.round, one.order.place))
        assert row is not None
        row.content = one.to_json()
    sealed(swept)
    view = swept.propose()
    assert view.plan.evidence is not None
    assert view.plan.evidence.fingerprint is None
    assert view.plan.gates[0].outcome == "inconclusive"


def test_a_fingerprint_that_was_altered_is_not_known(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        row = unit.session.get(FingerprintRow, FINGERPRINT.digest)
        assert row is not None
        row.content = replace(FINGERPRINT, commit="another").to_json()
    (gate,) = swept.propose().plan.gates
    assert gate.outcome == "inconclusive"


def test_evidence_is_as_old_as_its_first_block_and_not_of_the_future(swept: Swept) -> None:
    plan = swept.propose().plan
    rows = swept.house.sweeps.measurements(swept.house["vera"], swept.sweep.id, trial=swept.chosen())
    assert plan.evidence is not None
    assert plan.evidence.measured_at == min(one.finished_at for one in rows)
    swept.house.clock.instant = plan.evidence.measured_at - timedelta(days=1)
    (gate,) = swept.propose().plan.gates
    assert (gate.outcome, "yet to come" in gate.message) == ("failed", True)


def test_a_model_may_write_any_bytes_to_the_log(storage: Storage, clock: SteppingClock) -> None:
    """PostgreSQL has no NUL in its texts."""
    house = SweepHouse(storage, clock)
    sweep = house.start()
    with storage.write() as unit:
        one = unit.sweeps.trials(sweep.id)[0]
        unit.sweeps.set_failure(sweep.id, one.candidate, "it said \0", "\0 and more")
    (seen,) = (each.trial for each in house.sweeps.trials(house["vera"], sweep.id) if each.trial.number == one.number)
    assert (seen.failure, seen.log) == ("it said \ufffd", "\ufffd and more")


def test_the_digest_of_rows_is_that_of_what_they_say(swept: Swept) -> None:
    """It is taken in the transaction that applies a change, in which nobody else writes: of the bytes alone."""
    with swept.house.storage.read() as unit:
        digests = unit.sweeps.measurement_digests(swept.sweep.id)
        rows = [one.measurement for one in unit.sweeps.measurements(swept.sweep.id)]
        assert list(digests) == [digest(one.to_json()) for one in rows]
        assert rows_digest(unit, swept.sweep.id) == swept.sweep.evidence


@pytest.mark.parametrize("column", ["space", "load"])
def test_a_space_or_a_load_that_was_altered_is_no_evidence(swept: Swept, column: str) -> None:
    """Which files lie beside a config, and at which load it was measured, stand there."""
    with swept.house.storage.write() as unit:
        row = unit.session.get(SweepRow, swept.sweep.id)
        assert row is not None
        setattr(row, column, {**getattr(row, column), "altered": True})
    with pytest.raises(InvalidInput, match="they were changed"):
        swept.propose()


@pytest.mark.parametrize("bench", ["127.0.0.1:1", "localhost:1", "[::1]:1", "localhost:01"])
def test_a_sweep_touches_no_server_of_an_environment(swept: Swept, bench: str) -> None:
    house = swept.house
    with pytest.raises(SweepInvalid, match="is the server 'one' of the environment"):
        house.sweeps.start(house["olga"], house.spec(), bench=bench)
    assert house.sweeps.start(house["olga"], house.spec(), bench="localhost:2").bench == "localhost:2"


def test_one_bench_by_two_names_is_one_bench(storage: Storage, clock: SteppingClock) -> None:
    house = SweepHouse(storage, clock)
    first, *_ = [
        house.sweeps.start(house["olga"], house.spec(), bench=bench)
        for bench in ("localhost:9", "127.0.0.1:9", "[::1]:9")
    ]
    with storage.write() as unit:
        claimed = unit.sweeps.claim("one", clock.now(), 30)
        assert claimed is not None
        assert claimed[0] == first.id
        assert unit.sweeps.claim("two", clock.now(), 30) is None


def test_a_page_of_measurements_reads_no_others(swept: Swept) -> None:
    house, sweep = swept.house, swept.sweep.id
    whole = house.sweeps.measurements(house["vera"], sweep)
    assert house.sweeps.measurements(house["vera"], sweep, skip=3, limit=4) == whole[3:7]
    assert house.sweeps.measurements(house["vera"], sweep, skip=len(whole), limit=4) == ()
    assert {one.order.candidate for one in whole} <= house.sweeps.numbers(house["vera"], sweep).keys()
    with house.storage.write() as unit:  # a page that read it would not come
        last = unit.session.get(MeasurementRow, (sweep, whole[-1].round, whole[-1].order.place))
        assert last is not None
        last.content = {}
    assert house.sweeps.measurements(house["vera"], sweep, limit=5) == whole[:5]


def test_who_looks_for_a_sweep_that_waits_reads_none_that_is_over(storage: Storage) -> None:
    """Workers look twice a second, and a finished sweep has tens of kilobytes before its state."""
    with storage.read() as unit:
        indexes = inspect(unit.session.connection()).get_indexes("sweeps")
    assert ["state"] in [one["column_names"] for one in indexes]
