# What candidates that were measured say of the others, on surfaces whose best point is plain.
from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_predict import Axis, Point, Worth, most_promising, worth
from controlplane.domain.sweep_search import Figure

RATE, P99 = Figure("rate", more_is_better=True), Figure("p99", more_is_better=False)
AXES = [Axis("size", 5, ordered=True), Axis("count", 2, ordered=False), Axis("idle", 4, ordered=True)]
ALL: list[Point] = [
    {"size": size, "count": count, "idle": idle} for size, count, idle in product(range(5), range(2), range(4))
]


def log_rate(point: Point) -> float:
    """The middle size is best, two help most where it is large, and the third dimension does nothing."""
    return -0.2 * (point["size"] - 3) ** 2 + 0.1 * point["count"] * point["size"]


def test_the_neighbours_of_the_best_are_promising_whatever_a_dimension_without_effect_says() -> None:
    random = np.random.default_rng(3)
    known = [
        (point, Worth(log_rate(point) + 0.03 * float(random.normal()), 0.03**2))
        for point in [ALL[at] for at in random.permutation(len(ALL))[:16]]
    ]
    others = [point for point in ALL if all(point != one for one, _ in known)]
    first = [others[at] for at in most_promising(AXES, known, others, 4)]
    assert len(first) == 4
    assert all(log_rate(point) > max(map(log_rate, ALL)) - 0.11 for point in first)
    assert len({point["idle"] for point in first}) > 1
    assert most_promising(AXES, known, others, 100)[:4] == most_promising(AXES, known, others, 4)
    assert sorted(most_promising(AXES, known, others, 100)) == list(range(len(others)))


def test_a_dimension_that_does_not_apply_is_no_distance_to_another_without_it() -> None:
    known = [({"size": size}, Worth(float(size), 1e-4)) for size in range(5)]
    known += [({"size": size, "count": 1}, Worth(size - 9.0, 1e-4)) for size in range(5)]
    others: list[Point] = [{"size": 4, "count": 0}, {"size": 0, "count": 1}]
    assert most_promising(AXES, known, others, 1) == [0]


def test_few_measurements_predict_nothing() -> None:
    known = [(point, Worth(0.0, 1e-4)) for point in ALL[:5]]
    assert most_promising(AXES, known, ALL[5:], 3) == []
    assert most_promising(AXES, [(point, Worth(0.0, 1e-4)) for point in ALL], [], 3) == []


def test_worth_is_beside_the_others_of_a_turn_and_all_figures_count_alike() -> None:
    def turn(factor: float) -> dict[str, Block]:
        shown = {"a": (100.0, 5.0), "b": (200.0, 10.0), "c": (400.0, 5.0)}
        return {
            name: Block(name, 0, 1.0, {"rate": rate * factor, "p99": p99}, 1) for name, (rate, p99) in shown.items()
        }

    lame = Block("d", 0, 1.0, {"rate": 5.0}, 1)  # without its p99
    found = worth({(1, 0): {**turn(1.0), "d": lame}, (1, 1): turn(7.0)}, [RATE, P99])
    assert found.keys() == {"a", "b", "c"}
    assert found["a"].value == pytest.approx(found["b"].value)
    assert found["c"].value - found["a"].value == pytest.approx(math.log(4))
    assert sum(one.value for one in found.values()) == pytest.approx(0)
    assert found["a"].variance == pytest.approx(0.01**2 / 2)
