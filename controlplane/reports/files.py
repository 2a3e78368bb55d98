# The files of a report, by format.
from __future__ import annotations

from shlex import quote

from controlplane.errors import InvalidInput
from controlplane.reports.charts.chart import Chart
from controlplane.reports.charts.every import charts
from controlplane.reports.charts.rendering import png, svg
from controlplane.reports.page import page
from controlplane.reports.standings import Findings
from controlplane.reports.summary import markdown

ONE_FILE = frozenset({"html", "md"})


def report(findings: Findings, form: str) -> dict[str, bytes]:
    """By name: one `sweep-N.html` or `sweep-N.md`, or of `svg` and `png` a file for each chart. Raises RuntimeUnavailable when there
    are charts to draw and the library for it is not installed, InvalidInput when there is none to draw."""
    number, capsule = findings.material.sweep.id, findings.material.capsule
    if form == "md":
        return {f"sweep-{number}.md": markdown(findings).encode()}
    if form == "html":
        return {f"sweep-{number}.html": page(findings).encode()}
    drawn = [one for one in charts(findings) if isinstance(one, Chart)]
    if not drawn:
        raise InvalidInput(
            f"sweep {number} has nothing to draw: no block shows anything",
            hint=f"tritonctl sweep report {number if capsule is None else quote(capsule)} --format md",
        )
    return {f"{one.name}.{form}": svg(one).encode() if form == "svg" else png(one) for one in drawn}
