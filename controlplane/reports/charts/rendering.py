# From a spec to a picture: the only file that knows the plotting library.
from __future__ import annotations

import re
from functools import cache
from types import ModuleType

from controlplane.errors import RuntimeUnavailable
from controlplane.reports.charts.chart import Chart

_VEGA_LITE = "6.4"
_SCALE = 2.0
"""Pixels of a PNG to a point."""
_LABELLED = re.compile(r'<(path|rect|image)( [^>]*\baria-label="([^"]*)"[^>]*?)/>')


def svg(chart: Chart) -> str:
    """Raises RuntimeUnavailable when the library is not installed."""
    return str(_library().vegalite_to_svg(chart.spec, vl_version=_VEGA_LITE, allowed_base_urls=[]))


def inline_svg(chart: Chart) -> str:
    """For a page: without title, whose marks tell what they are when pointed at. Raises RuntimeUnavailable."""
    drawn = svg(chart.bare())
    drawn = re.sub(r' xmlns(?::xlink)?="[^"]*"| version="[^"]*"', "", drawn, count=3)
    return _LABELLED.sub(r"<\1\2><title>\3</title></\1>", drawn)


def png(chart: Chart) -> bytes:
    """Raises RuntimeUnavailable when the library is not installed."""
    return bytes(_library().vegalite_to_png(chart.spec, vl_version=_VEGA_LITE, scale=_SCALE, allowed_base_urls=[]))


@cache
def _library() -> ModuleType:
    try:
        import vl_convert
    except ImportError:
        raise RuntimeUnavailable(
            "the charts are drawn by vl-convert, which is not installed",
            hint="pip install 'triton-controlplane[report]', or take the summary without charts: --format md",
        ) from None
    return vl_convert
