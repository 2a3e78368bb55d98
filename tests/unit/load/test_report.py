# Reports as programs read them: the JSON is what SCHEMA.md says, nothing less and nothing more; CSV; raw samples.
from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.load.histogram import decode
from clients.load.report import to_csv, to_json, write_raw
from clients.load.runs import Found
from tests.unit.load.reports import full, plain
from tests.unit.load.schema import documented, match


def test_every_value_has_its_line_in_the_schema_and_every_line_its_value() -> None:
    trees = [json.loads(json.dumps(to_json(report), allow_nan=False)) for report in (full(), plain())]
    found = [match(tree) for tree in trees]
    assert [strange for _, strange in found] == [[], []]
    unseen = set(documented()) - found[0][0] - found[1][0]
    assert unseen == {"points[].answers.differences[].index"}  # null: a whole output that is wrong


def test_the_json_holds_what_was_measured() -> None:
    tree = json.loads(json.dumps(to_json(full())))
    (point,) = tree["points"]
    assert tree["status"] == 0, "a search that found a rate"
    assert (point["verdict"], point["failed"]) == ("errors", {"UNAVAILABLE": 10})
    assert (point["offered"], point["sent"], point["completed"]) == (1052, 1050, 1040)
    assert point["server"]["digits"]["mean_us"]["queue"] == 400.0
    assert point["gauges"]['nv_gpu_utilization{gpu_uuid="GPU-1"}'] == {"mean": 0.625, "highest": 0.75, "samples": 2}
    assert sum(point["series"]["offered"]) == 1200
    assert sum(point["series"]["completed"]) + sum(point["series"]["failed"]) == 1200
    lowest, counts = decode(point["histograms"]["scheduled"])
    assert counts.sum() == 1040
    middle = lowest[np.searchsorted(np.cumsum(counts), 520)] / 1e9
    assert abs(middle / point["latency"]["scheduled"]["p50"]["value"] - 1) < 0.002


def test_what_is_not_available_is_null_and_not_zero() -> None:
    tree = json.loads(json.dumps(to_json(plain())))
    point = tree["points"][0]
    assert [point[name] for name in ("server", "calibration", "gauges", "streaming")] == [None, None, {}, None]
    assert (tree["interrupted"], tree["status"], tree["highest_rate"]) == (True, 130, None)


def test_csv_has_a_line_for_each_load_and_empty_cells_for_what_is_not_known() -> None:
    rows = list(csv.DictReader(to_csv(plain().points).splitlines()))
    assert [(row["load"], row["verdict"], row["held"]) for row in rows] == [
        ("1 in flight", "too_few_samples", ""),
        ("2 in flight", "valid", ""),
    ]
    assert [float(row["p50"]) for row in rows] == [0.00476, 0.004742]
    assert {row["server_total_us"] for row in rows} == {""}
    (whole,) = csv.DictReader(to_csv(full().points).splitlines())
    assert (whole["held"], whole["server_total_us"], whole["ceiling"]) == ("no", "2000.0", "8000.0")


def test_raw_samples_hold_every_call_of_every_load(tmp_path: Path) -> None:
    write_raw(plain(), tmp_path / "raw.npz")
    with np.load(tmp_path / "raw.npz") as raw:
        assert raw["loads"].tolist() == ["1 in flight", "2 in flight"]
        assert np.bincount(raw["load"]).tolist() == [600, 1200]
        assert (raw["answered"] - raw["sent"]).min() == 2_000_000
        assert raw["due"].min() == 0


LIMIT = (99.0, 0.01)


@pytest.mark.parametrize(
    ("verdicts", "held", "status"),
    [
        (["valid", "valid"], True, 0),
        (["valid", "unstable"], True, 7),
        (["unstable", "too_few_samples"], True, 6),
        (["too_few_samples", "client_limited"], True, 5),
        (["client_limited", "errors"], None, 3),
        (["valid", "valid"], None, 8),
        (["valid", "valid"], False, 8),
    ],
)
def test_the_exit_status_is_that_of_the_gravest(verdicts: list[str], held: bool | None, status: int) -> None:
    report = replace(plain(), interrupted=False, failure=None)
    points = tuple(
        replace(point, measured=replace(point.measured, verdict=verdict), held=((LIMIT, held),))
        for point, verdict in zip(report.points, verdicts, strict=True)
    )
    assert replace(report, points=points).status == status


def test_a_search_an_end_before_the_end_and_a_break_down_have_their_own_status() -> None:
    searched = full()
    assert searched.status == 0
    assert replace(searched, found=Found(0.0, 100.0)).status == 8
    assert replace(searched, found=None).status == 8
    assert replace(searched, failure="a process died").status == 1
    assert replace(searched, interrupted=True).status == 130
