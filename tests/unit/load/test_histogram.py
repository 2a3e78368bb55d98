# Histograms are written byte for byte as by the reference library, and read back.
from __future__ import annotations

import numpy as np
import pytest

from clients.load.histogram import HIGHEST, decode, encode

VALUES = np.array([0, 1, 2047, 2048, 4095, 4096, 123_456, HIGHEST, 10**14, 5])
# By HdrHistogram(1, 3_600_000_000_000, 3) of the Python package hdrhistogram 0.10.8, with the two longest as an hour.
BY_THE_LIBRARY = "HISTFAAAADR4nJNpmSzMwMAAwiDADKUZgUw3gx0LGOw/QASYmFiZPsozMf3mZ2Lq92Nq7mFmAQDJagiA"


def test_it_is_what_the_reference_library_writes() -> None:
    assert encode(VALUES) == BY_THE_LIBRARY


def test_every_value_comes_back_within_a_thousandth_with_its_count() -> None:
    values = np.random.default_rng(0).lognormal(14, 2, 5000).astype(np.int64)
    lowest, counts = decode(encode(values))
    back = np.repeat(lowest, counts)
    assert counts.sum() == len(values)
    assert (back <= np.sort(values)).all()
    assert back == pytest.approx(np.sort(values), rel=1e-3, abs=1)


def test_no_values_are_an_empty_histogram() -> None:
    lowest, counts = decode(encode(np.zeros(0, np.int64)))
    assert (len(lowest), len(counts)) == (0, 0)


def test_another_kind_of_histogram_is_refused() -> None:
    with pytest.raises(ValueError, match="three digits"):
        decode("HISTFAAAACF4nJNpmSzMwMDAxAABMJoRRFybvITB/gNEgJMJAFonBJM=")
