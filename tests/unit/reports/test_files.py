# The files of a report; and what is said where the plotting library is not there.
from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from controlplane.errors import InvalidInput
from controlplane.reports.charts.chart import Chart
from controlplane.reports.charts.every import charts
from controlplane.reports.files import report
from controlplane.reports.standings import Findings
from tests.unit.reports import synthetic


def test_a_page_and_a_summary_are_one_file_each_and_pictures_one_for_each_chart(rising: Findings) -> None:
    assert [*report(rising, "html")] == ["sweep-12.html"]
    assert [*report(rising, "md")] == ["sweep-12.md"]
    made = report(rising, "svg")
    assert [*made] == [f"{one.name}.svg" for one in charts(rising) if isinstance(one, Chart)]
    assert len(made) >= 6
    assert all(data.startswith(b"<svg ") for data in made.values())


def test_pictures_of_nothing_are_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidInput) as caught:
        report(Findings(synthetic.queued()), "png")
    assert caught.value.message == "sweep 12 has nothing to draw: no block shows anything"
    assert caught.value.hint == "tritonctl sweep report 12 --format md"
    with pytest.raises(InvalidInput) as caught:
        report(Findings(replace(synthetic.queued(), capsule="x y.capsule")), "png")
    assert caught.value.hint == "tritonctl sweep report 'x y.capsule' --format md"


def test_without_the_plotting_library_the_extra_is_named_and_the_summary_works() -> None:
    script = """
import sys
sys.modules["vl_convert"] = None  # as where it is not installed
from controlplane.errors import RuntimeUnavailable
from controlplane.reports.charts.chart import Chart
from controlplane.reports.charts.every import charts
from controlplane.reports.files import report
from controlplane.reports.standings import Findings
from tests.unit.reports import synthetic
found = Findings(synthetic.rising(most=4))
assert report(found, "md")["sweep-12.md"].startswith(b"# Sweep 12")
try:
    report(found, "html")
except RuntimeUnavailable as error:
    print(error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "the charts are drawn by vl-convert, which is not installed | "
        "pip install 'triton-controlplane[report]', or take the summary without charts: --format md\n"
    )
