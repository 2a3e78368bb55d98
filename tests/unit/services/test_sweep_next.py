# Whole sweeps by their rows alone, on a bench that simulates: every shape of load, every method, and how often the best is found.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import pytest

from controlplane.domain.artifacts import Manifest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Objective, Signature, TensorSpec
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_answer import Conclusion, interval_of
from controlplane.domain.sweep_candidates import Candidate, Refusal, candidates
from controlplane.domain.sweep_compare import compared
from controlplane.domain.sweep_plan import groups, load_of, memory_of, plan
from controlplane.domain.sweep_rounds import Measurement, Requests, Stage, Verdict
from controlplane.domain.sweep_space import Space, Subject, space_of
from controlplane.domain.sweep_spec import Shape, spec_from_json
from controlplane.domain.sweeps import Sweep, SweepState, Taken, Trial
from controlplane.services.sweep_drafts import Material, trial_of
from controlplane.services.sweep_next import Next, more, order_of, where
from controlplane.triton.generate import generate
from controlplane.triton.pbtxt import PbtxtCodec
from tests.simulated_bench import SimulatedBench, SimulatedTime, capacity

CODEC, HOST = PbtxtCodec(), HostFacts(4, 0, 16 << 30)
WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPEC = TensorSpec("x", "TYPE_FP32", ("n", 3))
SIGNATURE = Signature((SPEC,), (TensorSpec("y", "TYPE_FP32", ("n", 3)),), Batching.BATCHABLE, 17, 8, "test")
BASE = generate(GenerateRequest("m", SIGNATURE, HOST)).config
P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
MANY = Objective("m", "many", "throughput", "", "at_least", "150", "product", None)
LARGE: Mapping[str, Json] = {
    "instances": [1, 2],
    "max_batch_size": [1, 4, 8, 16, 64],
    "queue_delay_us": [0, 100, 500, 2000],
    "threads": [1, 2],
}
SPREAD_BEST: JsonObject = {
    "instance_group": [{"count": "2"}],
    "max_batch_size": "64",
    "parameters": {"intra_op_thread_count": {"string_value": "2"}},
}
SMALL: Mapping[str, Json] = {"instances": [1, 2, 4], "max_batch_size": [1, 8], "threads": 1}


@dataclass
class Simulated:
    """A sweep without a database."""

    spec: Mapping[str, Json]
    objectives: tuple[Objective, ...] = (P99,)
    bench: SimulatedBench = field(default_factory=SimulatedBench)
    memory_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        spec = spec_from_json({"model": "m", "space": SMALL, "defaults": False, **self.spec})
        subject = Subject("m", {1: BASE}, {1: SIGNATURE}, HOST, objectives=self.objectives, sizes={1: 1 << 20})
        space, choice = space_of(spec, subject), load_of(spec.load, self.objectives)
        found = candidates(space, subject, CODEC, seed=spec.search.seed, most=spec.search.candidates)
        beside = len(groups(found.tried, subject.sizes, self.memory_bytes)[0])
        made = plan(spec.search, choice, len(found.tried), beside=beside, objectives=self.objectives)
        self.trials = [trial_of(1, n, one, "artifact") for n, one in enumerate(found.tried[: made.candidates], 1)]
        self.material = Material(
            subject,
            Space((1,), space.dimensions),
            {1: Manifest(())},
            {1: Requests("golden")},
            Manifest(()),
            self.memory_bytes,
        )
        self.sweep = Sweep(
            1,
            "m",
            spec.to_json(),
            spec.digest,
            {},
            {**choice.load.to_json(), "finds_rate": choice.finds_rate, "reason": choice.reason},
            made.to_json(),
            tuple(dict(asdict(one)) for one in self.objectives),
            SweepState.RUNNING,
            "me",
            WHEN,
            began_at=WHEN,
        )
        self.taken: list[Taken] = []
        self.bench.time = SimulatedTime(WHEN)

    def where(self, *, exhausted: bool = False) -> Next:
        return where(self.sweep, self.trials, self.taken, self.material, exhausted=exhausted)

    def run(self) -> Conclusion:
        exhausted = False
        while (now := self.where(exhausted=exhausted)).ahead is not None or now.asks:
            if now.asks:
                asked = more(now, self.material, CODEC)
                exhausted = not asked.candidates
                fresh: tuple[Candidate | Refusal, ...] = (*asked.candidates, *asked.refusals)
                self.trials += [trial_of(1, n, one, "artifact") for n, one in enumerate(fresh, len(self.trials) + 1)]
                continue
            self.measure(exhausted=exhausted)
        return now.conclusion()

    def measure(self, *, exhausted: bool = False) -> None:
        self.bench.measure(
            order_of(self.where(exhausted=exhausted), self.material),
            None,  # type: ignore[arg-type]  # nothing is fetched
            done=lambda one: self.taken.append(Taken(one, 1)),
            go_on=lambda: None,
        )

    def chosen(self, end: Conclusion) -> Trial | None:
        return next((one for one in self.trials if one.name == end.answer["chosen"]), None)

    @property
    def seconds(self) -> float:
        return (self.bench.time.now() - WHEN).total_seconds()

    @property
    def stages(self) -> list[Stage]:
        return list(dict.fromkeys(order.stage for order in self.bench.orders))


def test_with_a_latency_alone_candidates_are_raced_by_their_rate_and_it_is_confirmed() -> None:
    sweep = Simulated({})
    end = sweep.run()
    chosen = sweep.chosen(end)
    assert chosen is not None
    assert chosen.parameters == {"instances": 2, "max_batch_size": 8, "threads": 1}
    assert sweep.stages == [Stage.RACE, Stage.CONFIRM, Stage.RATE]
    assert {block.step.shape for order in sweep.bench.orders[:2] for block in order.blocks} == {Shape.FIND_RATE}
    assert {(order.percent, order.bound_ms) for order in sweep.bench.orders} == {(99.0, 10.0)}


@pytest.mark.parametrize("method", ["racing", "exhaustive"])
def test_a_rate_to_sustain_is_the_load_and_the_highest_rate_is_told_besides(method: str) -> None:
    sweep = Simulated({"search": {"method": method}}, (P99, MANY))
    end = sweep.run()
    chosen = sweep.chosen(end)
    assert chosen is not None
    assert chosen.parameters["instances"] == 2
    race = [block.step for order in sweep.bench.orders if order.stage is Stage.RACE for block in order.blocks]
    assert {(step.shape, step.text) for step in race} == {(Shape.RATE, "150")}
    findings = end.answer["findings"]
    assert isinstance(findings, Mapping)
    assert {str(one["met"]) for one in findings[chosen.name]} == {"met"}  # type: ignore[union-attr,index,call-overload]
    highest = end.answer["highest_rate"]
    assert isinstance(highest, Mapping)
    assert (
        0.85 * capacity(chosen.config or {}) < interval_of(highest["rate"]).value < 1.03 * capacity(chosen.config or {})
    )
    slow = next(one for one in sweep.trials if one.parameters == {"instances": 1, "max_batch_size": 1, "threads": 1})
    assert [str(one["fate"]) for one in end.fates[slow.number]] == ["misses a hard objective"]


def test_without_objectives_a_ladder_is_climbed_and_each_step_is_a_figure() -> None:
    sweep = Simulated({}, ())
    end = sweep.run()
    chosen = sweep.chosen(end)
    assert chosen is not None
    assert chosen.parameters == {"instances": 2, "max_batch_size": 8, "threads": 1}
    steps = [block.step.text for block in sweep.bench.orders[0].blocks[:4]]
    assert steps == ["1", "4", "16", "64"]
    figures = end.answer["figures"]
    assert isinstance(figures, Mapping)
    shown = figures[chosen.name]
    assert isinstance(shown, Mapping)
    assert sorted(shown) == [f"throughput at concurrency {side}" for side in (1, 16, 4, 64)]
    assert sweep.stages == [Stage.RACE, Stage.CONFIRM]


def test_an_objective_that_nobody_can_measure_here_is_named_and_does_not_stand_in_the_way() -> None:
    accuracy = Objective("m", "right", "accuracy", "", "at_least", "0.99", "product", None)
    end = Simulated({}, (P99, accuracy)).run()
    assert end.answer["unseen"] == ["right"]
    assert end.answer["chosen"] is not None


def test_where_no_candidate_holds_the_bound_nothing_is_chosen_and_it_is_said_why() -> None:
    impossible = Objective("m", "fast", "latency_ms", "p99", "at_most", "1", "product", None)
    end = Simulated({}, (impossible,)).run()
    assert end.answer["chosen"] is None
    assert end.message.startswith("nothing is chosen: no trial is shown to meet every hard objective. ")


def test_candidates_that_do_not_fit_into_the_memory_together_are_measured_in_groups() -> None:
    sweep = Simulated({}, memory_bytes=600 << 20)
    end = sweep.run()
    looks = [order for order in sweep.bench.orders if order.stage is Stage.RACE]
    assert len(looks) > 1
    assert sum(len(order.models) for order in looks[:4]) >= 6
    chosen = sweep.chosen(end)
    assert chosen is not None
    assert chosen.parameters["instances"] == 2


def test_where_the_time_is_short_finalists_are_measured_in_as_few_turns_as_tell_anything() -> None:
    slow = SimulatedBench(load_seconds=6.0)
    p90 = replace(P99, qualifier="p90")
    sweep = Simulated({"load": {"rate": "100"}, "search": {"seconds": 60}}, (p90,), bench=slow)
    end = sweep.run()
    turns = {one.order.turn for one in (taken.measurement for taken in sweep.taken) if one.stage is Stage.CONFIRM}
    assert turns == {0, 1, 2}
    assert end.answer["chosen"] is not None
    assert sweep.seconds <= 60


def test_all_candidates_of_a_turn_get_the_same_arrivals_and_turns_get_others() -> None:
    sweep = Simulated({})
    sweep.run()
    first = sweep.bench.orders[0]
    seeds = [{block.seed for block in first.blocks if block.turn == turn} for turn in range(3)]
    assert [len(one) for one in seeds] == [1, 1, 1]
    assert len(set.union(*seeds)) == 3


@pytest.mark.parametrize("seconds", [60, 120, 300])
def test_the_budget_is_kept_and_the_highest_rate_is_confirmed(seconds: int) -> None:
    space: Json = {"instances": [1, 2, 4], "max_batch_size": [1, 2, 4, 8], "threads": [1, 2]}
    sweep = Simulated({"space": space, "search": {"seconds": seconds}}, bench=SimulatedBench(noise=0.1))
    end = sweep.run()
    assert sweep.seconds <= seconds
    assert end.answer["chosen"] is not None


def test_where_loading_takes_most_of_the_time_the_best_seen_still_gets_its_rate_confirmed() -> None:
    space: Json = {"instances": [1, 2, 4], "max_batch_size": [1, 2, 4, 8], "threads": [1, 2]}
    sweep = Simulated({"space": space, "search": {"seconds": 180}}, bench=SimulatedBench(load_seconds=5.0))
    end = sweep.run()
    assert 120 < sweep.seconds <= 181
    assert end.answer["chosen"] is not None
    assert Stage.RATE in sweep.stages


def test_the_recommended_config_is_near_the_best_for_most_seeds() -> None:
    """Sweep acceptance 1, on a simulated bench whose best config is known, in a space of which a fifth is tried."""
    best = capacity(SPREAD_BEST)
    near = 0
    for seed in range(10):
        sweep = Simulated({"space": LARGE, "search": {"seed": seed}}, bench=SimulatedBench(noise=0.1))
        end = sweep.run()
        assert sweep.seconds <= 180
        assert len([one for one in sweep.trials if not one.refused]) < 30
        chosen = sweep.chosen(end)
        near += chosen is not None and capacity(chosen.config or {}) >= 0.95 * best
    assert near >= 9


def test_what_failed_is_not_loaded_again_beside_what_was_predicted() -> None:
    sweep = Simulated({"space": LARGE}, bench=SimulatedBench(broken={1: "it cannot be loaded"}))
    sweep.run()
    first, second = sweep.bench.orders[:2]
    broken = {one.candidate for one in sweep.trials if one.parameters.get("instances") == 1}
    assert broken & {one.candidate for one in first.models}
    later = {one.candidate for one in second.models} - {one.candidate for one in first.models}
    assert later
    assert not {one.candidate for one in second.models} & broken & {one.candidate for one in first.models}


def test_what_was_predicted_keeps_to_the_memory() -> None:
    space: Json = {
        "instances": [1, 2, 3, 4, 6, 8],
        "max_batch_size": [1, 4, 8, 16, 32],
        "queue_delay_us": [0, 100, 500],
    }
    memory = 7000 << 20
    sweep = Simulated({"space": space}, memory_bytes=memory)
    sweep.run()
    assert len(sweep.bench.orders[1].models) > 2
    for order in sweep.bench.orders:
        listed = [Candidate(one.version, one.config, one.candidate, ()) for one in order.models]
        assert sum(memory_of(one, 1 << 20) for one in listed) <= memory


def test_who_fails_by_what_it_answers_is_asked_around_alike_before_and_after_a_kill() -> None:
    """What was just measured is not written to the trials yet when they are asked by."""
    sweep = Simulated({"space": LARGE})
    sweep.measure()
    broken = {one.candidate for one in sweep.trials if one.parameters.get("max_batch_size") == 4}
    sweep.taken = [
        replace(one, measurement=replace(one.measurement, verdict=Verdict.ERRORS, failed=10**6))
        if one.measurement.order.candidate in broken
        else one
        for one in sweep.taken
    ]
    now = sweep.where()
    assert broken
    assert now.asks
    assert {one.candidate for one in now.trials if one.failure} == broken == now.failures.keys()
    asked = more(now, sweep.material, CODEC)
    sweep.trials = [replace(one, failure=now.failures.get(one.candidate, "")) for one in sweep.trials]
    assert more(sweep.where(), sweep.material, CODEC) == asked


def test_where_nothing_else_is_worth_measuring_it_is_said() -> None:
    sweep = Simulated({"space": LARGE})
    while (now := sweep.where()).ahead is not None:
        sweep.measure()
    assert now.asks
    assert sweep.where(exhausted=True).ahead is not None
    assert sweep.where(exhausted=True).raced.notes == ("only the first 19 candidates were tried: no other is worth it",)


def test_identical_candidates_are_rarely_called_different_and_slower_ones_mostly_worse() -> None:
    """Sweep acceptance 3, on a simulated bench: here 40 comparisons of each."""
    different = worse = 0
    for seed in range(40):
        sweep = Simulated({"search": {"seed": seed}}, bench=SimulatedBench(noise=0.05))
        rows = _two(sweep, seed)
        names = sorted({one.order.candidate for one in rows})
        (figure,) = compared(sweep.where().terms.asked, rows, names[0], names[1], 0.0)
        different += figure.outcome in {"better", "worse"}
        slower = [_slowed(one, 0.9) if one.order.candidate == names[1] else one for one in rows]
        (figure,) = compared(sweep.where().terms.asked, slower, names[0], names[1], 0.0)
        worse += figure.outcome == "worse"
    assert different <= 4
    assert worse >= 36


def _two(sweep: Simulated, seed: int) -> list[Measurement]:
    """Twelve turns of two candidates with one config."""

    order = order_of(sweep.where(), sweep.material)
    model, block = order.models[0], order.blocks[0]
    names = [f"sha256:{char * 64}" for char in "ab"]
    blocks = tuple(
        replace(block, place=2 * turn + place, turn=turn, candidate=name, seconds=1.0, seed=100 * seed + turn)
        for turn in range(12)
        for place, name in enumerate(names)
    )
    rows: list[Measurement] = []
    both = replace(order, models=tuple(replace(model, candidate=name) for name in names), blocks=blocks)
    sweep.bench.measure(both, None, done=rows.append, go_on=lambda: None)  # type: ignore[arg-type]
    return rows


def _slowed(one: Measurement, share: float) -> Measurement:

    return replace(one, figures={name: value * share for name, value in one.figures.items()})
