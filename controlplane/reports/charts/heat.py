# The heat map of a sweep over the two parameters that tell the most.
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweeps import Trial
from controlplane.reports.charts.chart import Absent, Chart, channel, chart, layer
from controlplane.reports.standings import Findings
from controlplane.reports.theme import DAY, HEAT
from controlplane.reports.wording import axis_title, counted, more_is_better, number, unit, value_words

_UNSET = "as in base"
_DARK = 5 / 7
"""From this shade on text is reversed."""


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
    shown = [float(str(row["value"])) for row in rows]
    low, high = min(shown), max(shown)
    for row, value in zip(rows, shown, strict=True):
        share = (value - low) / (high - low) if high > low else 1.0
        row["shade"] = share if more_is_better(figure) else 1 - share
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
    heat: JsonObject = {"type": "quantize", "range": list(HEAT), "domain": [0, 1], "nice": False}
    layers = [
        layer(rows, {"type": "rect", "stroke": DAY["surface"], "strokeWidth": 3, "cornerRadius": 5}, x=x_axis, y=y_axis,
              color=channel("shade", scale=heat, legend=None), description=channel("tip", "nominal")),
        *(
            layer([row for row in rows if (float(str(row["shade"])) >= _DARK) is dark],
                  {"type": "text", "color": DAY["reversed" if dark else "ink"], "dy": dy, "fontSize": size, "fontWeight": weight},
                  x=x_axis, y=y_axis, text=channel(field, "nominal"))
            for dark in (True, False)
            for field, dy, size, weight in (("said", -6, 14, "bold"), ("n", 11, 11, "normal"))
        ),
    ]  # fmt: skip
    caption = [
        f"{axis_title(figure)} by {down} and {across}, under {findings.load_words}; {counted(len(able), 'trial')}, {counted(findings.answers, 'answer')}.",
        "In a cell the best of the trials that share it, by its estimate; its interval stands in the table. The darker the better; empty: not measured.",
    ]  # fmt: skip
    downs = len({_key(trial, down) for trial in able})
    return chart("heat", title, caption, " ".join(f"{row['tip']}." for row in rows), layers, height=62 * downs)


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
