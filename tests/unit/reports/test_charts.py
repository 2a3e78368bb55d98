# The charts: the library compiles each without a warning, their numbers are those of the blocks, names people wrote stay text.
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import vl_convert

from controlplane.domain.canonical import Json
from controlplane.domain.sweeps import SweepState
from controlplane.reports.charts.chart import Absent, Chart
from controlplane.reports.charts.curves import latency_throughput, ranking
from controlplane.reports.charts.every import charts
from controlplane.reports.charts.heat import heat_map
from controlplane.reports.charts.percentiles import percentile_plot
from controlplane.reports.charts.rendering import inline_svg, png, svg
from controlplane.reports.charts.server import batch_sizes, shares
from controlplane.reports.charts.trade_offs import pareto
from controlplane.reports.points import executions, latencies, times_in_server
from controlplane.reports.standings import Findings
from controlplane.reports.theme import TONES
from tests.unit.reports import synthetic

EVIL = '"><script>alert(1)</script>'


def drawn(findings: Findings) -> list[Chart]:
    return [one for one in charts(findings) if isinstance(one, Chart)]


def rows(chart: Chart | Absent) -> list[dict[str, Json]]:
    """Of all layers."""
    assert isinstance(chart, Chart)
    layers = json.loads(json.dumps(chart.spec, allow_nan=False))["layer"]
    return [row for layer in layers for row in layer["data"]["values"]]


def words(tree: Json) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from words(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from words(value)
    elif isinstance(tree, str):
        yield tree


def test_every_kind_of_chart_is_drawn_of_a_ladder(ladder: Findings) -> None:
    names = [one.name for one in drawn(ladder)]
    assert names == ["trials", "pareto", "latency-throughput", "percentiles", "shares", "batches", "heat"]


def test_the_library_has_nothing_to_warn_of(findings: Findings, capfd: pytest.CaptureFixture[str]) -> None:
    vl_convert.vegalite_to_vega(
        {"mark": "bar", "data": {"values": []}, "encoding": {"size2": {"field": "a"}}}, show_warnings=True
    )
    assert "WARN" in capfd.readouterr().err  # so a warning would be seen
    for one in drawn(findings):
        vl_convert.vegalite_to_vega(one.spec, vl_version="6.4", show_warnings=True)
        assert capfd.readouterr() == ("", ""), one.name


def test_a_spec_loads_nothing_and_says_what_it_is_of(findings: Findings) -> None:
    for one in drawn(findings):
        assert re.findall(r"https?://[^\"]*", json.dumps(one.spec)) == [one.spec["$schema"]]
        assert '"url"' not in json.dumps(one.spec)
        assert re.search(r"[\d,]+ (answer|execution)s?|n = [\d,]+", one.caption), one.caption
        assert "interval" in one.caption.lower(), one.caption
        assert one.spec["description"] == one.alt != ""


def test_the_colours_of_a_chart_are_tones_of_the_theme(findings: Findings) -> None:
    """A page by night finds them again by their colours by day."""
    day = [light for light, _ in TONES.values()]
    assert len(set(day)) == len(day)
    for one in drawn(findings):
        found = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]+|rgb[^"]*)"', svg(one)))
        assert found <= set(day), one.name


def test_the_curve_has_the_figures_of_every_block_with_their_intervals(ladder: Findings) -> None:
    chart = latency_throughput(ladder)
    told = {(row["x"], row["y"], row["low"], row["high"]) for row in rows(chart) if "x" in row}
    for point in ladder.points:
        x, y = point.figures["throughput"], point.figures["latency_ms p99"]
        known = (y.low, y.high) if math.isfinite(y.high) else (None, None)  # two blocks have no interval
        assert (x.value, y.value, *known) in told
    assert {low is None for _, _, low, _ in told} == {True, False}
    assert isinstance(chart, Chart)
    assert f"{sum(point.answers for point in ladder.points):,} answers" in chart.caption


def test_the_ranking_has_every_measured_trial_once_the_best_first(findings: Findings) -> None:
    assert findings.pace is not None
    told = list(dict.fromkeys((row["trial"], row["value"]) for row in rows(ranking(findings)) if "group" in row))
    values = {(findings.label(point.trial), point.figures[findings.pace].value) for point in findings.main.values()}
    assert set(told) == values
    assert len(told) == len(findings.main)


def test_the_highest_rate_stands_beside_what_the_ramps_showed(rising: Findings) -> None:
    assert rising.chosen is not None
    rate = rising.figures[rising.chosen.number]["sustainable_rate"]
    told = {
        (row["value"], row["low"], row["high"])
        for row in rows(ranking(rising))
        if "did not" in str(row.get("tip", "")) and row["trial"] == rising.label(rising.chosen)
    }
    assert told == {(rate.value, rate.low, rate.high)}


def test_the_percentiles_are_those_of_all_blocks_together(rising: Findings) -> None:
    assert rising.chosen is not None
    point = rising.held[rising.chosen.number]
    chart = percentile_plot(rising)
    tips = {row["tip"]: row["ms"] for row in rows(chart) if "tip" in row}
    (p99,) = (ms for tip, ms in tips.items() if " 99 % within" in str(tip) and rising.label(point.trial) in str(tip))
    assert p99 == pytest.approx(point.figures["latency_ms p99"].value, rel=0.05)
    assert isinstance(chart, Chart)
    answers = [rising.held[trial.number].answers for trial in rising.featured if trial.number in rising.held]
    assert f"{max(answers):,} answers of each" in chart.caption


def test_the_line_of_percentiles_goes_from_the_fastest_to_the_slowest(ladder: Findings) -> None:
    assert ladder.chosen is not None
    point = ladder.main[ladder.chosen.number]
    values, counts = latencies(point.blocks)
    line = [
        row for row in rows(percentile_plot(ladder)) if row.get("trial") == ladder.label(point.trial) and "part" in row
    ]
    ends = [(row["fewer"], row["ms"]) for row in line]
    assert min(ends) == (1.0, values[0] / 1e6)
    assert max(ends) == (float(counts.sum()), values[-1] / 1e6)


def test_the_scatter_has_the_front_and_the_chosen(ladder: Findings) -> None:
    groups = {row["number"]: row["group"] for row in rows(pareto(ladder)) if "number" in row}
    assert ladder.chosen is not None
    assert groups[str(ladder.chosen.number)] == "chosen"
    assert {number for number, group in groups.items() if group == "on the front"} == {
        str(trial.number) for trial in ladder.front if trial is not ladder.chosen
    }


def test_shares_and_batches_are_the_servers(ladder: Findings) -> None:
    assert ladder.chosen is not None
    point = ladder.main[ladder.chosen.number]
    key = f"{point.trial.number} {point.step.label}"
    times, counts = times_in_server(point.blocks), executions(point.blocks)
    told = {row["part"]: row["share"] for row in rows(shares(ladder)) if row.get("row") == key and "part" in row}
    assert told["queue"] == times["queue"] / sum(times.values())
    assert told["compute"] == times["infer"] / sum(times.values())
    sizes = {row["size"]: row["share"] for row in rows(batch_sizes(ladder)) if row.get("row") == key and "size" in row}
    assert sizes == {str(size): count / sum(counts.values()) for size, count in counts.items()}


def test_a_cell_of_the_heat_map_has_the_best_trial_of_its_parameters(ladder: Findings) -> None:
    chart = heat_map(ladder)
    assert isinstance(chart, Chart)
    first = json.loads(json.dumps(chart.spec))["layer"][0]["encoding"]
    across, down = first["x"]["title"], first["y"]["title"]
    best: dict[tuple[str, str], float] = {}
    for point in ladder.main.values():
        key = (str(point.trial.parameters[across]), str(point.trial.parameters[down]))
        best[key] = max(best.get(key, 0.0), point.figures["throughput"].value)
    assert {(row["x"], row["y"]): row["value"] for row in rows(chart)} == best


@pytest.mark.parametrize("state", [SweepState.QUEUED, SweepState.FAILED, SweepState.CANCELLED])
def test_of_a_sweep_that_measured_nothing_each_chart_says_why_it_is_not_there(state: SweepState) -> None:
    found = charts(Findings(synthetic.queued(state)))
    assert all(isinstance(one, Absent) and one.reason for one in found)


def test_what_people_wrote_stays_text(ladder: Findings) -> None:
    material = ladder.material
    named = tuple(replace(trial, base=False, parameters={**trial.parameters, EVIL: EVIL}) for trial in material.trials)
    evil = Findings(replace(material, trials=named))
    for one in drawn(evil):
        picture = inline_svg(one)
        assert "<script" not in picture
        assert EVIL not in picture
    assert any("script" in said for one in drawn(evil) for said in words(one.spec))  # as a value of the data


def test_pictures_stand_alone(ladder: Findings) -> None:
    chart = ranking(ladder)
    assert isinstance(chart, Chart)
    assert png(chart).startswith(b"\x89PNG")
    picture = svg(chart)
    assert chart.title in picture
    assert "xmlns" in picture
    assert chart.title not in inline_svg(chart)
