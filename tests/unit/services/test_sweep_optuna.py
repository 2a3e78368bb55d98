# The search method optuna on surfaces whose best is known: faster than chance, within conditions and constraints, the same from the same rows.
from __future__ import annotations

import builtins
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from types import ModuleType

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Objective, Signature, TensorSpec
from controlplane.domain.config_intent import GenerateRequest
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_candidates import Candidate, candidates
from controlplane.domain.sweep_search import Figure
from controlplane.domain.sweep_space import Space, Subject, size, space_of
from controlplane.domain.sweep_spec import spec_from_json
from controlplane.domain.sweeps import Trial
from controlplane.errors import RuntimeUnavailable
from controlplane.services.sweep_optuna import Asked, Seen, next_candidates, seen
from controlplane.triton.generate import generate
from controlplane.triton.pbtxt import PbtxtCodec

CODEC = PbtxtCodec()
HOST = HostFacts(cpu_cores=64, gpus=0, memory_bytes=64 << 30)
SIGNATURE = Signature(
    (TensorSpec("x", "TYPE_FP32", ("n", 4)),), (TensorSpec("y", "TYPE_FP32", ("n", 4)),), Batching.BATCHABLE, 17, 8, "test"
)  # fmt: skip
SUBJECT = Subject("m", {1: generate(GenerateRequest("m", SIGNATURE, HOST)).config}, {1: SIGNATURE}, HOST)
THROUGHPUT = Figure("throughput", more_is_better=True)
LATENCY = Figure("latency_ms p99", more_is_better=False)
HARD = Objective("m", "quick", "latency_ms", "p99", "at_most", "10", "users", None)
LARGE: JsonObject = {
    "max_batch_size": [2, 4, 8, 16, 32, 64],
    "instances": [1, 2, 3, 4, 6, 8],
    "threads": [1, 2, 4, 8],
    "queue_delay_us": [0, 100, 500],
}
Surface = Callable[[Mapping[str, Json]], Mapping[str, float]]


def spaced(space: JsonObject) -> Space:
    return space_of(spec_from_json({"model": "m", "space": space, "defaults": False}), SUBJECT)


def hill(values: Mapping[str, Json]) -> dict[str, float]:
    """Best at batches of 16, three instances of two threads, and a delay of 100 µs."""

    def near(name: str, best: float, width: float) -> float:
        return math.exp(-((math.log((float(str(values[name])) + 1) / (best + 1)) / width) ** 2))

    rate = 1000 * near("max_batch_size", 16, 1.5) * near("instances", 3, 1.2) * near("threads", 2, 1.2)
    return {"throughput": rate * (1.0 if values["queue_delay_us"] == 100 else 0.9)}


class Search:
    """A sweep as rows alone: each batch is asked for, and measured beside the reference on a machine that drifts."""

    def __init__(self, space: Space, surface: Surface, *, seed: int = 1, hard: tuple[Objective, ...] = ()) -> None:
        self.space, self.surface, self.seed, self.hard = space, surface, seed, hard
        self.figures: tuple[Figure, ...] = (THROUGHPUT,)
        self.trials: list[Trial] = []
        self.blocks: dict[tuple[int, int], dict[str, Block]] = {}
        self.values: dict[str, JsonObject] = {}

    def ask(self, count: int) -> Asked:
        return next_candidates(
            self.space, SUBJECT, CODEC, self.trials, self.blocks,
            figures=self.figures, hard=self.hard, seed=self.seed, count=count,
        )  # fmt: skip

    def batch(self, count: int = 4) -> list[Candidate]:
        asked = self.ask(count)
        for one in asked.candidates:
            self._row(Trial(1, len(self.trials) + 1, one.digest, 1, "", one.config, one.config_digest,
                            dict(one.parameters), base=one.base))  # fmt: skip
        for refusal in asked.refusals:
            why = tuple(finding.message for finding in refusal.findings)
            self._row(Trial(1, len(self.trials) + 1, refusal.digest, 1, "", None, "", dict(refusal.parameters),
                            refused=why))  # fmt: skip
        beside, number = self.trials[0].candidate, len(self.blocks)
        drift = random.Random(f"{self.seed}:{number}").uniform(0.5, 1.0)
        for turn in range(2):
            self.blocks[number, turn] = {
                name: Block(name, turn, 1.0, {f: v * drift for f, v in self.surface(self.values[name]).items()}, 1000)
                for name in {*(one.digest for one in asked.candidates), beside}
            }
        return list(asked.candidates)

    def _row(self, one: Trial) -> None:
        self.trials.append(one)
        base = {"max_batch_size": 8, "instances": 1, "threads": 64, "queue_delay_us": 0}
        self.values[one.candidate] = {**(base if one.base else {}), **one.parameters}


def needed(search: Search, best: float) -> int:
    """Candidates until one is within 2 % of the best."""
    tried = 0
    while True:
        for one in search.batch():
            tried += 1
            if search.surface(search.values[one.digest])["throughput"] >= 0.98 * best:
                return tried


def test_the_best_of_hundreds_is_found_much_sooner_than_by_chance() -> None:
    space = spaced(LARGE)
    assert size(space, SUBJECT, CODEC) == 432
    best = hill({"max_batch_size": 16, "instances": 3, "threads": 2, "queue_delay_us": 100})["throughput"]
    there = candidates(space, SUBJECT, CODEC, seed=1, most=1000).tried
    good = [one for one in there if one.parameters and hill(dict(one.parameters))["throughput"] >= 0.98 * best]
    by_chance = (len(there) + 1) / (len(good) + 1)

    found = [needed(Search(space, hill, seed=seed), best) for seed in range(3)]

    assert len(good) <= 3
    assert median(found) < by_chance / 2


def test_the_base_config_comes_first() -> None:
    search = Search(spaced(LARGE), hill)

    first = search.batch(3)

    assert [one.base for one in first] == [True, False, False]


def test_no_candidate_is_asked_for_twice_and_a_small_space_ends() -> None:
    search = Search(spaced({"max_batch_size": [2, 4, 8, 16], "instances": [1, 2]}), lambda _: {"throughput": 1.0})

    batches = [search.batch() for _ in range(4)]

    names = [one.digest for batch in batches for one in batch]
    assert [len(batch) for batch in batches] == [4, 4, 0, 0]
    assert len(set(names)) == len(names) == 8


def test_a_value_whose_condition_does_not_hold_is_not_asked_for() -> None:
    space = spaced(
        {
            "max_batch_size": [1, 4, 16, 32, 64],
            "instances": [1, 2],
            "threads": [1, 2, 4],
            "queue_delay_us": {"values": [0, 50, 100, 500, 1000], "when": "max_batch_size!=1"},
        }
    )

    def surface(values: Mapping[str, Json]) -> dict[str, float]:
        """One row at a time is best, so that the estimator has to do with candidates that lack the delay."""
        return {"throughput": 1000 / float(str(values["max_batch_size"])) + float(str(values["instances"]))}

    search = Search(space, surface)
    tried = [one for _ in range(6) for one in search.batch(5)]

    assert len(tried) == 30
    asked = [dict(one.parameters) for one in tried if not one.base]
    assert [("queue_delay_us" in one) for one in asked] == [one["max_batch_size"] != 1 for one in asked]
    assert sum(one["max_batch_size"] == 1 for one in asked) >= 5  # of six among 126


def test_the_impossible_is_told_with_its_reason_and_avoided_from_then_on() -> None:
    search = Search(spaced({**LARGE, "threads": [1, 2, 4, 64, 128]}), lambda _: {"throughput": 1.0})
    crowded = replace(SUBJECT, host=HostFacts(cpu_cores=4, gpus=0, memory_bytes=64 << 30))

    told: list[int] = []
    for _ in range(6):
        asked = next_candidates(
            search.space, crowded, CODEC, search.trials, search.blocks,
            figures=search.figures, hard=(), seed=1, count=5,
        )  # fmt: skip
        assert len(asked.candidates) == 5
        told.append(len(asked.refusals))
        for one in asked.candidates:
            search._row(Trial(1, 0, one.digest, 1, "", one.config, "", dict(one.parameters), base=one.base))
            search.blocks[len(search.blocks), 0] = {one.digest: Block(one.digest, 0, 1.0, {"throughput": 1.0}, 9)}
        for refusal in asked.refusals:
            assert {finding.code for finding in refusal.findings} == {"sweep.crowded"}
            search._row(Trial(1, 0, refusal.digest, 1, "", None, "", dict(refusal.parameters), refused=("crowded",)))

    assert told[0] > 5  # of those drawn by chance more than half are impossible
    assert sum(told[3:]) < sum(told[:3]) / 2


def test_what_misses_a_hard_objective_is_not_searched_however_fast() -> None:
    def surface(values: Mapping[str, Json]) -> dict[str, float]:
        """The more rows the faster, and the later: p99 is 10 ms or less up to 16 rows."""
        rows = float(str(values["max_batch_size"]))
        return {"throughput": 100 * rows + float(str(values["instances"])), "latency_ms p99": rows * 0.9}

    def allowed(hard: tuple[Objective, ...]) -> int:
        search = Search(spaced(LARGE), surface, hard=hard)
        tried = [one for _ in range(12) for one in search.batch()][16:]
        return sum(surface(search.values[one.digest])["latency_ms p99"] <= 10 for one in tried)

    assert allowed(()) <= 5  # of 32
    assert allowed((HARD,)) >= 12


def test_of_two_figures_the_whole_front_is_searched() -> None:
    def surface(values: Mapping[str, Json]) -> dict[str, float]:
        """Rows trade one figure for the other; everything else is waste."""
        rows, spare = (
            float(str(values["max_batch_size"])),
            float(str(values["threads"])) * (1 if values["instances"] == 1 else 4),
        )
        return {"throughput": 100 * rows / spare, "latency_ms p99": rows * spare}

    def on_front(search: Search) -> set[int]:
        values = [search.values[one.candidate] for one in search.trials]
        return {int(str(v["max_batch_size"])) for v in values if (v["threads"], v["instances"]) == (1, 1)}

    search = Search(spaced(LARGE), surface)
    search.figures = (THROUGHPUT, LATENCY)
    for _ in range(12):
        search.batch()

    assert len(search.trials) == 48
    assert len(on_front(search)) >= 4  # of six; chance brings 2 of 48


def test_the_same_rows_ask_for_the_same_and_another_seed_for_something_else() -> None:
    def run(seed: int) -> list[str]:
        search = Search(spaced(LARGE), hill, seed=seed)
        return [one.digest for _ in range(5) for one in search.batch()]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_search_that_goes_on_from_its_rows_is_the_uninterrupted_one(killed_after: int) -> None:
    whole = Search(spaced(LARGE), hill)
    expected = [one.digest for _ in range(7) for one in whole.batch()]

    first = Search(spaced(LARGE), hill)
    before = [one.digest for _ in range(killed_after) for one in first.batch()]
    second = Search(spaced(LARGE), hill)
    second.trials, second.blocks, second.values = list(first.trials), dict(first.blocks), dict(first.values)
    after = [one.digest for _ in range(7 - killed_after) for one in second.batch()]

    assert before + after == expected


def test_what_is_still_being_measured_is_not_asked_for_again() -> None:
    search = Search(spaced(LARGE), hill)
    for _ in range(4):
        search.batch()
    under_way = search.ask(4).candidates
    for one in under_way:
        search._row(Trial(1, 0, one.digest, 1, "", one.config, "", dict(one.parameters)))

    more = search.ask(4).candidates

    assert len({one.digest for one in (*under_way, *more)}) == 8


def trial(name: str, **said: Json) -> Trial:
    return Trial(1, 0, name, 1, "", {}, "", {}, base=name == "base", failure=str(said.get("failure", "")))


def block(name: str, turn: int, seconds: float = 1.0, **figures: float) -> Block:
    return Block(name, turn, seconds, {figure.replace("_p99", "_ms p99"): v for figure, v in figures.items()}, 100)


def test_figures_of_different_rounds_are_told_by_their_ratio_to_the_reference() -> None:
    """The machine is half as fast in the second round; weights are by length."""
    turns = {
        (0, 0): {"base": block("base", 0, throughput=100.0), "a": block("a", 0, throughput=110.0)},
        (0, 1): {"base": block("base", 1, 3.0, throughput=100.0), "a": block("a", 1, 3.0, throughput=110.0)},
        (1, 0): {"base": block("base", 0, throughput=50.0), "b": block("b", 0, throughput=60.0)},
    }

    found = seen([trial("base"), trial("a"), trial("b"), trial("open")], turns, (THROUGHPUT,), ())

    assert {name: round(math.exp(one.worth[0]), 6) for name, one in found.items()} == {"base": 1.0, "a": 1.1, "b": 1.2}
    assert {one.constraints for one in found.values()} == {(0.0,)}


def test_what_cannot_be_told_is_the_worst_and_what_nobody_shows_is_left_out() -> None:
    turns = {
        (0, 0): {
            "base": block("base", 0, throughput=100.0, latency_p99=20.0),
            "a": block("a", 0, throughput=200.0, latency_p99=5.0),
            "slow": block("slow", 0, throughput=10.0),
            "dead": block("dead", 0),
        }
    }
    trials = [trial("base"), trial("a"), trial("slow"), trial("dead"), trial("gone", failure="out of memory")]
    unknown = replace(HARD, qualifier="p99.9")

    found = seen(trials, turns, (THROUGHPUT, LATENCY, Figure("accuracy", more_is_better=True)), (HARD, unknown))

    rounded = {
        name: Seen(tuple(round(v, 3) for v in one.worth), tuple(round(v, 3) for v in one.constraints))
        for name, one in found.items()
    }
    assert rounded == {
        "base": Seen((0.0, 0.0, 0.0), (0.693,)),
        "a": Seen((0.693, 1.386, 0.0), (-0.693,)),
        "slow": Seen((-2.303, 0.0, 0.0), (1.693,)),
        "dead": Seen((-2.303, 0.0, 0.0), (1.693,)),
        "gone": Seen((-2.303, 0.0, 0.0), (100.0,)),
    }


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> ModuleType:
        if name == "optuna":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(RuntimeUnavailable, match="needs the package of that name") as caught:
        Search(spaced(LARGE), hill).ask(1)
    assert caught.value.hint == "pip install 'triton-controlplane[optuna]', or use search.method racing"
