# Evidence in plans, blockers and records, on sweeps that lie in the database.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from clients.load.statistics import Interval
from controlplane.domain.audit import Action
from controlplane.domain.canonical import digest
from controlplane.domain.catalog import Objective
from controlplane.domain.changes import ChangeKind
from controlplane.domain.evidence import Evidence, objectives_digest
from controlplane.domain.fingerprints import Fingerprint, Host, Serving
from controlplane.domain.sweep_search import Finding, Met
from controlplane.domain.sweeps import Sweep, SweepState, Trial, evidence_digest
from controlplane.services.change_views import ChangeView
from controlplane.services.planning import Proposal
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock
from tests.store.house import CONFIG, ENV, MODEL, House, furnished

P99 = Objective(MODEL, "fast", "latency_ms", "p99", "at_most", "10", "product", None)
MACHINE = Fingerprint(
    Host("Xeon", 2, 2, 2000, None, 8 << 30, (), "6.1"),
    Serving("2.51.0", "sha256:b"),
    local=True,
    packages=(),
    control_plane="1",
    commit=None,
)


@pytest.fixture
def house(storage: Storage, clock: SteppingClock, tmp_path: Path) -> Iterator[House]:
    with furnished(storage, clock, tmp_path) as found:
        found.policy(approvals=0, evidence=["dig*:max_age_days=7"])
        with storage.write() as unit:
            unit.catalog.set_objective(P99)
            unit.sweeps.keep_fingerprint(MACHINE)
            (server,) = unit.environments.servers(ENV)
            unit.server_fingerprints.set(ENV, server.digest, MACHINE.digest, clock.now())
        yield found


def measured(house: House, version: int = 1) -> Evidence:
    """What a finished sweep says of the config that `House.propose` asks for."""
    desired = house.propose(version).plan.desired
    artifact, config = desired.versions[-1].artifact, digest(desired.config)
    trial = Trial(0, 1, "sha256:" + "c" * 64, version, artifact, desired.config, config, {}, base=True)
    with house.storage.write() as unit:
        sweep = unit.sweeps.add(
            Sweep(
                id=0,
                model=MODEL,
                spec={},
                spec_digest="sha256:spec",
                space={},
                load={},
                plan={},
                objectives=(),
                state=SweepState.FINISHED,
                started_by="olga",
                created_at=house.clock.now(),
                answer={"chosen": "1"},
            ),
            (trial,),
        )
        rows = evidence_digest(sweep, unit.sweeps.trials(sweep.id), ())
    return Evidence(
        sweep=sweep.id,
        trial=1,
        candidate=trial.candidate,
        version=version,
        artifact=artifact,
        config=config,
        objectives=objectives_digest([P99]),
        rows=rows,
        fingerprint=MACHINE,
        measured_at=house.clock.now(),
        figures={"latency_ms p99": Interval(8.0, 7.5, 8.5)},
        findings=(Finding("fast", Met.MET, "latency_ms p99 is 8 (7.5 to 8.5) ms, to be at most 10 ms"),),
    )


def gate(view: ChangeView) -> tuple[str, str]:
    (found,) = [gate for gate in view.plan.gates if gate.name == "evidence"]
    return found.outcome, found.message


def test_a_change_without_evidence_is_blocked_where_the_policy_asks_for_it(house: House) -> None:
    view = house.propose()
    outcome, message = gate(view)
    assert outcome == "failed"
    assert message.endswith("tritonctl sweep propose SWEEP --env production")
    assert house.blocked(view) == ["gate"]


def test_evidence_of_what_is_deployed_passes_and_is_kept_with_the_plan(house: House) -> None:
    evidence = measured(house)
    without, view = house.propose(), house.propose(evidence=evidence)
    assert gate(view)[0] == "passed"
    assert "8 (7.5 to 8.5) ms, to be at most 10 ms" in gate(view)[1]
    assert house.show(view).plan == view.plan
    assert house.show(view).plan.evidence == evidence
    assert view.plan.digest != without.plan.digest
    with house.storage.read() as unit:
        (entry,) = unit.audit.entries(subject=("change", str(view.request.id)))
    assert entry.details["evidence"] == evidence.recorded()
    assert house.apply(view).request.state.value == "applying"


def test_evidence_without_a_policy_that_asks_for_it_is_no_gate(house: House) -> None:
    house.policy(evidence=["other"])
    view = house.propose(evidence=measured(house))
    assert (view.plan.gates, view.blockers) == ((), ())


def test_what_was_passed_when_it_was_planned_is_judged_again_when_it_is_applied(house: House) -> None:
    evidence = measured(house)
    view = house.propose(evidence=evidence)
    assert view.blockers == ()
    with house.storage.write() as unit:
        unit.catalog.set_objective(replace(P99, bound="5"))
    (blocker,) = house.show(view).blockers
    assert (blocker.code, "objectives are not those" in blocker.message) == ("gate", True)
    with house.storage.write() as unit:
        unit.catalog.set_objective(P99)
    assert house.show(view).blockers == ()
    with house.storage.write() as unit:
        unit.sweeps.set_failure(evidence.sweep, evidence.candidate, "it never was loaded")
    (blocker,) = house.show(view).blockers
    assert f"the rows of sweep {evidence.sweep} were changed" in blocker.message
    assert house.blocked(view) == ["gate"]


def test_evidence_grows_too_old(house: House) -> None:
    view = house.propose(evidence=measured(house))
    house.clock.instant += timedelta(days=6, hours=23)
    assert house.show(view).blockers == ()
    house.clock.instant += timedelta(hours=1, minutes=1)
    (blocker,) = (one for one in house.show(view).blockers if one.code == "gate")
    assert "days old, and may be 7" in blocker.message


def test_a_server_of_another_machine_fails_and_one_that_nobody_looked_at_cannot_be_told(house: House) -> None:
    view = house.propose(evidence=measured(house))
    assert MACHINE.host is not None
    other = replace(MACHINE, host=replace(MACHINE.host, cpu_model="Epyc"))
    with house.storage.write() as unit:
        unit.sweeps.keep_fingerprint(other)
        (server,) = unit.environments.servers(ENV)
        unit.server_fingerprints.set(ENV, server.digest, other.digest, house.clock.now())
    (blocker,) = house.show(view).blockers
    assert "gate evidence failed" in blocker.message
    assert "processor: Xeon here, Epyc there (another class)" in blocker.message
    house.environments.change_server(house["ada"], ENV, "remote", {"address": "127.0.0.1:2"})
    (blocker,) = house.show(view).blockers
    assert "gate evidence inconclusive" in blocker.message
    assert "the machine of server remote is not known" in blocker.message
    house.policy(evidence=["dig*:max_age_days=7,inconclusive=accept"])
    again = house.changes.replan(house["olga"], view.request.id)
    assert (gate(again)[0], again.blockers) == ("inconclusive", ())
    assert gate(again)[1].endswith("; the policy accepts that")
    house.changes.apply(house["olga"], view.request.id)
    with house.storage.read() as unit:
        (begun,) = unit.audit.entries(action=Action.CHANGE_STARTED.value)
    said = begun.details["evidence"]
    assert isinstance(said, Mapping)
    assert said["outcome"] == "passed"
    assert str(said["reason"]).startswith("inconclusive, which the policy accepts: ")


def test_a_policy_that_comes_to_ask_for_evidence_asks_for_a_new_plan(house: House) -> None:
    house.policy(evidence=[])
    view = house.propose()
    assert view.blockers == ()
    house.policy(evidence=["*"])
    (blocker,) = house.show(view).blockers
    assert (blocker.code, "evidence is asked for" in blocker.message) == ("policy", True)
    assert [one.code for one in house.changes.replan(house["olga"], view.request.id).blockers] == ["gate"]


def test_a_replan_keeps_the_evidence_and_edits_drop_it(house: House) -> None:
    evidence = measured(house)
    view = house.propose(evidence=evidence)
    assert house.changes.replan(house["olga"], view.request.id).plan.evidence == evidence
    edits = Proposal(ENV, MODEL, "another", versions=(2,), config=CONFIG)
    assert house.changes.replan(house["olga"], view.request.id, edits).plan.evidence is None


def test_rollbacks_reconciliations_the_end_of_service_and_broken_glass_are_exempt_and_say_so(house: House) -> None:
    house.policy(evidence=[])
    house.deploy(1)
    house.deploy(2)
    house.policy(evidence=["*"])
    gone = house.changes.propose(house["olga"], Proposal(ENV, MODEL, "no longer needed", undeploy=True))
    assert gone.plan.gates == ()
    put_back = house.changes.propose(house["olga"], Proposal(ENV, MODEL, "drifted", reconcile=True))
    assert (put_back.request.kind, put_back.plan.gates) == (ChangeKind.RECONCILE, ())
    said = f"no evidence is asked for, though the policy asks changes of {MODEL} for it"
    assert f"{said}: it brings back what was accepted" in put_back.plan.notes
    glass = house.propose(3)
    assert house.blocked(glass) == ["gate"]
    assert house.apply(glass, by="ada", break_glass="nothing else helps").request.state.value == "applying"
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="wrong")
    assert (back.request.kind, back.plan.gates, back.blockers) == (ChangeKind.ROLLBACK, (), ())
    assert f"{said}: going back is to be fast" in back.plan.notes
