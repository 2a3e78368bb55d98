# Loads as people write them.
from __future__ import annotations

from pathlib import Path

import pytest

from clients.load.errors import LoadInputError
from clients.load.ladders import limit, loads, steps
from clients.load.measure import Load


def asked(**options: object) -> list[tuple[str, Load]]:
    nothing = dict.fromkeys(("concurrency", "rate", "bursts", "ramp", "curve", "trace_file"))
    return loads(process="even", **{**nothing, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16", [16]),
        ("1,4,16", [1, 4, 16]),
        ("100:300:100", [100, 200, 300]),
        ("1:20:x2", [1, 2, 4, 8, 16]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),
    ],
)
def test_ladders_add_or_multiply(text: str, found: list[float]) -> None:
    assert steps(text, "rate") == pytest.approx(found)


@pytest.mark.parametrize("text", ["", "x", "1:2", "0:4:1", "4:1:1", "1:9:0", "1:9:x1", "1:1e9:1"])
def test_what_is_no_ladder_is_refused(text: str) -> None:
    with pytest.raises(LoadInputError):
        steps(text, "rate")


def test_each_shape_has_its_load_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("0\n1\n")
    assert asked() == [("1 in flight", Load(concurrency=1))]
    assert [name for name, _ in asked(concurrency="1:4:x2")] == ["1 in flight", "2 in flight", "4 in flight"]
    shapes = [
        asked(rate="50"),
        asked(bursts="300:1:2"),
        asked(ramp="1:9:5"),
        asked(curve="0:1,5:9"),
        asked(trace_file=tmp_path / "t"),
    ]
    assert [name for ((name, _),) in shapes] == ["50/s", "bursts 300:1:2", "ramp 1:9:5", "curve 0:1,5:9", "trace t"]
    assert [round(load.curve.area(10)) for ((_, load),) in shapes if load.curve] == [500, 1200, 70, 50]


@pytest.mark.parametrize(
    "options",
    [
        {"rate": "5", "concurrency": "4"},
        {"concurrency": "0.5"},
        {"concurrency": "1.5"},
        {"bursts": "300:1"},
        {"ramp": "1:2:x"},
        {"curve": "0:1"},
    ],
)
def test_what_is_no_load_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(LoadInputError):
        asked(**options)


def test_a_limit_is_a_percentile_and_seconds() -> None:
    assert limit("p99<=10ms") == (99.0, 0.01)
    assert limit("p99.9 < 2.5s") == (99.9, 2.5)
    assert limit("p50=300us") == pytest.approx((50.0, 0.0003))
    for text in ("99<1ms", "p99<1", "p99>1ms", "p999<1ms"):
        with pytest.raises(LoadInputError):
            limit(text)
