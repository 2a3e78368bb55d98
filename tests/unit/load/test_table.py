# The pages that people read, as golden files.
"""Write them anew with `TRITONCTL_GOLDEN=write pytest tests/unit/load/test_table.py`, and read the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clients.load.runs import Report
from clients.load.table import about, block, summary
from tests.unit.load.reports import full, plain


@pytest.mark.parametrize(("name", "report"), [("full", full()), ("plain", plain())], ids=["full", "plain"])
def test_a_report_reads_as_the_golden_one(name: str, report: Report) -> None:
    pages = [about(report.subject, report.options), *(block(point) for point in report.points), summary(report)]
    shown = "\n\n".join(pages) + "\n"
    golden = Path(__file__).with_name(f"table_{name}.txt")
    if os.environ.get("TRITONCTL_GOLDEN") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text()
