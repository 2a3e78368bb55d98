# The latency-throughput curves of a sweep, with bands and the knee; and how surely each trial does how much.
from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_figures import RATE
from controlplane.domain.sweep_spec import Shape
from controlplane.domain.sweeps import Trial
from controlplane.reports.charts.chart import (
    CUT,
    Absent,
    Chart,
    axis,
    bound_lines,
    bound_words,
    by_trial,
    channel,
    chart,
    haloed,
    layer,
    pair,
)
from controlplane.reports.points import Point, knee, step_words
from controlplane.reports.standings import Findings, Place
from controlplane.reports.theme import DAY
from controlplane.reports.wording import axis_title, closed, counted, figure_title, listed, number, said, unit

_MOST_SAID = 4
_GROUPS = ("chosen", "on the front", "other", "misses a hard objective")
_GROUP_COLOURS = (DAY["blue"], DAY["green"], DAY["rest"], DAY["vermilion"])
_GROUP_SHAPES = ("diamond", "circle", "circle", "triangle-down")
_BETTER = {True: "more is better", False: "less is better"}
_INTERVALS = "Intervals are of 95 %, over the blocks of a trial; where there are too few blocks, there is none."


def latency_throughput(findings: Findings) -> Chart | Absent:
    name, title = "latency-throughput", "Latency against throughput"
    latency = findings.latency
    curves: dict[int, list[Point]] = {}
    for point in findings.points:
        if latency is not None and latency in point.figures and "throughput" in point.figures:
            curves.setdefault(point.trial.number, []).append(point)
    if latency is None or not curves:
        return Absent(name, title, "no block shows throughput and latency under a steady load")
    if len({point.step.label for curve in curves.values() for point in curve}) == 1:
        return Absent(name, title, "all blocks are under one load, and one load makes no curve")
    for curve in curves.values():
        curve.sort(key=lambda point: (point.load or 0.0, point.figures["throughput"].value))
    featured = [trial for trial in findings.featured if trial.number in curves]
    ours = {trial.number for trial in featured}
    rows = [row for curve in curves.values() for row in _curve(findings, curve, latency)]
    front, rest = ([row for row in rows if (row["number"] in ours) is own] for own in (True, False))
    knees = [
        {**row, "knee": "knee"}
        for trial in featured
        if _joined(curves[trial.number]) and (bend := knee(curves[trial.number], latency)) is not None
        for row in _curve(findings, [bend], latency)
    ]
    values = [point.figures[latency].value for curve in curves.values() for point in curve]
    bounds = findings.bounds(latency)
    paces = [point.figures["throughput"].value for curve in curves.values() for point in curve]
    y = axis(
        axis_title(latency),
        [*values, *(bound.value for bound in bounds)],
        [row[end] for row in front for end in ("low", "high")],
        zero=True,
    )
    x = axis(axis_title("throughput"), paces, [row[end] for row in front for end in ("x_low", "x_high")])
    colour, shape = by_trial(findings, featured)
    order = channel("order")
    tip = channel("tip", "nominal")
    up, across = y.spans(front, "low", "high"), x.spans(front, "x_low", "x_high")
    joined = {number for number, curve in curves.items() if _joined(curve)}
    whisker: JsonObject = {"type": "rule", "strokeWidth": 1.2, "aria": False}
    layers = [
        layer([row for row in rest if row["number"] in joined],
              {"type": "line", "color": DAY["rest"], "strokeWidth": 1, "opacity": 0.5, "aria": False},
              x=x("x"), y=y("y"), order=order, detail=channel("number", "nominal")),
        layer(rest, {"type": "point", "filled": True, "size": 22, "color": DAY["rest"]}, x=x("x"), y=y("y"), description=tip),
        layer([row for row in up if row["number"] in joined], {"type": "area", "opacity": 0.14, "aria": False}, x=x("x"), y=y("from"),
              y2={"field": "to"}, color=colour, order=order),
        layer(up, whisker, x=x("x"), y=y("from"), y2={"field": "to"}, color=colour),
        layer(across, whisker, x=x("from"), x2={"field": "to"}, y=y("y"), color=colour),
        layer([row for row in front if row["number"] in joined], {"type": "line", "strokeWidth": 2, "aria": False}, x=x("x"), y=y("y"),
              order=order, color=colour),
        layer(front, {"type": "point", "filled": True, "size": 70, "opacity": 1}, x=x("x"), y=y("y"), color=colour, shape=shape,
              description=tip),
        layer(knees, {"type": "point", "size": 260, "strokeWidth": 1.6, "color": DAY["ink"], "opacity": 1}, x=x("x"), y=y("y"),
              description=tip),
        *haloed([row for row in knees if row["number"] == featured[0].number], {"dy": -17, "fontStyle": "italic"}, x=x("x"), y=y("y"),
                text=channel("knee", "nominal")),
        *bound_lines(bounds, "y", axis_title(latency)),
    ]  # fmt: skip
    loads = {point.step.label for curve in curves.values() for point in curve}
    caption = [
        (
            f"{axis_title(latency)} over throughput (requests/s), {_loads(curves)}; {counted(len(curves), 'trial')}, "
            f"{counted(sum(point.answers for curve in curves.values() for point in curve), 'answer')}."
        ),
        "Bands and bars are intervals of 95 % over blocks. "
        + ("Grey: trials without a colour of their own. " if rest else "")
        + ("Ring: the knee, the most throughput for its latency." if knees else "No knee lies within the loads."),
        *([CUT] if y.cuts(front, "low", "high") or x.cuts(front, "x_low", "x_high") else []),
        *bound_words(bounds),
    ]
    alt = " ".join(
        f"{findings.label(trial)}: "
        + "; ".join(
            f"{said(point.figures['throughput'], 'requests/s')} at {said(point.figures[latency], unit(latency))}"
            for point in curves[trial.number]
        )
        + "."
        for trial in featured
    )
    return chart(
        name, title, caption, f"Over {counted(len(loads), 'load')}. {alt}", layers, height=310, aside=bool(bounds)
    )


def ranking(findings: Findings) -> Chart | Absent:
    """Every measured trial by what it does, with its interval: what overlaps may be the same."""
    figure = findings.pace or findings.latency
    if figure is None:
        return Absent("trials", "Trials beside each other", "no trial was measured")
    name, title = "trials", f"{figure_title(figure).capitalize()} of each trial"
    rows: list[JsonObject] = []
    for standing in findings.standings.values():
        interval = findings.under_main(standing.trial).get(figure)
        if interval is None:
            continue
        words = f"{findings.label(standing.trial)}: {said(interval, unit(figure))}"
        rows.append({
            "trial": findings.label(standing.trial),
            "group": group(standing.place),
            "value": interval.value,
            "low": interval.low if closed(interval) else None,
            "high": interval.high if closed(interval) else None,
            "said": number(interval.value),
            "tip": words,
        })  # fmt: skip
    confirmed = _confirmed(findings) if figure == RATE else []
    rows.sort(key=lambda row: -findings.worth(_trial(findings, str(row["trial"]))))
    labels: Json = [row["trial"] for row in rows]
    y = channel("trial", "nominal", sort=labels, title=None, axis={"labelLimit": 330, "labelColor": DAY["ink"]})
    numbers = [float(str(row["value"])) for row in (*rows, *confirmed)]
    numbers += [bound.value for bound in findings.bounds(figure)]
    x = axis(
        axis_title(figure), numbers, [row[end] for row in (*rows, *confirmed) for end in ("low", "high")], zero=True
    )
    colour, shape = by_group([str(row["group"]) for row in rows])
    layers = [
        layer(x.spans(rows, "low", "high"), {"type": "rule", "strokeWidth": 2, "aria": False}, x=x("from"), x2={"field": "to"}, y=y,
              color=colour),
        layer(rows, {"type": "point", "filled": True, "size": 75, "opacity": 1}, x=x("value"), y=y,
              color=colour, shape=shape, description=channel("tip", "nominal")),
        *bound_lines(findings.bounds(figure), "x", axis_title(figure)),
        layer(x.spans(confirmed, "low", "high"), {"type": "bar", "height": 4, "color": DAY["ink"], "cornerRadius": 2, "yOffset": 7, "aria": False},
              x=x("from"), x2={"field": "to"}, y=y),
        layer(confirmed, {"type": "tick", "color": DAY["ink"], "thickness": 2.5, "size": 12, "yOffset": 7}, x=x("value"), y=y,
              description=channel("tip", "nominal")),
    ]  # fmt: skip
    caption = [
        (
            f"{axis_title(figure)}, {_BETTER[not figure.startswith('latency')]}; {counted(len(rows), 'trial')}, "
            f"{counted(findings.answers, 'answer')}, under {findings.load_words}."
        ),
        _INTERVALS,
        *([CUT] if x.cuts(rows, "low", "high") or x.cuts(confirmed, "low", "high") else []),
        *bound_words(findings.bounds(figure)),
        *(
            [
                "In colour: the estimate of blocks by turns, which ranks trials and is more than one can count on.",
                "Black: the highest rate that held when it was measured again, and up to the lowest that did not.",
            ]
            if confirmed
            else []
        ),
    ]
    return chart(name, title, caption, " ".join(f"{row['tip']}." for row in rows), layers, height=22 * len(rows))


def _confirmed(findings: Findings) -> list[JsonObject]:
    """The highest rates that were confirmed, from the one that held to the lowest that did not, where one was found."""
    rows: list[JsonObject] = []
    for trial in findings.featured:
        rate = findings.figures.get(trial.number, {}).get(RATE)
        if trial.number in findings.held and rate is not None:
            missed = f"{number(rate.high)} did not" if closed(rate) else "none that was tried did not"
            words = f"{findings.label(trial)}: {number(rate.value)} requests/s held, {missed}"
            high = rate.high if closed(rate) else rate.value
            rows.append(
                {"trial": findings.label(trial), "value": rate.value, "low": rate.low, "high": high, "tip": words}
            )
    return rows


def by_group(there: Sequence[str]) -> tuple[JsonObject, JsonObject]:
    """Colour and shape by where trials ended up."""
    kept = [place for place, name in enumerate(_GROUPS) if name in there]
    picked = ([every[place] for place in kept] for every in (_GROUPS, _GROUP_COLOURS, _GROUP_SHAPES))
    return pair("group", *picked, columns=4)


def group(place: Place) -> str:
    named = {Place.CHOSEN: 0, Place.FRONT: 1, Place.MISSES: 3}
    return _GROUPS[named.get(place, 2)]


def _curve(findings: Findings, curve: Sequence[Point], latency: str) -> list[JsonObject]:
    rows: list[JsonObject] = []
    for order, point in enumerate(curve):
        x, y = point.figures["throughput"], point.figures[latency]
        rows.append({
            "number": point.trial.number,
            "trial": findings.label(point.trial),
            "order": order,
            "x": x.value,
            "x_low": x.low if closed(x) else None,
            "x_high": x.high if closed(x) else None,
            "y": y.value,
            "low": y.low if closed(y) else None,
            "high": y.high if closed(y) else None,
            "tip": f"{findings.label(point.trial)}, {step_words(point.step)}: {said(x, 'requests/s')}, "
                   f"{figure_title(latency)} {said(y, unit(latency))}, n = {point.answers:,}",
        })  # fmt: skip
    return rows


def _loads(curves: Mapping[int, Sequence[Point]]) -> str:
    steps = {point.step.label: point for curve in curves.values() for point in curve}
    ordered = sorted(steps.values(), key=lambda point: (point.load or 0.0, point.step.label))
    shapes = {point.step.shape for point in ordered}
    texts = [number(point.load or 0.0) for point in ordered]
    if shapes == {Shape.CONCURRENCY}:
        return f"with {listed(texts) if len(texts) <= _MOST_SAID else f'{texts[0]} to {texts[-1]}'} requests at once"
    if shapes == {Shape.RATE}:
        rates = f"{len(texts)} rates from {texts[0]} to {texts[-1]}"
        return f"at {listed(texts) if len(texts) <= _MOST_SAID else rates} requests/s"
    return f"under {len(ordered)} loads"


def _joined(curve: Sequence[Point]) -> bool:
    """Whether a line through its points means something: under rates that were looked for, one that could not be kept up may answer
    less than a lower one."""
    paces = [point.figures["throughput"].value for point in curve]
    return all(point.step.shape is not Shape.RATE for point in curve) or paces == sorted(paces)


def _trial(findings: Findings, label: str) -> Trial:
    return next(trial for trial in findings.material.trials if findings.label(trial) == label)
