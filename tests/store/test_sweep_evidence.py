# From a finished sweep to a change that carries it as evidence. (sweep acceptance 9, its services)
from __future__ import annotations

from dataclasses import dataclass

import pytest

from controlplane.domain.canonical import digest
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_search import Met
from controlplane.domain.sweeps import Sweep, SweepState
from controlplane.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from controlplane.services.change_views import ChangeView
from controlplane.services.changes import ChangeService
from controlplane.services.environments import EnvironmentService
from controlplane.services.sweep_evidence import SweepEvidence
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from controlplane.wiring import build_planner
from tests.simulated_bench import FINGERPRINT, SimulatedBench
from tests.store.clock import SteppingClock
from tests.store.sweeping import P99, SweepHouse

ENV = "production"


@dataclass
class Swept:
    """A house with an environment, in which a sweep was measured to its end."""

    house: SweepHouse
    sweep: Sweep

    def __post_init__(self) -> None:
        house = self.house
        self.environments = EnvironmentService(house.storage, house.access, house.clock)
        self.changes = ChangeService(house.storage, house.access, build_planner(house.storage), house.clock)
        self.evidence = SweepEvidence(house.storage, house.access, self.changes)
        self.environments.create(house["ada"], ENV, "", {"approvals": 0, "evidence": ["*"]})
        self.environments.add_server(house["ada"], ENV, "one", "127.0.0.1:1", "/nowhere/models")
        with house.storage.write() as unit:
            (server,) = unit.environments.servers(ENV)
            unit.server_fingerprints.set(ENV, server.digest, FINGERPRINT.digest, house.clock.now())

    def propose(
        self, *, by: str = "olga", trial: int | None = None, acknowledge: tuple[str, ...] = (), **said: str
    ) -> ChangeView:
        return self.evidence.propose(
            self.house[by], self.sweep.id, trial=trial, environment=ENV, acknowledge=acknowledge, **said
        )

    def chosen(self) -> int:
        assert self.sweep.answer is not None
        return int(str(self.sweep.answer["chosen"]).partition(".")[2])


@pytest.fixture
def swept(storage: Storage, clock: SteppingClock, store: ObjectArtifactStore) -> Swept:
    house = SweepHouse(storage, clock)
    sweep, bench = house.start(space={"instances": [1, 2, 4]}), SimulatedBench(broken={4: "too many"})
    bench.time.instant = clock.now()
    runner = SweepRunner(
        storage, clock, bench.open, store, house.codec, name="one", lease_seconds=30, turns=Turns(), poll_seconds=0.01
    )
    assert runner.once()
    clock.instant = max(clock.instant, bench.time.instant)
    return Swept(house, house.get(sweep))


def test_the_chosen_trial_becomes_an_ordinary_change_that_the_gate_passes(swept: Swept) -> None:
    view = swept.propose()
    plan, answer = view.plan, swept.sweep.answer
    assert answer is not None
    assert plan.evidence is not None
    assert (plan.evidence.sweep, plan.evidence.trial) == (swept.sweep.id, swept.chosen())
    assert plan.evidence.rows == swept.sweep.evidence
    assert plan.evidence.config == digest(plan.desired.config)
    assert plan.evidence.artifact == plan.desired.versions[-1].artifact
    assert plan.evidence.fingerprint == FINGERPRINT
    assert [(one.objective, one.met) for one in plan.evidence.findings] == [("fast", Met.MET)]
    ((gate),) = plan.gates
    assert (gate.name, gate.outcome) == ("evidence", "passed")
    assert "to be at most 10 ms" in gate.message
    assert "; load: no objective names a rate, so the highest one is looked for" in gate.message
    assert view.blockers == ()
    assert view.request.reason.startswith(f"sweep {swept.sweep.id}: trial {plan.evidence.name}: ")
    assert view.request.reason.count(f"trial {plan.evidence.name}") == 1
    assert view.request.hypothesis.startswith(str(answer["reason"]))
    assert "sustainable_rate" in view.request.expected_effect
    assert swept.changes.apply(swept.house["olga"], view.request.id).request.state.value == "applying"


def test_what_is_said_in_words_is_taken_as_it_is(swept: Swept) -> None:
    request = swept.propose(reason="r", hypothesis="h", expected_effect="e").request
    assert (request.reason, request.hypothesis, request.expected_effect) == ("r", "h", "e")


def test_what_was_rolled_back_may_be_proposed_again_with_its_evidence(swept: Swept) -> None:
    made = swept.propose(acknowledge=("rolled_back",))
    assert made.plan.acknowledged == ("rolled_back",)
    assert made.plan.evidence is not None


def test_another_trial_may_be_proposed_and_its_evidence_says_what_it_cannot(swept: Swept) -> None:
    trials = {one.trial.number: one.trial for one in swept.house.sweeps.trials(swept.house["vera"], swept.sweep.id)}
    other = next(n for n, one in trials.items() if n != swept.chosen() and not one.failure)
    view = swept.propose(trial=other)
    (gate,) = view.plan.gates
    assert gate.outcome == "inconclusive"
    assert "the sweep did not measure the trial again at its end" in gate.message
    chosen = f"trial {swept.sweep.id}.{swept.chosen()}"
    assert view.request.reason == f"trial {swept.sweep.id}.{other} of sweep {swept.sweep.id}, which chose {chosen}"
    assert chosen not in view.request.hypothesis.partition(":")[0]
    assert [one.code for one in view.blockers] == ["gate"]


def test_a_trial_that_the_race_shows_to_miss_a_bound_says_so_as_evidence(
    swept: Swept, store: ObjectArtifactStore
) -> None:
    house = swept.house
    with house.storage.write() as unit:
        unit.catalog.remove_objective(P99.model, P99.name)
        unit.catalog.set_objective(Objective(P99.model, "much", "throughput", "", "at_least", "90000", "product", None))
    sweep, bench = house.start(load={"concurrency": 4}), SimulatedBench()
    bench.time.instant = house.clock.now()
    runner = SweepRunner(
        house.storage,
        house.clock,
        bench.open,
        store,
        house.codec,
        name="two",
        lease_seconds=30,
        turns=Turns(),
        poll_seconds=0.01,
    )
    assert runner.once()
    house.clock.instant = max(house.clock.instant, bench.time.instant)
    swept.sweep = house.get(sweep)
    assert swept.sweep.answer is not None
    assert swept.sweep.answer["chosen"] is None
    view = swept.propose(trial=1)
    (gate,) = view.plan.gates
    assert (gate.outcome, "to be at least 90000" in gate.message) == ("failed", True)
    assert view.request.reason == f"trial {sweep.id}.1 of sweep {sweep.id}, which chose none"


def test_a_trial_that_could_not_be_measured_is_not_proposed(swept: Swept) -> None:
    trials = [one.trial for one in swept.house.sweeps.trials(swept.house["vera"], swept.sweep.id)]
    broken = next(one for one in trials if one.failure)
    with pytest.raises(Conflict, match="cannot be proposed: too many"):
        swept.propose(trial=broken.number)
    with pytest.raises(NotFound, match="has no trial 99"):
        swept.propose(trial=99)


def test_a_sweep_without_an_answer_is_not_proposed(swept: Swept) -> None:
    house, swept.sweep = swept.house, swept.house.start()
    with pytest.raises(Conflict, match="is queued: there is no answer to propose"):
        swept.propose()
    swept.sweep = house.sweeps.cancel(house["olga"], swept.sweep.id)
    assert swept.sweep.state is SweepState.CANCELLED
    with pytest.raises(Conflict, match="is cancelled"):
        swept.propose(trial=1)


def test_rows_that_were_changed_after_the_end_are_no_evidence(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        unit.sweeps.set_fates(swept.sweep.id, swept.chosen(), [{"look": 1, "fate": "chosen", "reason": "because"}])
    with pytest.raises(InvalidInput, match="they were changed"):
        swept.propose()


def test_objectives_that_changed_since_are_named_when_it_is_proposed(swept: Swept) -> None:
    with swept.house.storage.write() as unit:
        unit.catalog.remove_objective(P99.model, P99.name)
    (gate,) = swept.propose().plan.gates
    assert (gate.outcome, "objectives are not those" in gate.message) == ("failed", True)


def test_who_may_not_propose_a_change_may_not_propose_a_trial(swept: Swept) -> None:
    with pytest.raises(PermissionDenied):
        swept.propose(by="vera")
