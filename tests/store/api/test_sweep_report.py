# The report of a sweep by the command line: from rows in a database by the API to files.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane.reports.material import Material
from controlplane.reports.page import page
from controlplane.reports.standings import Findings
from controlplane.reports.summary import markdown
from tests.store.api.conftest import Api, Cli
from tests.unit.reports import synthetic

pytestmark = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def material(api: Api) -> Material:
    """Kept as sweep 1."""
    found = synthetic.rising(most=6, sweep=1)
    with api.storage.write() as unit:
        assert unit.sweeps.add(found.sweep, found.trials).id == 1
        for one in found.measurements:
            unit.sweeps.take(one, 1)
    return found


def test_the_page_is_that_of_the_rows(cli: Cli, material: Material, tmp_path: Path) -> None:
    """What comes over the wire is what was kept, to the last digit: the evidence digest can be taken again from it."""
    file = tmp_path / "there" / "report.html"
    assert cli("sweep", "report", "1", "--out", str(file)) == f"wrote {file}\n"
    written = file.read_text()
    assert f"{material.sweep.evidence}</code>" in written
    assert "it is the same." in written
    assert file.parent.stat().st_mode & 0o777 == 0o755
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    alone = Material(material.sweep, material.trials, material.measurements)
    assert written == page(Findings(alone))


def test_the_summary_goes_to_stdout_and_to_a_file(cli: Cli, material: Material, tmp_path: Path) -> None:
    said = cli("sweep", "report", "1", "--format", "md", "--context", "viewer")
    assert said == markdown(Findings(Material(material.sweep, material.trials, material.measurements)))
    file = tmp_path / "summary.md"
    assert cli.json("sweep", "report", "1", "--out", str(file)) == [str(file)]
    assert file.read_text() == said


def test_pictures_go_into_a_directory(
    cli: Cli, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrote = cli("sweep", "report", "1", "--format", "svg").split("\n")
    assert wrote[0] == "wrote sweep-1/trials.svg"
    for line in filter(None, wrote):
        assert Path(line.removeprefix("wrote ")).read_text().startswith("<svg ")


@pytest.mark.usefixtures("material")
def test_what_cannot_be_written_is_said_before_or_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    said = cli("sweep", "report", "1", "--format", "png", "--out", "-", status=2)
    assert "only html and md can go to stdout" in said
    (tmp_path / "file").write_text("")
    said = cli("sweep", "report", "1", "--out", str(tmp_path / "file" / "report.html"), status=2)
    assert re.search(r"file/report\.html: (Not a directory|File exists)", said)
    assert "there is no sweep 9" in cli("sweep", "report", "9", status=4)
