# How reports look: every colour, by day and by night, and every font; in the charts and on the page.
"""The hues are those of Okabe and Ito (2008, *Color Universal Design*), which people with any kind of colour vision can tell
apart, darkened for text on white or lightened for text on black. No chart tells anything by colour alone.

Charts are drawn by day. On a page a tone is found again by its colour by day, so no two tones have the same."""

from __future__ import annotations

from controlplane.domain.canonical import JsonObject

TONES: dict[str, tuple[str, str]] = {
    "ink": ("#191c22", "#eceef2"),
    "muted": ("#59616e", "#a5aebb"),
    "rest": ("#a7aebb", "#697383"),
    "line": ("#ccd2da", "#3b434f"),
    "grid": ("#e6e9ee", "#2a3039"),
    "panel": ("#f5f7f9", "#1b2027"),
    "surface": ("#ffffff", "#13161b"),
    "reversed": ("#fefefe", "#0c0f13"),
    "blue": ("#0067a5", "#5cb6ee"),
    "vermilion": ("#c94f00", "#ff8b4a"),
    "green": ("#007d5b", "#2fc79b"),
    "purple": ("#a8457f", "#e79bc5"),
    "orange": ("#b57400", "#f2b134"),
    "sky": ("#3f97cc", "#9bd3f7"),
    "heat_1": ("#eef5fa", "#15222c"),
    "heat_2": ("#d5e7f3", "#1a3244"),
    "heat_3": ("#b4d3e9", "#1f4763"),
    "heat_4": ("#86b8da", "#295f86"),
    "heat_5": ("#5799c5", "#397cab"),
    "heat_6": ("#2c79ad", "#5fa4d0"),
    "heat_7": ("#0c588c", "#98cbec"),
}
"""Colours by name: by day and by night."""

DAY = {name: day for name, (day, _) in TONES.items()}
SERIES = tuple(DAY[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky"))
"""Of the trials that have a colour of their own, in their order."""
HEAT = tuple(DAY[f"heat_{step}"] for step in range(1, 8))
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
"""As SERIES, so that the trials can be told apart without colour."""

CHART_FONT = "Liberation Sans, Arial, Helvetica, DejaVu Sans Condensed, sans-serif"
"""Of one width on nearly every machine: the renderer has the first of them with it, and the others have its measures."""
PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
CODE_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"

WIDTH = 800
"""Of a chart, with its axes; in points."""


def chart_config() -> JsonObject:
    """Vega-Lite's `config` of every chart."""
    return {
        "font": CHART_FONT,
        "background": DAY["surface"],
        "title": {
            "anchor": "start",
            "frame": "bounds",
            "color": DAY["ink"],
            "fontSize": 17,
            "fontWeight": "bold",
            "subtitleColor": DAY["muted"],
            "subtitleFontSize": 12.5,
            "subtitleLineHeight": 17,
            "subtitlePadding": 6,
            "offset": 16,
        },
        "axis": {
            "domainColor": DAY["line"],
            "tickColor": DAY["line"],
            "gridColor": DAY["grid"],
            "labelColor": DAY["muted"],
            "labelFontSize": 12,
            "labelPadding": 6,
            "titleColor": DAY["ink"],
            "titleFontSize": 12.5,
            "titleFontWeight": "normal",
            "titlePadding": 12,
        },
        "axisQuantitative": {"labelOverlap": "greedy", "labelSeparation": 8},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "bottom",
            "direction": "vertical",
            "labelColor": DAY["ink"],
            "labelFontSize": 12.5,
            "labelLimit": 360,
            "symbolSize": 90,
            "symbolStrokeWidth": 2,
            "rowPadding": 5,
            "columnPadding": 28,
            "offset": 16,
            "title": None,
        },
        "view": {"stroke": None},
        "text": {"font": CHART_FONT, "fontSize": 12, "color": DAY["ink"]},
        "range": {"category": list(SERIES)},
    }


def variables() -> str:
    """CSS: the tones and fonts as custom properties, by day and, where the reader's system asks for it, by night."""
    day = "".join(f"--{name.replace('_', '-')}:{day};" for name, (day, _) in TONES.items())
    night = "".join(f"--{name.replace('_', '-')}:{night};" for name, (_, night) in TONES.items())
    fonts = f"--page-font:{PAGE_FONT};--code-font:{CODE_FONT};"
    return (
        f":root{{color-scheme:light dark;{fonts}{day}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{night}}}}}"
    )


def chart_rules() -> str:
    """CSS that gives the charts of a page its tones."""
    return "\n".join(
        f'.chart [fill="{day}"]{{fill:var(--{name.replace("_", "-")})}}'
        f'.chart [stroke="{day}"]{{stroke:var(--{name.replace("_", "-")})}}'
        for name, (day, _) in TONES.items()
    )
