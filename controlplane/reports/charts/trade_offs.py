# What one figure costs in another: the scatter of trials with the Pareto front.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clients.load.statistics import Interval
from controlplane.domain.canonical import JsonObject
from controlplane.reports.charts.chart import (
    CUT,
    Absent,
    Chart,
    axis,
    bound_lines,
    bound_words,
    channel,
    chart,
    haloed,
    layer,
)
from controlplane.reports.charts.curves import by_group, group
from controlplane.reports.points import Point
from controlplane.reports.standings import Findings, Place
from controlplane.reports.theme import DAY
from controlplane.reports.wording import axis_title, closed, counted, figure_title, more_is_better, said, unit


@dataclass(frozen=True, slots=True)
class _Axes:
    """Two figures, of which trials, and under what. `apart`: each trial at a rate of its own, with the rates and blocks that were
    tried beside it in place of intervals."""

    across: str
    up: str
    figures: Mapping[int, Mapping[str, Interval]]
    points: Mapping[int, Point]
    under: str
    apart: bool = False


def pareto(findings: Findings) -> Chart | Absent:
    name, title = "pareto", "What one figure costs in another"
    axes = _axes(findings)
    if axes is None:
        why = "fewer than two trials have two figures under one load: the search held them against each other by one"
        return Absent(name, title, why)
    across, up = axes.across, axes.up
    title = f"{figure_title(up)[:1].upper()}{figure_title(up)[1:]} against {figure_title(across)}"
    rows: list[JsonObject] = []
    for standing in findings.standings.values():
        figures = axes.figures.get(standing.trial.number, {})
        if across not in figures or up not in figures:
            continue
        done, took = figures[across], figures[up]
        rows.append({
            "trial": findings.label(standing.trial),
            "number": str(standing.trial.number),
            "group": group(standing.place),
            "named": standing.place in {Place.CHOSEN, Place.FRONT},
            "x": done.value, "x_low": done.low if closed(done) else None, "x_high": done.high if closed(done) else None,
            "y": took.value, "low": took.low if closed(took) else None, "high": took.high if closed(took) else None,
            "tip": f"{findings.label(standing.trial)}: {figure_title(across)} {said(done, unit(across))}, "
                   f"{figure_title(up)} {said(took, unit(up))}",
        })  # fmt: skip
    answers = sum(point.answers for point in axes.points.values())
    bounds = [bound.value for bound in findings.bounds(up)], [bound.value for bound in findings.bounds(across)]
    y = axis(axis_title(up), [*_of(rows, "y"), *bounds[0]], [row[end] for row in rows for end in ("low", "high")])
    x = axis(
        axis_title(across), [*_of(rows, "x"), *bounds[1]], [row[end] for row in rows for end in ("x_low", "x_high")]
    )
    colour, shape = by_group([str(row["group"]) for row in rows])
    front = sorted((row for row in rows if row["named"]), key=lambda row: float(str(row["x"])))
    two = len(front) > 1 and len(findings.material.asked.figures) <= 2  # of more figures a front is no line
    whisker: JsonObject = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.7, "aria": False}
    layers = [
        layer(front if two else [], {"type": "line", "color": DAY["green"], "strokeWidth": 1.5, "aria": False}, x=x("x"), y=y("y"),
              order=channel("x")),
        layer(y.spans(rows, "low", "high"), whisker, x=x("x"), y=y("from"), y2={"field": "to"}, color=colour),
        layer(x.spans(rows, "x_low", "x_high"), whisker, x=x("from"), x2={"field": "to"}, y=y("y"), color=colour),
        layer(rows[::-1], {"type": "point", "filled": True, "size": 85, "opacity": 1}, x=x("x"), y=y("y"), color=colour, shape=shape,
              description=channel("tip", "nominal")),
        *(
            part
            for group_of, dy in (("chosen", -16), ("on the front", 17))
            for part in haloed([row for row in front if row["group"] == group_of], {"dy": dy, "fontWeight": "bold"}, x=x("x"), y=y("y"),
                               text=channel("number", "nominal"))
        ),
        *bound_lines(findings.bounds(up), "y", axis_title(up)),
        *bound_lines(findings.bounds(across), "x", axis_title(across)),
    ]  # fmt: skip
    bars = "Bars are intervals of 95 % over blocks."
    if axes.apart:
        bars = (
            "Bars are intervals from the rate that held to the one that did not, and from the least to the most block."
        )
    caption = [
        (
            f"{axis_title(up)}, {_better(up)}, over {figure_title(across)} ({unit(across)}), {_better(across)}, under {axes.under}; "
            f"{counted(len(rows), 'trial')}, {counted(answers, 'answer')}."
        ),
        f"{bars} With numbers: the front." + (" The line joins it." if two else ""),
        *([CUT] if y.cuts(rows, "low", "high") or x.cuts(rows, "x_low", "x_high") else []),
        *bound_words(findings.bounds(up), findings.bounds(across)),
    ]
    order = {word: place for place, word in enumerate(("chosen", "on the front"))}
    told = sorted(rows, key=lambda row: order.get(str(row["group"]), 2))
    return chart(
        name,
        title,
        caption,
        " ".join(f"{row['group']}: {row['tip']}." for row in told),
        layers,
        height=300,
        aside=bool(findings.bounds(up)),
    )


def _axes(findings: Findings) -> _Axes | None:
    """Throughput and latency, or else two figures that trials were compared by."""
    up = findings.latency
    asked = findings.material.asked
    compared = [one.name for one in (*asked.figures, *asked.race) if " at " not in one.name and one.name != up]
    across = findings.pace or next(iter(compared), None)
    if up is None or across is None:
        return None
    figures = {number: point.figures for number, point in findings.main.items()}
    found = _Axes(across, up, figures, findings.main, findings.load_words)
    if not _two(found) and findings.held:
        told = {number: findings.figures[number] for number in findings.held}
        found = _Axes(across, up, told, findings.held, "the highest rate of each", apart=True)
    return found if _two(found) else None


def _two(axes: _Axes) -> bool:
    return sum(1 for figures in axes.figures.values() if axes.across in figures and axes.up in figures) > 1


def _of(rows: Sequence[JsonObject], field: str) -> list[float]:
    return [float(str(row[field])) for row in rows]


def _better(name: str) -> str:
    return "more is better" if more_is_better(name) else "less is better"
