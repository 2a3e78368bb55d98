# Latency gates in plans, blockers and records.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.domain.changes import ChangeKind
from controlplane.domain.latency_gates import LatencyGate, LatencyMeasurement, LatencyOutcome, LatencySeen
from controlplane.services.planning import Proposal
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import SteppingClock
from tests.store.house import CONFIG, ENV, MODEL, House, furnished

ACCEPTING = "fast=dig*:p99<=10ms@50/s,inconclusive=accept"


@pytest.fixture
def house(storage: Storage, clock: SteppingClock, tmp_path: Path) -> Iterator[House]:
    with furnished(storage, clock, tmp_path) as found:
        found.policy(approvals=0)
        yield found


def test_a_gate_without_recorded_requests_stops_the_change_before_anything_is_touched(house: House) -> None:
    house.policy(latency_gates=["fast=dig*:p99<=10ms@50/s"])
    view = house.propose()
    (gate,) = view.plan.gates
    assert (gate.name, gate.outcome) == ("latency fast", "inconclusive")
    assert gate.message == "version 1 has no recorded inferences to send: register it with --samples"
    assert house.blocked(view) == ["gate"]


def test_a_gate_of_the_plan_is_judged_later_and_its_definition_is_approved(house: House) -> None:
    without = house.propose()
    house.policy(latency_gates=[ACCEPTING, "other=resnet*:p50<=5ms@100/s"])
    view = house.propose()
    assert [(gate.name, gate.outcome) for gate in view.plan.gates] == [("latency fast", "later")]
    assert "p99 <= 10 ms at 50/s: measured for 10 s to 60 s after the load" in view.plan.gates[0].message
    assert view.plan.clauses["latency_gates"][0] == LatencyGate.from_json(ACCEPTING).to_json()  # type: ignore[index]
    assert view.plan.digest != without.plan.digest
    assert house.blocked(without) == ["policy"]
    assert house.apply(view).request.state.value == "applying"


def test_a_gate_that_became_stricter_asks_for_a_new_plan(house: House) -> None:
    house.policy(latency_gates=[ACCEPTING])
    view = house.propose()
    house.policy(latency_gates=[ACCEPTING, "other=resnet*:p50<=5ms@100/s"])
    assert house.show(view).blockers == ()
    house.policy(latency_gates=[ACCEPTING.replace("10ms", "5ms")])
    (blocker,) = house.show(view).blockers
    assert blocker.code == "policy"
    assert "latency gate fast went from p99 <= 10 ms at 50/s to p99 <= 5 ms at 50/s" in blocker.message
    again = house.changes.replan(house["olga"], view.request.id)
    assert again.blockers == ()
    house.policy(latency_gates=[])
    assert house.show(view).blockers == ()


def test_rollbacks_and_the_end_of_service_are_not_gated(house: House) -> None:
    house.deploy(1)
    house.deploy(2)
    house.policy(latency_gates=["fast=dig*:p99<=10ms@50/s"])
    gone = house.changes.propose(house["olga"], Proposal(ENV, MODEL, "no longer needed", undeploy=True))
    assert gone.plan.gates == ()
    back = house.changes.rollback(house["olga"], ENV, MODEL, to=1, reason="wrong")
    assert (back.request.kind, back.plan.gates, back.blockers) == (ChangeKind.ROLLBACK, (), ())
    assert "no latency gate holds it up (fast): going back is to be fast" in back.plan.notes


def test_measurements_stay_with_their_change_in_order(house: House) -> None:
    first, second = house.propose(1), house.propose(2, config=CONFIG)
    gate = LatencyGate.from_json(ACCEPTING).to_json()
    wanted = tuple(
        LatencyMeasurement(
            change=second.request.id,
            server="remote",
            version=2,
            gate=gate,
            outcome=outcome,
            reason=f"p99 is {number} ms",
            seen=LatencySeen("valid", value=number / 1000).to_json(),
            started_at=house.clock.now(),
            finished_at=house.clock.now(),
        )
        for number, outcome in enumerate(LatencyOutcome)
    )
    with house.storage.write() as unit:
        for measurement in wanted:
            unit.latency.add(measurement)
    assert house.show(second).latency == wanted
    assert house.show(first).latency == ()
