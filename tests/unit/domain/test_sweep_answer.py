# What a sweep concludes of rates beside what was asked for: who was not measured again, and what does not hold any more.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from clients.load.statistics import Interval
from controlplane.domain.catalog import Objective
from controlplane.domain.sweep_answer import Conclusion, concluded, interval_of
from controlplane.domain.sweep_course import Raced, Terms
from controlplane.domain.sweep_figures import asked
from controlplane.domain.sweep_plan import Stage as Planned
from controlplane.domain.sweep_racing import Standing
from controlplane.domain.sweep_rates import Found, Sought
from controlplane.domain.sweep_rounds import BlockOrder, Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import Trial as Seen
from controlplane.domain.sweep_spec import Method, Shape
from controlplane.domain.sweep_time import Budget, Stages
from controlplane.domain.sweeps import Trial

WHEN = datetime(2026, 11, 22, tzinfo=UTC)
P99 = Objective("m", "fast", "latency_ms", "p99", "at_most", "10", "product", None)
MANY = Objective("m", "many", "throughput", "", "at_least", "400", "product", None)
ASKED = asked({"rate": "400", "process": "poisson", "rows": 1, "finds_rate": True}, [P99, MANY], 0.05, 1.0)
STAGES = Stages(
    (Planned("round 1", 2, 3, 1, 0.5, 2),), Planned("finalists", 2, 3, 1, 1.0, 0), Planned("rate", 2, 8, 1, 1.0, 0)
)
A, B = (f"sha256:{letter * 64}" for letter in "ab")
TRIALS = [Trial(7, number, name, 1, "", {}, "", {"instances": number}) for number, name in enumerate((A, B), 1)]


def again(rate: float, p99: float) -> tuple[Measurement, ...]:
    order = BlockOrder(0, 0, A, Step(Shape.RATE, str(rate)), 1.0, 1)
    one = Measurement(7, 1, Stage.RATE, order, Verdict.VALID, (), WHEN, WHEN, seconds=1.0, completed=1000)
    return (replace(one, figures={"latency_ms p99": p99}),) * 5


def ended(**rates: Found) -> Conclusion:
    """Both showed what was asked for when they were measured again at 400 a second, alike."""
    figures = {"throughput": Interval(400, 400, 400), "latency_ms p99": Interval(8, 7.6, 8.4)}
    seen = tuple(Seen(name, figures, 5000) for name in (A, B))
    raced = Raced(Standing((), (A, B), None, seen), (), Budget(100.0, 50.0, 0.2))
    terms = Terms(ASKED, STAGES, Method.RACING, 1, 180, 2, {1: 0}, 1 << 40)
    return concluded(terms, TRIALS, (), raced, Sought({A: rates["a"], B: rates["b"]}))


def highest(end: Conclusion) -> float:
    found = end.answer["highest_rate"]
    assert isinstance(found, Mapping)
    return interval_of(found["rate"]).value


def test_a_rate_that_was_not_measured_again_does_not_beat_one_that_was() -> None:
    """By turns the first held 1000 as often as not, the other 700; only the first was measured again, and went back."""
    end = ended(a=Found(644, 700, 1000, again(644, 9)), b=Found(700, 750, 700))
    assert end.answer["chosen"] == "7.1"
    assert highest(end) == 644
    assert end.message == "trial 7.1: 644 requests a second at p99 <= 10 ms"


def test_of_a_choice_whose_rate_nobody_measured_again_that_is_said() -> None:
    end = ended(a=Found(700, 750, 700), b=Found(600, 650, 600))
    assert end.message == "trial 7.1: perhaps 700 requests a second at p99 <= 10 ms, which was not measured again"


def test_what_held_before_and_not_any_more_is_not_said_to_hold() -> None:
    """Both missed at 400 a second when it came to rates; the first was confirmed below that, and the other is no better by turns."""
    end = ended(a=Found(352, 400, 420, again(352, 9)), b=Found(340, 400, 400))
    findings = end.answer["findings"]
    assert isinstance(findings, Mapping)
    assert end.answer["chosen"] is None
    for name in ("7.1", "7.2"):
        assert {str(one["met"]) for one in findings[name]} <= {"cannot tell", "missed"}  # type: ignore[union-attr,index,call-overload]


def test_a_candidate_of_which_no_rate_held_is_the_last() -> None:
    end = ended(a=Found(0.0, 410, 0.0), b=Found(500, 550, 540, again(500, 9)))
    assert end.answer["chosen"] == "7.2"
