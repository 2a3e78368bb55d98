# Histograms are written byte for byte as by the reference library, and read back.
from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib

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


def packed(payload: bytes, *, size: int | None = None) -> str:
    head = struct.pack(">iiiiqqd", 0x1C849313, len(payload) if size is None else size, 0, 3, 1, HIGHEST, 1.0)
    deflated = zlib.compress(head + payload)
    return base64.b64encode(struct.pack(">ii", 0x1C849314, len(deflated)) + deflated).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64",
        base64.b64encode(b"short").decode(),
        base64.b64encode(struct.pack(">ii", 0x1C849314, 9) + b"not zlib").decode(),
        packed(b"", size=100),
        packed(b"\x80" * 100_000),
        packed(bytes(1 << 25)),
        packed(b"\xff" * 8 + b"\x7f" + b"\x02"),
    ],
    ids=["empty", "text", "short", "unpacked", "cut", "endless", "bomb", "beyond"],
)
def test_what_a_stranger_wrote_is_refused_soon(text: str) -> None:
    """Capsules have histograms of whoever wrote them."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            decode(text)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
