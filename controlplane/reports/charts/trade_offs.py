# What one figure costs in another: the scatter with the Pareto front, and the heat map over two parameters.
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweeps import Trial
from controlplane.reports.charts.chart import (
    Absent,
    Chart,
    bound_lines,
    bound_words,
    channel,
    chart,
    haloed,
    layer,
    scaled,
)
from controlplane.reports.charts.curves import by_group, group
from controlplane.reports.standings import Findings, Place
from controlplane.reports.theme import DAY, HEAT
from controlplane.reports.wording import (
    axis_title,
    closed,
    counted,
    figure_title,
    more_is_better,
    number,
    said,
    unit,
    value_words,
)

_UNSET = "as in base"


def pareto(findings: Findings) -> Chart | Absent:
    name, title = "pareto", "What throughput costs in latency"
    across, up = findings.pace, findings.latency
    under, figures_of = findings.load_words, findings.under_main
    if sum(1 for trial in findings.material.trials if up in figures_of(trial)) < 2:
        under, figures_of = "the highest rate of each", lambda trial: findings.figures.get(trial.number, {})
    rows: list[JsonObject] = []
    for standing in findings.standings.values():
        figures = figures_of(standing.trial)
        if across is None or up is None or across not in figures or up not in figures:
            continue
        done, took = figures[across], figures[up]
        rows.append({
            "trial": findings.label(standing.trial),
            "number": str(standing.trial.number),
            "group": group(standing.place),
            "named": standing.place in {Place.CHOSEN, Place.FRONT},
            "x": done.value, "x_low": done.low if closed(done) else None, "x_high": done.high if closed(done) else None,
            "y": took.value, "low": took.low if closed(took) else None, "high": took.high if closed(took) else None,
            "tip": f"{findings.label(standing.trial)}: {said(done, unit(across))}, {figure_title(up)} {said(took, unit(up))}",
        })  # fmt: skip
    if across is None or up is None or len(rows) < 2:
        return Absent(
            name,
            title,
            "fewer than two trials have both a rate and a latency under one load: the search held them against each other by one figure",
        )
    points = findings.main if under == findings.load_words else findings.held
    answers = sum(point.answers for point in points.values())
    numbers = [float(str(row["y"])) for row in rows]
    scale, ticks = scaled([*numbers, *(bound.value for bound in findings.bounds(up))], zero=False)
    x_more: JsonObject = {
        "title": axis_title(across),
        "scale": {"zero": False, "nice": True, "padding": 22},
        "axis": {"tickCount": 8},
    }
    y_more: JsonObject = {"title": axis_title(up), "scale": {**scale, "padding": 22}, "axis": ticks}
    x, y = channel("x", **x_more), channel("y", **y_more)
    colour, shape = by_group([str(row["group"]) for row in rows])
    front = sorted((row for row in rows if row["named"]), key=lambda row: float(str(row["x"])))
    two = len(front) > 1 and len(findings.material.asked.figures) <= 2  # of more figures a front is no line
    whisker: JsonObject = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.7, "aria": False}
    layers = [
        layer(front if two else [], {"type": "line", "color": DAY["green"], "strokeWidth": 1.5, "aria": False}, x=x, y=y,
              order=channel("x")),
        layer([row for row in rows if row["low"] is not None], whisker, x=x, y=channel("low", **y_more), y2={"field": "high"},
              color=colour),
        layer([row for row in rows if row["x_low"] is not None], whisker, x=channel("x_low", **x_more), x2={"field": "x_high"}, y=y,
              color=colour),
        layer(rows[::-1], {"type": "point", "filled": True, "size": 85, "opacity": 1}, x=x, y=y, color=colour, shape=shape,
              description=channel("tip", "nominal")),
        *(
            part
            for group_of, dy in (("chosen", -16), ("on the front", 17))
            for part in haloed([row for row in front if row["group"] == group_of], {"dy": dy, "fontWeight": "bold"}, x=x, y=y,
                               text=channel("number", "nominal"))
        ),
        *bound_lines(findings.bounds(up), "y", axis_title(up)),
        *bound_lines(findings.bounds(across), "x", axis_title(across)),
    ]  # fmt: skip
    caption = [
        (
            f"{axis_title(up)}, less is better, over {figure_title(across)} ({unit(across)}), more is better, under {under}; "
            f"{counted(len(rows), 'trial')}, {counted(answers, 'answer')}."
        ),
        "Bars are intervals of 95 % over blocks. With numbers: the front." + (" The line joins it." if two else ""),
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
        height=400,
        aside=bool(findings.bounds(up)),
    )


def heat_map(findings: Findings) -> Chart | Absent:
    """Over the two parameters that tell the most about the figure; of trials with the same two, the best."""
    title, figure = "Two parameters together", findings.pace or findings.latency
    values = {
        trial.number: findings.under_main(trial)[figure].value
        for trial in findings.material.trials
        if figure is not None and figure in findings.under_main(trial)
    }
    able = [trial for trial in findings.material.trials if trial.number in values]
    names = sorted({name for trial in able for name in trial.parameters})
    varied = [name for name in names if len({_key(trial, name) for trial in able}) > 1]
    if figure is None or len(varied) < 2:
        return Absent("heat", title, "fewer than two parameters differ among the measured trials")
    ranked = sorted(varied, key=lambda name: -_told(able, name, values))
    first, second = next(
        (pair for pair in combinations(ranked, 2) if not _same_split(able, *pair)), (ranked[0], ranked[1])
    )
    across, down = sorted((first, second), key=lambda name: -len({_key(trial, name) for trial in able}))
    best = max if more_is_better(figure) else min
    cells: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in able:
        cells[_key(trial, across), _key(trial, down)].append(trial)
    rows: list[JsonObject] = []
    for (x, y), held in cells.items():
        winner = best(held, key=lambda trial: values[trial.number])
        value = values[winner.number]
        rows.append({
            "x": x, "y": y, "value": value, "said": number(value), "n": f"trial {winner.number}" + (f", best of {len(held)}" if len(held) > 1 else ""),
            "tip": f"{across} {x}, {down} {y}: {number(value)} {unit(figure)}, trial {winner.number}, best of {len(held)}",
        })  # fmt: skip
    strongest = sorted(values[number_] for number_ in values)
    edge = min(strongest) + 5 / 7 * (max(strongest) - min(strongest))
    x_axis = channel(
        "x",
        "nominal",
        title=across,
        sort=_ordered(able, across),
        axis={"labelAngle": 0, "labelColor": DAY["ink"], "labelLimit": 150},
    )
    y_axis = channel(
        "y", "nominal", title=down, sort=_ordered(able, down), axis={"labelColor": DAY["ink"], "labelLimit": 200}
    )
    heat: JsonObject = {"type": "quantize", "range": list(HEAT), "domain": [strongest[0], strongest[-1]], "nice": False}
    layers = [
        layer(rows, {"type": "rect", "stroke": DAY["surface"], "strokeWidth": 3, "cornerRadius": 5}, x=x_axis, y=y_axis,
              color=channel("value", scale=heat, legend=None), description=channel("tip", "nominal")),
        *(
            layer([row for row in rows if (float(str(row["value"])) >= edge) is dark],
                  {"type": "text", "color": DAY["reversed" if dark else "ink"], "dy": dy, "fontSize": size, "fontWeight": weight},
                  x=x_axis, y=y_axis, text=channel(field, "nominal"))
            for dark in (True, False)
            for field, dy, size, weight in (("said", -6, 14, "bold"), ("n", 11, 11, "normal"))
        ),
    ]  # fmt: skip
    caption = [
        f"{axis_title(figure)} by {down} and {across}, under {findings.load_words}; {counted(len(able), 'trial')}, {counted(findings.answers, 'answer')}.",
        "In a cell the best of the trials that share it, by its estimate; its interval stands in the table. Empty: not measured.",
    ]  # fmt: skip
    downs = len({_key(trial, down) for trial in able})
    return chart("heat", title, caption, " ".join(f"{row['tip']}." for row in rows), layers, height=100 + 62 * downs)


def _told(trials: Sequence[Trial], name: str, values: Mapping[int, float]) -> float:
    """The share of the figure's variance that lies between the values of the parameter."""
    groups: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        groups[_key(trial, name)].append(values[trial.number])
    mean = sum(values.values()) / len(values)
    whole = sum((value - mean) ** 2 for value in values.values())
    between = sum(len(held) * (sum(held) / len(held) - mean) ** 2 for held in groups.values())
    return between / whole if whole else 0.0


def _same_split(trials: Sequence[Trial], one: str, other: str) -> bool:
    """Parameters that always change together would make a diagonal."""
    pairs = {(_key(trial, one), _key(trial, other)) for trial in trials}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def _key(trial: Trial, name: str) -> str:
    return value_words(trial.parameters[name]) if name in trial.parameters else _UNSET


def _ordered(trials: Sequence[Trial], name: str) -> Json:
    """Numbers by size, then words, then what has no value."""
    found = {_key(trial, name): trial.parameters.get(name) for trial in trials}

    def place(key: str) -> tuple[int, float, str]:
        value = found[key]
        if key == _UNSET:
            return 2, 0.0, ""
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return (0, float(str(value)), "") if numeric else (1, 0.0, json.dumps(value, sort_keys=True, default=str))

    return sorted(found, key=place)
