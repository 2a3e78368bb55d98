# Sweeps as the worker serves them, on a bench that simulates: answers, kills, cancels, failing candidates, time.
from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_answer import interval_of
from controlplane.domain.sweep_figures import OVERTIME
from controlplane.domain.sweep_rounds import Measurement, Stage
from controlplane.domain.sweeps import Sweep, SweepState, Trial, evidence_digest
from controlplane.errors import ServerUnreachable
from controlplane.services.sweep_runner import SweepRunner
from controlplane.services.turns import Turns
from controlplane.storage.artifacts import ObjectArtifactStore
from controlplane.storage.unit_of_work import Storage
from tests.simulated_bench import FINGERPRINT, Killed, SimulatedBench, SimulatedTime, capacity
from tests.store.clock import SteppingClock
from tests.store.sweeping import SweepHouse

Run = Callable[..., SweepRunner]


@pytest.fixture
def house(storage: Storage, clock: SteppingClock) -> SweepHouse:
    return SweepHouse(storage, clock)


@pytest.fixture
def runner(house: SweepHouse, store: ObjectArtifactStore) -> Run:
    def make(bench: SimulatedBench, name: str = "one", turns: Turns | None = None) -> SweepRunner:
        bench.time.instant = max(bench.time.instant, house.clock.now())
        return SweepRunner(
            house.storage,
            house.clock,
            bench.open,
            store,
            house.codec,
            name=name,
            lease_seconds=30,
            turns=turns or Turns(),
            poll_seconds=0.01,
        )

    return make


def trials(house: SweepHouse, sweep: Sweep) -> list[Trial]:
    return [one.trial for one in house.sweeps.trials(house["vera"], sweep.id)]


def rows(house: SweepHouse, sweep: Sweep) -> tuple[Measurement, ...]:
    return house.sweeps.measurements(house["vera"], sweep.id)


def shown(measurements: tuple[Measurement, ...]) -> list[object]:
    """What does not depend on when they were made."""
    return [(one.round, one.stage, one.order, dict(one.figures), one.verdict) for one in measurements]


def test_a_sweep_ends_with_the_best_config_its_highest_rate_and_the_reason(house: SweepHouse, runner: Run) -> None:
    sweep, bench = house.start(), SimulatedBench()
    assert runner(bench).once()
    found = house.get(sweep)
    assert found.state is SweepState.FINISHED
    assert found.answer is not None
    chosen = next(one for one in trials(house, sweep) if one.name == found.answer["chosen"])
    assert chosen.parameters == {"instances": 2, "max_batch_size": 8}
    highest = found.answer["highest_rate"]
    assert isinstance(highest, dict)
    assert (highest["objective"], highest["confirmed"]) == ("fast", True)
    rate = interval_of(highest["rate"])
    value, low, high = rate.value, rate.low, rate.high
    assert 0.85 * 304 < low == value < 1.02 * 304
    assert 304 < high < 1.1 * 304
    assert found.message == f"trial {chosen.name}: {value:g} requests a second at p99 <= 10 ms"
    because = str(found.answer["because"])
    assert "instances 2 instead of 4 (trial 1.3): sustainable_rate" in because
    assert f"at {value:g} requests a second: queue" in because
    assert all(one.fates for one in trials(house, sweep))
    assert "dominated by trial" in str(trials(house, sweep)[0].fates[-1]["reason"])
    assert found.progress["done"] == found.progress["ordered"] == len(rows(house, sweep))
    assert house.actions(sweep) == [("olga", "sweep.started"), ("system", "sweep.finished")]
    assert found.evidence == evidence_digest(found, tuple(trials(house, sweep)), rows(house, sweep))
    with house.storage.read() as unit:
        assert unit.sweeps.fingerprints([FINGERPRINT.digest]) == {FINGERPRINT.digest: FINGERPRINT}
    assert not runner(bench).once()


def test_the_same_spec_and_seed_give_the_same_orders_and_the_same_answer(house: SweepHouse, runner: Run) -> None:
    """Sweep acceptance 4, where the machine answers the same."""
    first, second = house.start(), house.start()
    benches = [SimulatedBench(), SimulatedBench()]
    for bench in benches:
        runner(bench).once()
    told = [[(o.number, o.stage, o.models, o.blocks, o.requests) for o in bench.orders] for bench in benches]
    assert told[0] == told[1]
    assert shown(rows(house, first)) == shown(rows(house, second))
    chosen = [str(found.answer["chosen"]) for one in (first, second) if (found := house.get(one)).answer]
    assert [name.partition(".")[2] for name in chosen] == ["5", "5"]


@pytest.mark.parametrize("told", [False, True], ids=["before it is kept", "after it is kept"])
def test_a_sweep_that_is_killed_at_every_block_loses_none_and_counts_none_twice(
    house: SweepHouse, runner: Run, *, told: bool
) -> None:
    """Sweep acceptance 5, between any two blocks: the rows are those of a sweep that nobody killed."""
    spec: JsonObject = {"space": {"instances": [1, 2]}, "search": {"seconds": 120}}
    undisturbed = house.start(**spec)
    runner(SimulatedBench()).once()
    killed = house.start(**spec)
    bench, kills = SimulatedBench(told=told), 0
    while house.get(killed).state is not SweepState.FINISHED:
        # one block gets through where it is lost, none after the one that is told
        bench.kill_after = bench.measured + (0 if told else 1)
        before = len(rows(house, killed))
        try:
            runner(bench, f"w{kills}").once()
        except Killed:
            kills += 1
            assert len(rows(house, killed)) == before + 1
    assert kills >= len(rows(house, killed)) - 1 > 10
    assert shown(rows(house, killed)) == shown(rows(house, undisturbed))
    ends = [house.get(one).answer for one in (undisturbed, killed)]
    assert [str(one["chosen"]).partition(".")[2] for one in ends if one] == ["2", "2"]
    first, second = (one["highest_rate"] for one in ends if one)
    assert first == second


def test_a_kill_after_a_block_loses_no_fingerprint(house: SweepHouse, runner: Run) -> None:
    """Whoever goes on may be another machine, and a round that was not ended tells nothing of this one."""
    house.start(load={"concurrency": 4}, space={"instances": [1, 2]})
    with pytest.raises(Killed):
        runner(SimulatedBench(kill_after=0, told=True)).once()
    with house.storage.read() as unit:
        assert unit.sweeps.fingerprints([FINGERPRINT.digest]) == {FINGERPRINT.digest: FINGERPRINT}


def test_a_sweep_that_was_cancelled_in_the_middle_goes_on_where_it_was(house: SweepHouse, runner: Run) -> None:
    sweep = house.start()
    bench = SimulatedBench()

    def cancel(_: Measurement) -> None:
        if bench.measured == 7:
            house.sweeps.cancel(house["olga"], sweep.id)

    bench.between = cancel
    assert runner(bench).once()
    assert house.get(sweep).state is SweepState.CANCELLED
    assert len(rows(house, sweep)) == 7
    assert not runner(bench).once()
    bench.between = None
    house.sweeps.resume(house["olga"], sweep.id)
    assert runner(bench).once()
    assert house.get(sweep).state is SweepState.FINISHED
    again = [order for order in bench.orders if order.number == 1]
    assert [len(order.blocks) for order in again] == [18, 11]
    actions = [what for _, what in house.actions(sweep)]
    assert actions == ["sweep.started", "sweep.cancelled", "sweep.resumed", "sweep.finished"]


def test_a_worker_that_stops_leaves_the_sweep_running_for_the_next(house: SweepHouse, runner: Run) -> None:
    sweep, bench, stop = house.start(), SimulatedBench(), threading.Event()
    bench.between = lambda _: stop.set() if bench.measured == 5 else None
    runner(bench).run(stop)
    assert house.get(sweep).state is SweepState.RUNNING
    assert len(rows(house, sweep)) == 5
    bench.between = None
    assert runner(bench, "two").once()
    assert house.get(sweep).state is SweepState.FINISHED
    assert (bench.opened, [what for _, what in house.actions(sweep)]) == (2, ["sweep.started", "sweep.finished"])


def test_a_worker_that_hangs_is_overtaken_and_saves_nothing_any_more(house: SweepHouse, runner: Run) -> None:
    sweep, bench, other = house.start(), SimulatedBench(), SimulatedBench()

    def overtake(_: Measurement) -> None:
        if bench.measured == 5:
            house.clock.instant += timedelta(seconds=60)
            other.time.instant = bench.time.now() + timedelta(seconds=60)
            assert runner(other, "two").once()

    bench.between = overtake
    assert runner(bench).once()
    assert house.get(sweep).state is SweepState.FINISHED
    assert bench.measured == 5
    assert len(rows(house, sweep)) == 5 + other.measured


def test_what_takes_its_worker_down_each_time_ends_after_three(house: SweepHouse, runner: Run) -> None:
    sweep, bench = house.start(), SimulatedBench(kill_after=0)
    for _ in range(3):
        with pytest.raises(Killed):
            runner(bench).once()
    assert house.get(sweep).state is SweepState.RUNNING
    assert runner(bench).once()
    found = house.get(sweep)
    assert found.state is SweepState.FAILED
    assert found.message.startswith("3 workers ended in the middle of sweep 1, one after the other")
    house.sweeps.resume(house["olga"], sweep.id)
    bench.kill_after = None
    assert runner(bench).once()
    assert house.get(sweep).state is SweepState.FINISHED


def test_what_passed_before_anything_was_measured_is_not_charged_to_who_goes_on(house: SweepHouse, runner: Run) -> None:
    sweep, bench = house.start(search={"seconds": 60}), SimulatedBench(kill_after=0)
    with pytest.raises(Killed):
        runner(bench).once()
    first = house.get(sweep).began_at
    assert first is not None
    house.clock.instant += timedelta(minutes=5)
    bench.kill_after = bench.measured + 3
    with pytest.raises(Killed):
        runner(bench).once()
    began = house.get(sweep).began_at
    assert began is not None
    assert began - first >= timedelta(minutes=5)
    house.clock.instant += timedelta(minutes=5)
    bench.kill_after = None
    assert runner(bench).once()
    found = house.get(sweep)
    assert found.began_at == began
    assert found.answer is not None
    assert found.answer["chosen"] is not None


def test_candidates_that_cannot_be_loaded_are_rows_with_reason_and_log(house: SweepHouse, runner: Run) -> None:
    """Sweep acceptance 6: the sweep goes on."""
    sweep = house.start()
    runner(SimulatedBench(broken={2: "out of memory: killed by the kernel"})).once()
    found = house.get(sweep)
    assert found.state is SweepState.FINISHED
    broken = [one for one in trials(house, sweep) if one.parameters["instances"] == 2]
    assert len(broken) == 2
    for one in broken:
        assert (one.failure, one.log) == (
            "out of memory: killed by the kernel",
            "log of out of memory: killed by the kernel",
        )
        assert one.fates[-1]["fate"] == "failed"
    assert found.answer is not None
    chosen = next(one for one in trials(house, sweep) if one.name == found.answer["chosen"])
    assert chosen.parameters == {"instances": 4, "max_batch_size": 8}


def test_where_no_candidate_can_be_loaded_nothing_is_chosen(house: SweepHouse, runner: Run) -> None:
    sweep = house.start()
    runner(SimulatedBench(broken=dict.fromkeys((1, 2, 4), "no such backend"))).once()
    found = house.get(sweep)
    assert found.state is SweepState.FINISHED
    assert found.answer is not None
    assert found.answer["chosen"] is None
    assert {one.failure for one in trials(house, sweep)} == {"no such backend"}


def test_a_bench_that_is_gone_fails_the_sweep_which_can_be_resumed(house: SweepHouse, runner: Run) -> None:
    sweep, bench = house.start(), SimulatedBench()

    def go(_: Measurement) -> None:
        if bench.measured == 4:
            raise ServerUnreachable("no bench server can be reached at 127.0.0.1:1", hint="see that it runs")

    bench.between = go
    runner(bench).once()
    found = house.get(sweep)
    assert (found.state, found.message) == (
        SweepState.FAILED,
        "no bench server can be reached at 127.0.0.1:1; see that it runs",
    )
    bench.between = None
    house.sweeps.resume(house["olga"], sweep.id)
    runner(bench).once()
    assert house.get(sweep).state is SweepState.FINISHED
    actions = [what for _, what in house.actions(sweep)]
    assert actions == ["sweep.started", "sweep.failed", "sweep.resumed", "sweep.finished"]


@pytest.mark.parametrize("load_seconds", [0.5, 4.0])
def test_the_time_budget_is_kept_though_nothing_is_dropped(house: SweepHouse, runner: Run, load_seconds: float) -> None:
    """The plan expects half of the candidates to go in each round; here noise hides all differences."""
    space: JsonObject = {"instances": [1, 2, 4], "max_batch_size": [1, 2, 4, 8], "queue_delay_us": [0, 100]}
    sweep = house.start(space=space, search={"seconds": 180})
    bench = SimulatedBench(noise=0.5, load_seconds=load_seconds)
    bench.time = SimulatedTime(house.clock.now())
    runner(bench).once()
    found = house.get(sweep)
    assert found.began_at is not None
    assert (bench.time.now() - found.began_at).total_seconds() <= 180
    short = ("the time suffices for", "look 1 is the last")
    assert any(words in str(one.fates) for one in trials(house, sweep) for words in short)
    assert {one.stage for one in rows(house, sweep)} == set(Stage) - {Stage.COMPARE}


def test_a_round_that_takes_far_too_long_is_given_up_and_the_best_seen_gets_its_rate(
    house: SweepHouse, runner: Run
) -> None:
    """As where a server is started again and again, and loads all candidates each time."""
    sweep, bench = house.start(), SimulatedBench()
    bench.between = lambda _: bench.time.spend(12 if 4 < bench.measured < 14 else 0)
    slow = runner(bench)
    slow._monotonic = lambda: bench.time.now().timestamp()
    slow.once()
    found = house.get(sweep)
    assert found.state is SweepState.FINISHED
    given_up = [one for one in rows(house, sweep) if one.reasons == (OVERTIME,)]
    assert 1 < len(given_up) < 14
    assert not any(one.failure for one in trials(house, sweep))
    assert found.began_at is not None
    assert (bench.time.now() - found.began_at).total_seconds() <= 185
    assert found.answer is not None
    assert found.answer["highest_rate"] is not None


def test_a_latency_gate_gets_its_turn_between_two_blocks(house: SweepHouse, runner: Run) -> None:
    house.start()
    turns, bench = Turns(), SimulatedBench()
    waited: list[int] = []

    def gate() -> None:
        assert turns.acquire(90)
        waited.append(bench.measured)
        turns.release()

    thread = threading.Thread(target=gate)

    def ask(_: Measurement) -> None:
        if bench.measured == 3:
            thread.start()
            while not turns.wanted:
                pass

    bench.between = ask
    runner(bench, turns=turns).once()
    thread.join(90)
    assert waited == [3]  # while the fourth is told
    assert not turns.wanted


def test_two_trials_are_compared_by_the_turns_that_both_were_in(house: SweepHouse, runner: Run) -> None:
    sweep = house.start()
    runner(SimulatedBench()).once()
    by_instances = {(t.parameters["instances"], t.parameters["max_batch_size"]): t.number for t in trials(house, sweep)}
    best, next_best = by_instances[2, 8], by_instances[4, 8]
    found = house.sweeps.compare(house["vera"], sweep.id, best, next_best)
    (figure,) = found.figures
    assert (found.one.number, found.other.number, found.margin) == (best, next_best, 0.05)
    assert (figure.name, figure.outcome) == ("sustainable_rate", "worse")
    assert figure.pairs >= 6
    assert figure.ratio.low < 170 / 190 < figure.ratio.high
    (turned,) = house.sweeps.compare(house["vera"], sweep.id, next_best, best).figures
    assert turned.outcome == "better"


def test_optuna_asks_for_candidates_until_enough_are_measured(house: SweepHouse, runner: Run) -> None:
    space: JsonObject = {"instances": [1, 2, 4], "max_batch_size": [1, 2, 4, 8], "queue_delay_us": [0, 100, 500]}
    spec: JsonObject = {"space": space, "search": {"method": "optuna", "candidates": 14, "seconds": 700}}
    sweep, bench = house.start(**spec), SimulatedBench()
    assert [one.base for one in trials(house, sweep) if not one.refused] == [True]
    runner(bench).once()
    found = house.get(sweep)
    assert (found.state, found.message[:6]) == (SweepState.FINISHED, "trial ")
    tried = [one for one in trials(house, sweep) if not one.refused]
    assert len(tried) == 14
    batches = [order for order in bench.orders if order.stage is Stage.RACE]
    assert [len(order.models) for order in batches] == [1, 5, 5, 5, 2]
    reference = tried[0].candidate
    assert all(reference in {model.candidate for model in order.models} for order in batches)
    assert found.answer is not None
    chosen = next(one for one in tried if one.name == found.answer["chosen"])
    assert capacity(chosen.config or {}) >= 0.95 * max(capacity(one.config or {}) for one in tried)


@pytest.mark.parametrize("dies_after", [0, 25, 40])
def test_optuna_goes_on_without_the_base_config_and_measures_no_round_again(
    house: SweepHouse, runner: Run, dies_after: int
) -> None:
    """All with one instance are gone from that block on, the reference of all rounds before among them."""
    space: JsonObject = {"instances": [1, 2, 4], "max_batch_size": [1, 2, 4, 8], "queue_delay_us": [0, 100, 500]}
    spec: JsonObject = {"space": space, "search": {"method": "optuna", "candidates": 14, "seconds": 700}}
    sweep, bench = house.start(**spec), SimulatedBench(broken={} if dies_after else {1: "it died"})

    def die(_: Measurement) -> None:
        if bench.measured >= dies_after:
            bench.broken = {1: "it died"}

    bench.between = die
    runner(bench).once()

    assert house.get(sweep).state is SweepState.FINISHED
    assert [order.number for order in bench.orders] == list(range(1, len(bench.orders) + 1))
    batches = [order for order in bench.orders if order.stage is Stage.RACE]
    base = trials(house, sweep)[0]
    assert base.failure == "it died"
    assert len(batches) > 3
    assert base.candidate not in {model.candidate for model in batches[-1].models}
