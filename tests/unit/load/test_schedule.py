# Arrival times: exact where they are even, of the right distribution where they are drawn, the same for the same seed.
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clients.load.errors import LoadInputError
from clients.load.schedule import Curve, arrivals, trace

CURVES = {
    "flat": Curve.flat(100),
    "ramp": Curve.ramp(10, 200, 20),
    "falling": Curve.ramp(200, 10, 40),
    "bursts": Curve.bursts(300, 1, 2),
    "bursts on a floor": Curve.bursts(300, 0.5, 1.5, between=20),
    "day": Curve.through([(0, 10), (5, 100), (9, 0), (10, 10)]),
}


@pytest.mark.parametrize("name", CURVES)
def test_load_acceptance_4_poisson_arrivals_pass_a_goodness_of_fit_test(name: str) -> None:
    """Bent back by the integrated rate, the gaps are exponential with mean 1 and independent of their forerunners."""
    curve = CURVES[name]
    units = np.array([curve.area(t / 1e9) for t in arrivals(curve, 60, process="poisson", seed=1)])
    gaps = np.diff(units)
    assert stats.kstest(gaps, "expon").pvalue > 0.01
    assert abs(stats.spearmanr(gaps[:-1], gaps[1:]).statistic) < 4 / np.sqrt(len(gaps))
    expected = curve.area(60)
    assert abs(len(units) - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("name", CURVES)
def test_load_acceptance_4_even_arrivals_lie_where_their_number_is_expected(name: str) -> None:
    curve = CURVES[name]
    units = np.array([curve.area(t / 1e9) for t in arrivals(curve, 60, process="even", seed=0)])
    assert np.abs(units - np.arange(len(units))).max() < 1e-5
    assert len(units) == int(np.ceil(curve.area(60)))


def test_a_constant_rate_is_evenly_spaced() -> None:
    assert arrivals(Curve.flat(4), 1, process="even", seed=0).tolist() == [0, 250_000_000, 500_000_000, 750_000_000]


def test_nothing_arrives_between_bursts() -> None:
    seconds = arrivals(Curve.bursts(200, 1, 2), 30, process="poisson", seed=3) / 1e9
    assert ((seconds % 3) < 1).all()


def test_the_same_seed_gives_the_same_times_and_another_does_not() -> None:
    first, again, other = (arrivals(Curve.flat(50), 10, process="poisson", seed=seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@given(
    points=st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 500)), min_size=1, max_size=6),
    first=st.floats(0.1, 500),
    at=st.floats(0, 100),
)
def test_times_invert_areas(points: list[tuple[float, float]], first: float, at: float) -> None:
    corners, second = [(0.0, first)], 0.0
    for gap, rate in points:
        second += gap
        corners.append((second, rate))
    curve = Curve.through(corners)
    area = curve.area(at)
    assert curve.area(float(curve.times(np.array([area]))[0])) == pytest.approx(area, rel=1e-6, abs=1e-6)


def test_a_trace_is_counted_from_its_first_arrival(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("# seconds\n12.5\n10\n10.25\n")
    assert trace(path).tolist() == [0, 250_000_000, 2_500_000_000]


@pytest.mark.parametrize("text", ["", "one\n", "nan\n", "1 2\n3 4\n"])
def test_a_trace_without_offsets_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(LoadInputError, match="trace"):
        trace(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve.flat(0),
        lambda: Curve.flat(float("nan")),
        lambda: Curve.ramp(1, 0, 5),
        lambda: Curve.bursts(5, 0, 1),
        lambda: Curve.through([(0, 1)]),
        lambda: Curve.through([(1, 1), (2, 2)]),
        lambda: Curve.through([(0, 0), (2, 0)]),
        lambda: Curve.through([(0, 1), (2, 1), (2, 3)]),
        lambda: arrivals(Curve.flat(1e9), 60, process="even", seed=0),
        lambda: arrivals(Curve.flat(1), 0, process="even", seed=0),
    ],
)
def test_what_is_no_schedule_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(LoadInputError):
        make()
