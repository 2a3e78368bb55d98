# The report of a sweep by the command line: from rows in a database by the API to files.
from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.artifacts import Manifest
from controlplane.domain.canonical import JsonObject
from controlplane.domain.capsule_names import anonymized
from controlplane.domain.capsules import Capsule, CapsuleVersion
from controlplane.domain.sweep_rounds import Requests
from controlplane.reports.material import Material
from controlplane.reports.page import page
from controlplane.reports.standings import Findings
from controlplane.reports.summary import markdown
from controlplane.services.capsule_files import write_capsule
from controlplane.storage.artifacts import ObjectArtifactStore
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
        for fingerprint in found.fingerprints.values():
            unit.sweeps.keep_fingerprint(fingerprint)
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
    for fingerprint in material.fingerprints.values():
        assert fingerprint.host is not None
        assert str(fingerprint.host.cpu_model) in written
    alone = Material(material.sweep, material.trials, material.measurements, material.fingerprints)
    assert written == page(Findings(alone))


def test_the_summary_goes_to_stdout_and_to_a_file(cli: Cli, material: Material, tmp_path: Path) -> None:
    said = cli("sweep", "report", "1", "--format", "md", "--context", "viewer")
    assert said == markdown(
        Findings(Material(material.sweep, material.trials, material.measurements, material.fingerprints))
    )
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


def test_a_file_that_no_report_is_in_is_refused(cli: Cli, material: Material, tmp_path: Path) -> None:
    del material
    for name, how in (("x.pdf", "use --out FILE.html or FILE.md"), ("x.png", "use --format png --out DIR")):
        assert how in cli("sweep", "report", "1", "--out", str(tmp_path / name), status=2)
        assert not (tmp_path / name).exists()


def capsule(material: Material) -> Capsule:
    return Capsule(
        material.sweep, material.trials, material.measurements,
        {version: CapsuleVersion(manifest, Requests(manifest.digest)) for version, manifest in synthetic.ARTIFACTS.items()},
        Manifest(()), material.fingerprints, {}, synthetic.BEGAN, "0.1",
    )  # fmt: skip


def test_a_capsule_is_reported_with_what_it_was_measured_on_and_without_the_api(cli: Cli, tmp_path: Path) -> None:
    material, file, store = (
        synthetic.rising(most=6),
        tmp_path / "sweep.capsule",
        ObjectArtifactStore.local(tmp_path / "blobs"),
    )
    with file.open("wb") as opened:
        write_capsule(capsule(material), store, opened)
    page = cli("sweep", "report", str(file), "--out", "-", "--format", "html", "--context", "nobody-there")
    assert "Example CPU @ 2.60GHz" in page
    assert "it is the same." in page
    assert f"tritonctl sweep replay {file} --verify" in page
    said = cli("sweep", "report", str(file), "--format", "md", "--context", "nobody-there")
    assert said.endswith(f"\nNext:\n\n    tritonctl sweep replay {file}\n")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"Example CPU", b"Another CPU"))
    said = cli("sweep", "report", str(file), status=2)
    assert "error [capsule.invalid]: " in said
    hostile = replace(material.measurements[0], histogram="AAAA")
    with file.open("wb") as opened:
        write_capsule(
            replace(capsule(material), measurements=(hostile,), dropped=("names",)),
            store,
            opened,
        )
    said = cli("sweep", "report", str(file), status=2)
    assert "the histogram of measurement 0 cannot be read" in said
    with file.open("wb") as opened:
        write_capsule(anonymized(capsule(material), samples=True), store, opened)
    page = cli("sweep", "report", str(file), "--out", "-", "--format", "html")
    assert "It cannot be taken again here: " in page
    assert "maria" not in page
    said = cli("sweep", "replay", str(file), "--verify")
    assert "it is whole; digests of configs, candidates, fingerprints, spec, evidence cannot be checked" in said
    assert "every digest inside checks out" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"load": {}}, "the capsule's spec, load or plan cannot be read"),
        ({"objectives": ({"x": "y"},)}, "the capsule's objectives cannot be read"),
        ({"answer": {"figures": {"1.1": {"throughput": ["a"]}}}}, "the capsule's answer cannot be read"),
        (
            {"plan": synthetic.rising(most=6).sweep.plan | {"seconds": "x"}},
            "the capsule's spec, load or plan cannot be read",
        ),
    ],
)
def test_a_capsule_of_another_form_is_refused_and_not_drawn(
    cli: Cli, tmp_path: Path, change: JsonObject, said: str
) -> None:
    material, file, store = (
        synthetic.rising(most=6),
        tmp_path / "odd.capsule",
        ObjectArtifactStore.local(tmp_path / "b"),
    )
    odd = replace(capsule(material), sweep=replace(material.sweep, **change), dropped=("names",))  # type: ignore[arg-type]
    with file.open("wb") as opened:
        write_capsule(odd, store, opened)
    page = tmp_path / "page.html"
    refusal = cli("sweep", "report", str(file), "--out", str(page), status=2)
    assert "error [capsule.invalid]: " in refusal
    assert said in refusal
    assert not page.exists()


@pytest.mark.usefixtures("material")
def test_what_cannot_be_written_is_said_before_or_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    said = cli("sweep", "report", "1", "--format", "png", "--out", "-", status=2)
    assert "only html and md can go to stdout" in said
    (tmp_path / "file").write_text("")
    said = cli("sweep", "report", "1", "--out", str(tmp_path / "file" / "report.html"), status=2)
    assert re.search(r"file/report\.html: (Not a directory|File exists)", said)
    assert "there is no sweep 9" in cli("sweep", "report", "9", status=4)
