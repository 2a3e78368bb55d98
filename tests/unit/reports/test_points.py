# What blocks say together: histograms merged exactly, times and batches added up, the load to compare by, the knee.
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.load.histogram import decode, encode
from clients.load.statistics import Interval
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_spec import Shape
from controlplane.reports.charts.percentiles import at
from controlplane.reports.points import Point, executions, knee, latencies, points, step_words, times_in_server
from controlplane.reports.standings import Findings


def block(findings: Findings) -> Measurement:
    return next(one for one in findings.material.measurements if one.verdict is Verdict.VALID)


def test_histograms_together_are_the_histogram_of_everything(ladder: Findings) -> None:
    random = np.random.default_rng(3)
    parts = [random.lognormal(16, 1, count).astype(np.int64) for count in (900, 40, 1)]
    blocks = [replace(block(ladder), histogram=encode(part)) for part in parts]
    values, counts = latencies(blocks)
    alone = decode(encode(np.concatenate(parts)))
    assert np.array_equal(values, alone[0])
    assert np.array_equal(counts, alone[1])
    everything = np.sort(np.concatenate(parts))
    for percent in (50.0, 90.0, 99.0, 100.0):
        exact = everything[int(np.ceil(percent / 100 * len(everything))) - 1] / 1e6
        assert at(values, counts, percent) == pytest.approx(exact, rel=1e-3)


def test_of_no_histogram_nothing_is_said(ladder: Findings) -> None:
    values, counts = latencies([replace(block(ladder), histogram="")])
    assert (len(values), len(counts)) == (0, 0)


def test_times_are_means_over_all_requests_and_the_rest_is_named(ladder: Findings) -> None:
    one = {"succeeded": 1, "total_ns": 10_000_000, "queue_ns": 4_000_000, "infer_ns": 5_000_000}
    many = {"succeeded": 3, "total_ns": 6_000_000, "queue_ns": 0, "infer_ns": 3_000_000, "input_ns": 2_000_000}
    blocks = [replace(block(ladder), server=server) for server in (one, many)]
    assert times_in_server(blocks) == {"queue": 1.0, "input": 0.5, "infer": 2.0, "output": 0.0, "other": 0.5}
    assert times_in_server([replace(block(ladder), server={})]) == {}


def test_executions_are_added_up_by_batch_size(ladder: Findings) -> None:
    blocks = [replace(block(ladder), batches=batches) for batches in ({8: 2, 1: 5}, {8: 1, 4: 3})]
    assert executions(blocks) == {1: 5, 4: 3, 8: 3}


def test_blocks_before_the_confirmation_do_not_count(ladder: Findings) -> None:
    """Who was confirmed got there partly by luck."""
    confirmed = [point for point in ladder.points if point.stage is Stage.CONFIRM]
    assert {point.trial.number for point in confirmed} < {point.trial.number for point in ladder.points}
    assert all(one.stage is Stage.CONFIRM for point in confirmed for one in point.blocks)


def test_blocks_whose_requests_failed_show_nothing(ladder: Findings) -> None:
    spoilt = tuple(replace(one, verdict=Verdict.ERRORS) for one in ladder.material.measurements)
    assert points(replace(ladder.material, measurements=spoilt)) == ()


def test_trials_are_held_against_each_other_at_the_heaviest_load_at_which_the_chosen_holds(ladder: Findings) -> None:
    assert ladder.chosen is not None
    name, bound = "latency_ms p99", 40.0
    own = {point.load: point for point in ladder.points if point.trial.number == ladder.chosen.number}
    main = ladder.main[ladder.chosen.number]
    assert main.load is not None
    assert main.figures[name].value <= bound
    assert all(
        point.figures[name].value > bound for load, point in own.items() if load is not None and load > main.load
    )
    assert {point.step.label for point in ladder.main.values()} == {main.step.label}
    assert ladder.load_words == f"{main.load:g} at once"


def curve(ladder: Findings, *pairs: tuple[float, float]) -> list[Point]:
    return [
        replace(ladder.points[0], figures={"throughput": Interval(rate, rate, rate), "ms": Interval(late, late, late)})
        for rate, late in pairs
    ]


def test_the_knee_has_the_most_throughput_for_its_latency(ladder: Findings) -> None:
    bent = curve(ladder, (100, 10), (190, 11), (200, 40))
    assert knee(bent, "ms") is bent[1]


@pytest.mark.parametrize(
    "pairs", [((100, 10), (190, 11)), ((100, 10), (110, 20), (120, 40)), ((100, 30), (200, 31), (300, 32))]
)
def test_without_a_bend_among_the_loads_there_is_no_knee(
    ladder: Findings, pairs: tuple[tuple[float, float], ...]
) -> None:
    assert knee(curve(ladder, *pairs), "ms") is None


def test_loads_are_said_in_words() -> None:
    assert step_words(Step(Shape.RATE, "1536.157")) == "1,536 requests/s"
    assert step_words(Step(Shape.CONCURRENCY, "16")) == "16 at once"
    assert step_words(Step(Shape.FIND_RATE, "")) == "as many at once as the bound allows"
    assert step_words(Step(Shape.BURSTS, "400:2:8")) == "bursts 400:2:8"
