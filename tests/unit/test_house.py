# The rules of the house that no linter knows: sizes, first lines, names of files, what may be named.
from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 400
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "manager", "factory", "misc"}
TOP_LEVEL = {
    "pyproject.toml", "model_repository", "controlplane", "clients", "migrations", "tests", "deploy", "requirements",
    "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "docs", "build", "dist",
}  # fmt: skip
SOURCES = sorted(
    path
    for top in ("controlplane", "clients", "migrations", "tests", "model_repository", "deploy")
    for path in (ROOT / top).rglob("*.py")
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 150


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {name: lines for name, lines in sizes.items() if lines > LARGEST} == {}


def test_the_first_line_of_every_file_says_what_lives_there() -> None:
    silent = []
    for path in SOURCES:
        first = path.read_text().partition("\n")[0]
        if path.name == "__init__.py" and not path.read_text().strip():
            continue
        if not (first.startswith("# ") and len(first) > 8):
            silent.append(relative(path))

    assert silent == []


def test_no_file_is_named_for_having_no_place() -> None:
    assert [relative(path) for path in SOURCES if path.stem.strip("_") in FORBIDDEN] == []


def test_only_the_agreed_names_stand_at_the_top_level() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__pycache__"))}

    assert found - TOP_LEVEL == set()


def test_every_package_of_the_distribution_is_a_package() -> None:
    """A folder without __init__.py is left out of mypy's and import-linter's sight. The backend is copied, not imported."""
    folders = {path.parent for path in SOURCES if relative(path).startswith(("controlplane/", "clients/"))}
    outside = {ROOT / "controlplane/triton/runtime/backend"}

    assert [relative(folder) for folder in folders - outside if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("lock", ["requirements/dev.txt", "requirements/server.txt"])
def test_a_lock_has_hashes_and_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]

    assert [pin for pin in pins if "==" not in pin or not pin.endswith("\\")] == []
    assert "://" not in text
    assert "perf-analyzer==0.1.0" in text
