# A chart: its Vega-Lite spec, and in words what it shows.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from textwrap import wrap

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweeps import Trial
from controlplane.reports.standings import Bound, Findings
from controlplane.reports.theme import DAY, SERIES, SHAPES, WIDTH, chart_config
from controlplane.reports.wording import listed

_WIDE = 15.0
"""From the least to the most: beyond it an axis is logarithmic."""
_NEAR = 0.4
"""Where the least is more than this share of the most, an axis from zero would be empty for the most part."""
_BEYOND = 1.5
"""How far the ends of intervals may stretch an axis beyond its values."""
_TICKS = 8
_LINE = 134
"""Characters of a caption that fit beside each other."""
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


@dataclass(frozen=True, slots=True)
class Chart:
    """`name` is that of its file. `caption` says units, what n is, and what the intervals are; `alt` what there is to see, for who
    does not see it. `spec` has title and caption in it, so that its picture stands alone."""

    name: str
    title: str
    caption: str
    alt: str
    spec: JsonObject

    def bare(self) -> Chart:
        """Without title and caption in the picture, for a page that has them."""
        return replace(self, spec={name: value for name, value in self.spec.items() if name != "title"})


@dataclass(frozen=True, slots=True)
class Absent:
    """A chart that this sweep has nothing for, and why."""

    name: str
    title: str
    reason: str


def chart(
    name: str,
    title: str,
    caption: Sequence[str],
    alt: str,
    layers: Sequence[JsonObject],
    *,
    height: int,
    aside: bool = False,
) -> Chart:
    """`caption`: sentences; in the picture each begins a line. `height` is that between the axes; `aside`:
    there is something to read at their right."""
    lines: Json = [line for sentence in caption for line in wrap(sentence, _LINE, break_on_hyphens=False)]
    spec: JsonObject = {
        "$schema": SCHEMA,
        "title": {"text": title, "subtitle": lines},
        "description": alt,
        "width": WIDTH,
        "height": height,
        "padding": {"left": 12, "right": 76 if aside else 16, "top": 12, "bottom": 12},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": chart_config(),
        "layer": list(layers),
    }
    return Chart(name, title, " ".join(caption), alt, spec)


def layer(values: Sequence[JsonObject], mark: JsonObject, **encoding: Json) -> JsonObject:
    """Data, mark and channels. What people wrote is only ever a value of the data, never part of an expression."""
    return {"data": {"values": list(values)}, "mark": mark, "encoding": dict(encoding)}


def channel(field: str, kind: str = "quantitative", /, **more: Json) -> JsonObject:
    return {"field": field, "type": kind, **more}


def by_trial(findings: Findings, trials: Sequence[Trial]) -> tuple[JsonObject, JsonObject]:
    """Colour and shape of the featured trials: the same in every chart."""
    featured = [trial.number for trial in findings.featured]
    places = [featured.index(trial.number) for trial in trials]
    return pair("trial", [findings.label(trial) for trial in trials], [SERIES[place] for place in places],
                [SHAPES[place] for place in places], columns=2)  # fmt: skip


def pair(
    field: str, names: Sequence[str], colours: Sequence[str], shapes: Sequence[str], *, columns: int
) -> tuple[JsonObject, JsonObject]:
    """Colour and shape by name, in one legend."""
    legend: JsonObject = {"columns": columns, "symbolOpacity": 1}
    return (
        channel(field, "nominal", scale={"domain": list(names), "range": list(colours)}, legend=legend),
        channel(field, "nominal", scale={"domain": list(names), "range": list(shapes)}, legend=legend),
    )


def bound_lines(bounds: Sequence[Bound], axis: str, title: str) -> list[JsonObject]:
    """Of hard objectives, dashed across the chart, the bound itself beside it, where no mark can be; `axis` is that of the bounded
    figure."""
    if not bounds:
        return []
    rows: list[JsonObject] = [{"at": one.value, "short": one.short, "words": one.words} for one in bounds]
    place = {axis: channel("at", title=title)}
    if axis == "y":
        along: JsonObject = {"x": {"value": "width"}}
        text: JsonObject = {"align": "left", "baseline": "middle", "dx": 8}
    else:
        along, text = {"y": {"value": 0}}, {"align": "center", "baseline": "bottom", "dy": -6}
    return [
        layer(rows, {"type": "rule", "color": DAY["ink"], "strokeDash": [5, 4], "strokeWidth": 1.1}, **place,
              description=channel("words", "nominal")),
        layer(rows, {"type": "text", "fontSize": 11.5, **text}, **place, **along, text=channel("short", "nominal")),
    ]  # fmt: skip


def bound_words(*bounds: Sequence[Bound]) -> list[str]:
    """A sentence for the caption, or none."""
    said = [one.words for each in bounds for one in each]
    return [f"Dashed: {listed(said)}."] if said else []


def haloed(rows: Sequence[JsonObject], mark: JsonObject, **encoding: Json) -> list[JsonObject]:
    """Text that can be read over lines."""
    under: JsonObject = {"stroke": DAY["surface"], "strokeWidth": 4, "strokeJoin": "round", "aria": False}
    return [
        layer(rows, {"type": "text", "color": DAY["surface"], **mark, **under}, **encoding),
        layer(rows, {"type": "text", "color": DAY["ink"], **mark}, **encoding),
    ]


def row_labels(rows: Sequence[tuple[str, str, str]]) -> tuple[JsonObject, list[JsonObject]]:
    """The vertical axis of a chart with a row for each point, given as key, trial and load: the trial is said once, and the load only
    where there are several."""
    several = len({load for _, _, load in rows}) > 1
    first: dict[str, str] = {}
    for key, trial, _ in rows:
        first.setdefault(trial, key)
    keys: Json = [key for key, _, _ in rows]
    y = channel("row", "nominal", sort=keys, title=None, axis={"labels": False, "minExtent": 330 if several else 270})
    trials: list[JsonObject] = [{"row": key, "words": trial} for trial, key in first.items()]
    loads: list[JsonObject] = [{"row": key, "words": load} for key, _, load in rows] if several else []
    words = channel("words", "nominal")
    return y, [
        layer(
            shown,
            {"type": "text", "align": align, "limit": limit, "color": DAY[tone]},
            y=y,
            x={"value": at},
            text=words,
        )
        for shown, align, limit, tone, at in (
            (trials, "left" if several else "right", 232 if several else 262, "ink", -328 if several else -10),
            (loads, "right", 92, "muted", -10),
        )
    ]


@dataclass(frozen=True, slots=True)
class Axis:
    """A quantitative axis: `more` are what its channels have besides the field, `low` and `high` the ends of its domain."""

    more: JsonObject
    low: float
    high: float

    def __call__(self, field: str) -> JsonObject:
        return channel(field, **self.more)

    def spans(self, rows: Sequence[JsonObject], low: str, high: str) -> list[JsonObject]:
        """Of the rows that have an interval, with `from` and `to` as far as they can be drawn."""
        ends = [(row, row[low], row[high]) for row in rows]
        return [
            {**row, "from": max(start, self.low), "to": min(end, self.high)}
            for row, start, end in ends
            if isinstance(start, float) and isinstance(end, float)
        ]

    def cuts(self, rows: Sequence[JsonObject], low: str, high: str) -> bool:
        return any(row["from"] != row[low] or row["to"] != row[high] for row in self.spans(rows, low, high))


CUT = "A bar that ends at the edge goes on beyond it."


def axis(title: str, values: Sequence[float], ends: Sequence[Json] = (), *, zero: bool = False) -> Axis:
    """Room for the values, and for the ends of their intervals unless these lie far beyond; logarithmic where the values lie far
    apart. `zero`: a linear one begins there in any case; else where most of it would not be empty."""
    bottom, top = min(values), max(values)
    near = [end for end in ends if isinstance(end, float) and bottom / _BEYOND <= end <= _BEYOND * top]
    low, high = min([bottom, *near]), max([top, *near])
    if bottom > 0 and top > _WIDE * bottom:
        low, high = low * 0.85, high * 1.18
        rounds = [
            digit * 10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1) for digit in (1, 2, 5)
        ]
        inside: Json = [value for value in rounds if low <= value <= high]
        log: JsonObject = {"type": "log", "domain": [low, high], "nice": False}
        return Axis({"title": title, "scale": log, "axis": {"values": inside}}, low, high)
    room = (high - low or high) * 0.06
    low = 0.0 if zero or low < _NEAR * high else low - room
    step = _step((high + room - low) / _TICKS)
    low, high = floor(low / step) * step, ceil((high + room) / step) * step
    scale: JsonObject = {"domain": [low, high], "nice": False}
    return Axis({"title": title, "scale": scale, "axis": {"tickCount": _TICKS}}, low, high)


def _step(least: float) -> float:
    """The next round number."""
    power = 10.0 ** floor(log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least)
