# The percentile plot: how long the slowest few requests take, from the histograms of all blocks together.
from __future__ import annotations

from collections.abc import Sequence
from math import log10

import numpy as np

from clients.load.histogram import Values
from clients.load.statistics import fewest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.reports.charts.chart import (
    Absent,
    Chart,
    axis,
    bound_lines,
    bound_words,
    by_trial,
    channel,
    chart,
    layer,
)
from controlplane.reports.points import Point, latencies
from controlplane.reports.standings import Findings
from controlplane.reports.wording import counted, number

_DOTS = 240
"""Of a line: more cannot be seen."""
_MOST = 4
"""Lines: more lie over each other."""
_LABELS = "datum.value <= 1 ? '0 %' : datum.value < 11 ? '90 %' : format(100 - 100 / datum.value, '.10~f') + ' %'"
_SAID = (50.0, 90.0, 99.0, 99.9)


def percentile_plot(findings: Findings) -> Chart | Absent:
    """Over the logarithm of how few are slower, as HdrHistogram draws it. Of one load, so that trials can be compared."""
    name, title = "percentiles", "Latency by percentile"
    points = _comparable(findings)
    merged = {point.trial.number: latencies(point.blocks) for point in points}
    points = [point for point in points if len(merged[point.trial.number][0])]
    if not points:
        return Absent(name, title, "no block has a histogram")
    rows = [row for point in points for row in _line(findings.label(point.trial), *merged[point.trial.number])]
    under = "the highest rate of each" if findings.held else findings.load_words
    sizes = [int(merged[point.trial.number][1].sum()) for point in points]
    most = max(sizes)
    ends: Json = [10.0**power for power in range(int(log10(most)) + 2)]
    x = channel(
        "fewer",
        title="Percentile: each step to the right leaves a tenth of the requests",
        scale={"type": "log", "domain": [1, most], "nice": False},
        axis={"values": ends, "labelExpr": _LABELS, "labelFlush": True},
    )
    bounds = [bound for metric in _latencies(findings) for bound in findings.bounds(metric)]
    values = [float(str(row["ms"])) for row in rows if row["ms"]] + [bound.value for bound in bounds]
    y = axis("Latency (ms)", values, zero=True)("ms")
    trials = [point.trial for point in points]
    colour, _ = by_trial(findings, trials)
    sure: JsonObject = {"domain": [True, False], "range": [[1, 0], [2, 3]]}
    dash = channel("sure", "nominal", scale=sure, legend=None)
    tips: list[JsonObject] = [
        {"trial": findings.label(point.trial), "fewer": 100 / (100 - percent), "ms": at(*merged[point.trial.number], percent),
         "tip": f"{findings.label(point.trial)}: {percent:g} % within {number(at(*merged[point.trial.number], percent))} ms"}
        for point in points
        for percent in _SAID
        if 100 / (100 - percent) <= int(merged[point.trial.number][1].sum())
    ]  # fmt: skip
    layers = [
        layer(rows, {"type": "line", "interpolate": "step-before", "strokeWidth": 2, "aria": False}, x=x, y=y, color=colour,
              strokeDash=dash, detail=channel("part", "nominal")),
        layer(tips, {"type": "point", "filled": True, "size": 46, "opacity": 1}, x=x, y=y, color=colour,
              shape=by_trial(findings, trials)[1], description=channel("tip", "nominal")),
        *bound_lines(bounds, "y", "Latency (ms)"),
    ]  # fmt: skip
    caption = [
        (
            f"Latency (ms) from when a request was due to its answer, under {under}; "
            f"n = {_counts(sizes)} answers of each."
        ),
        "All blocks of a trial together, bucket by bucket: no interval is drawn; dotted, there are too few answers to be sure.",
        *bound_words(bounds),
    ]
    alt = " ".join(
        f"{findings.label(point.trial)}, {counted(int(merged[point.trial.number][1].sum()), 'answer')}: "
        + ", ".join(f"p{percent:g} {number(at(*merged[point.trial.number], percent))} ms" for percent in _SAID)
        + "."
        for point in points
    )
    return chart(name, title, caption, alt, layers, height=280, aside=bool(bounds))


def at(values: Values, counts: Values, percent: float) -> float:
    """The nearest-rank percentile of a histogram, in ms."""
    cumulated = np.cumsum(counts)
    rank = max(int(np.ceil(round(percent / 100 * int(cumulated[-1]), 6))), 1)
    return float(values[int(np.searchsorted(cumulated, rank))]) / 1e6


def _line(trial: str, values: Values, counts: Values) -> list[JsonObject]:
    """From the fastest to the slowest; the part that is not sure begins where the sure one ends."""
    cumulated = np.cumsum(counts)
    whole = int(cumulated[-1])
    shares = 1 - np.geomspace(1, 1 / whole, _DOTS)
    ranks = np.unique([*np.ceil(whole * shares).astype(np.int64).clip(1), whole])
    where = np.searchsorted(cumulated, ranks)
    dots = [
        (whole / max(whole - int(rank) + 1, 1), float(values[place]) / 1e6)
        for rank, place in zip(ranks, where, strict=True)
    ]
    last = max(
        (place for place, (fewer, _) in enumerate(dots) if fewer <= 1 or fewest(100 - 100 / fewer) <= whole), default=0
    )
    parts = [("sure", True, dots[: last + 1]), ("rest", False, dots[last:])]
    return [
        {"trial": trial, "part": f"{trial} {part}", "sure": sure, "fewer": fewer, "ms": ms}
        for part, sure, line in parts
        for fewer, ms in line
    ]


def _comparable(findings: Findings) -> list[Point]:
    """Featured trials: each at its highest rate, where one was looked for, else under the main load."""
    points = findings.held or findings.main
    return [points[trial.number] for trial in findings.featured if trial.number in points][:_MOST]


def _counts(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _latencies(findings: Findings) -> list[str]:
    return [
        f"{one.get('metric')} {one.get('qualifier') or ''}".strip()
        for one in findings.material.sweep.objectives
        if one.get("metric") == "latency_ms"
    ]
