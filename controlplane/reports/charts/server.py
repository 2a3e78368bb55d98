# What happens inside the server: where a request's time goes, and how large the batches really are.
from __future__ import annotations

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_rounds import Stage
from controlplane.reports.charts.chart import Absent, Chart, channel, chart, layer, row_labels
from controlplane.reports.points import Point, executions, step_short, step_words, times_in_server
from controlplane.reports.standings import Findings
from controlplane.reports.theme import DAY, HEAT
from controlplane.reports.wording import counted, number

_PARTS = {
    "queue": ("queue", DAY["orange"]),
    "input": ("input", DAY["sky"]),
    "infer": ("compute", DAY["blue"]),
    "output": ("output", DAY["green"]),
    "other": ("other", DAY["rest"]),
}
_MOST_BARS = 24
_MOST_SIZES = 14


def shares(findings: Findings) -> Chart | Absent:
    name, title = "shares", "Where the time goes in the server"
    told = [(point, times_in_server(point.blocks)) for point in _ours(findings)]
    told = [(point, times) for point, times in told if times]
    if not told:
        return Absent(name, title, "the server told no statistics")
    rows: list[JsonObject] = []
    totals: list[JsonObject] = []
    for point, times in told[:_MOST_BARS]:
        whole, key, bar = sum(times.values()), _key(point), _words(findings, point)
        totals.append({"row": key, "said": f"{number(whole)} ms", "at": 1.0})
        rows += [
            {
                "row": key,
                "part": _PARTS[part][0],
                "order": order,
                "share": mean / whole if whole else 0.0,
                "said": f"{100 * mean / whole:.0f} %" if whole and mean / whole >= 0.06 else "",
                "middle": (sum(list(times.values())[:order]) + mean / 2) / whole if whole else 0.0,
                "tip": f"{bar}: {_PARTS[part][0]} {number(mean)} ms, {100 * mean / whole if whole else 0:.1f} %",
            }
            for order, (part, mean) in enumerate(times.items())
        ]
    y, labels = row_labels([_row(findings, point) for point, _ in told[:_MOST_BARS]])
    axis: JsonObject = {"format": "%", "tickCount": 5}
    scale: JsonObject = {"domain": [0, 1.12], "nice": False}
    axis["values"] = [0, 0.25, 0.5, 0.75, 1]
    x_more: JsonObject = {"title": "Share of the mean request's time in the server", "scale": scale, "axis": axis}
    parts = {"domain": [word for word, _ in _PARTS.values()], "range": [tone for _, tone in _PARTS.values()]}
    layers = [
        layer(rows, {"type": "bar", "height": {"band": 0.72}}, x=channel("share", stack="zero", **x_more), y=y,
              color=channel("part", "nominal", scale=parts, legend={"columns": 5, "symbolType": "square"}),
              order=channel("order"), description=channel("tip", "nominal")),
        layer([row for row in rows if row["said"]], {"type": "text", "color": DAY["reversed"], "fontSize": 11}, x=channel("middle", **x_more), y=y,
              text=channel("said", "nominal")),
        layer(totals, {"type": "text", "align": "left", "dx": 8}, x=channel("at", **x_more), y=y, text=channel("said", "nominal")),
        *labels,
    ]  # fmt: skip
    requests = sum(block.server.get("succeeded", 0) for point, _ in told for block in point.blocks)
    left_out = f" The first {_MOST_BARS} of {len(told)}." if len(told) > _MOST_BARS else ""
    caption = [
        f"Means over the successful requests, by the server's own statistics; at the right the whole, in ms; n = {requests:,}.",
        "Sums are exact, so there is no interval; 'other' is what the server does between the parts." + left_out,
    ]
    alt = " ".join(f"{row['tip']}." for row in rows if row["part"] in {"queue", "compute"})
    return chart(name, title, caption, alt, layers, height=25 * len(totals))


def batch_sizes(findings: Findings) -> Chart | Absent:
    name, title = "batches", "Batches that really happened"
    told = [(point, executions(point.blocks)) for point in _ours(findings)]
    told = [(point, counts) for point, counts in told if counts][:_MOST_BARS]
    if not told:
        return Absent(name, title, "the server told no batch sizes")
    bins = _bins(sorted({size for _, counts in told for size in counts}))
    rows: list[JsonObject] = []
    for point, counts in told:
        whole, bar = sum(counts.values()), _words(findings, point)
        for word, low, high in bins:
            count = sum(number_ for size, number_ in counts.items() if low <= size <= high)
            if count:
                share = count / whole
                rows.append({
                    "row": _key(point), "size": word, "share": share, "said": f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %",
                    "tip": f"{bar}: {count:,} of {counted(whole, 'execution')} with {word} rows",
                })  # fmt: skip
    words: Json = [word for word, _, _ in bins]
    y, labels = row_labels([_row(findings, point) for point, _ in told])
    x = channel("size", "nominal", sort=words, title="Rows of an execution", axis={"labelAngle": 0})
    heat: JsonObject = {"type": "quantize", "domain": [0, 1], "range": list(HEAT), "nice": False}
    dark = [row for row in rows if float(str(row["share"])) >= 5 / 7]
    light = [row for row in rows if float(str(row["share"])) < 5 / 7]
    layers = [
        layer(rows, {"type": "rect", "stroke": DAY["surface"], "strokeWidth": 2, "cornerRadius": 3}, x=x, y=y,
              color=channel("share", scale=heat, legend=None), description=channel("tip", "nominal")),
        layer(dark, {"type": "text", "color": DAY["reversed"], "fontSize": 11}, x=x, y=y, text=channel("said", "nominal")),
        layer(light, {"type": "text", "color": DAY["ink"], "fontSize": 11}, x=x, y=y, text=channel("said", "nominal")),
        *labels,
    ]  # fmt: skip
    executed = sum(sum(counts.values()) for _, counts in told)
    caption = [
        f"Share of a trial's executions (%) by the rows that were joined in one, counted by the server; n = {executed:,} executions.",
        "Counts are exact, so there is no interval. A small batch under a heavy load says that nothing was waiting to be joined.",
    ]
    return chart(name, title, caption, " ".join(f"{row['tip']}." for row in rows), layers, height=27 * len(told))


def _ours(findings: Findings) -> list[Point]:
    """Points of the featured trials, trial by trial, the loads of each from light to heavy; of the search for the highest rate only
    what it came to."""
    order = {trial.number: place for place, trial in enumerate(findings.featured)}
    there = [
        point
        for point in findings.points
        if point.trial.number in order
        and (point.stage is not Stage.RATE or findings.held.get(point.trial.number) is point)
    ]
    return sorted(there, key=lambda point: (order[point.trial.number], point.load or 0.0))


def _key(point: Point) -> str:
    return f"{point.trial.number} {point.step.label}"


def _row(findings: Findings, point: Point) -> tuple[str, str, str]:
    return _key(point), findings.label(point.trial), step_short(point.step)


def _words(findings: Findings, point: Point) -> str:
    return f"{findings.label(point.trial)}, {step_words(point.step)}"


def _bins(sizes: list[int]) -> list[tuple[str, int, int]]:
    """Each size by itself, or, of many, by powers of two."""
    if len(sizes) <= _MOST_SIZES:
        return [(str(size), size, size) for size in sizes]
    found, low = [], 1
    while low <= sizes[-1]:
        high = 2 * low - 1
        if any(low <= size <= high for size in sizes):
            found.append((str(low) if low == high else f"{low}–{high}", low, high))
        low *= 2
    return found
