# Why a config does better than its neighbours, in words with numbers that the rows hold.
from __future__ import annotations

from datetime import UTC, datetime

from controlplane.domain.canonical import JsonObject
from controlplane.domain.sweep_figures import asked
from controlplane.domain.sweep_reasons import reasons, shares_of
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweeps import Trial

WHEN = datetime(2026, 11, 22, tzinfo=UTC)
ASKED = asked({"concurrency": "8", "process": "poisson", "rows": 1, "finds_rate": False}, [], 0.05, 1.0)


def trial(number: int, version: int = 1, **parameters: int) -> Trial:
    found: JsonObject = dict(parameters)
    return Trial(7, number, f"sha256:{number:064x}", version, "artifact", {}, "digest", found)


def blocks(
    one: Trial, rate: float, queue_ms: float, compute_ms: float, *, turns: int = 4, first: int = 0
) -> list[Measurement]:
    """Each of a hundred answers; the rate wobbles by one percent."""
    server = {
        "succeeded": 100,
        "total_ns": round((queue_ms + compute_ms) * 1e8),
        "queue_ns": round(queue_ms * 1e8),
        "infer_ns": round(compute_ms * 1e8),
    }
    return [
        Measurement(
            7,
            1 + first,
            Stage.RACE,
            BlockOrder(turn, turn, one.candidate, Step(Shape.CONCURRENCY, "8"), 1.0, 1),
            Verdict.VALID,
            (),
            WHEN,
            WHEN,
            seconds=1.0,
            completed=100,
            figures={"throughput": rate * (1 + 0.01 * (turn % 2))},
            server=server,
            batches={4: 25},
        )
        for turn in range(turns)
    ]


def test_shares_are_of_all_blocks_together() -> None:
    one = trial(1)
    shares = shares_of([*blocks(one, 1, 6, 4, turns=1), *blocks(one, 1, 2, 8, turns=1)])
    assert shares is not None
    assert (
        shares.words
        == "queue 40 % and compute with input and output 60 % of 10 ms in the server; 4 requests in a batch"
    )
    assert shares_of([]) is None


def test_each_neighbour_differs_in_one_parameter_and_the_largest_difference_comes_first() -> None:
    best, fewer, more = trial(1, instances=2, rows=8), trial(2, instances=1, rows=8), trial(3, instances=4, rows=8)
    other, older = trial(4, instances=1, rows=1), trial(5, version=2, instances=2, rows=8)
    rows = [
        *blocks(best, 190, 2, 4),
        *blocks(fewer, 100, 8, 4),
        *blocks(more, 180, 1, 8),
        *blocks(other, 50, 9, 2),
        *blocks(older, 120, 3, 6),
    ]
    said = reasons(ASKED, [best, fewer, more, other, older], rows, best)
    assert [line.partition(":")[0] for line in said] == [
        "instances 2 instead of 1 (trial 7.2)",
        "version 1 instead of 2 (trial 7.5)",
        "instances 2 instead of 4 (trial 7.3)",
    ]
    assert "throughput 1.9 times as good (1.9 to 1.9" in said[0]
    assert "queue 67 % → 33 %" in said[0]
    assert "requests wait less (8 → 2 ms)" in said[0]
    assert "compute is shorter with the cores to itself" in said[2]


def test_a_neighbour_that_was_never_measured_beside_it_tells_nothing() -> None:
    best, alone = trial(1, instances=2), trial(2, instances=1)
    rows = [*blocks(best, 190, 2, 4), *blocks(alone, 100, 8, 4, first=1)]
    assert reasons(ASKED, [best, alone], rows, best) == []
