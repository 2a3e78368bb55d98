# What CONTRIBUTING.md says of what shows what is so: each test exists and names its number, and none is left out.
from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([LS]?\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
FIRST_LINE = re.compile(r"(?<!load )(?<!sweep )acceptance (\d+)(?: and (\d+))?", re.IGNORECASE)
"""What the first release has to show: the first line of a file says it."""
ANYWHERE = re.compile(r"(load|sweep)[ _]acceptance[ _](\d+)(?: and (\d+))?", re.IGNORECASE)
"""What the load generator and the sweeps have to show: a test's name says it, or any line."""


def table() -> dict[str, list[str]]:
    """The files beside each number; a name with a star is every file that it matches and that names the number."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    return {
        number: [name for pattern in re.findall("`([^`]+)`", files) for name in files_of(pattern, number)]
        for number, files in ROW.findall(text)
    }


def files_of(pattern: str, number: str) -> list[str]:
    if "*" not in pattern:
        return [pattern]
    return sorted(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob(pattern) if number in named(path))


def named(path: Path) -> set[str]:
    """The numbers that a file names."""
    text = path.read_text()
    first = FIRST_LINE.findall(text.partition("\n")[0])
    found = {number for numbers in first for number in numbers if number}
    rest = ANYWHERE.findall(text)
    return found | {f"{what[0].upper()}{number}" for what, *numbers in rest for number in numbers if number}


def test_every_number_has_something_that_shows_it() -> None:
    assert list(table()) == [
        *(str(n) for n in range(1, 12)),
        *(f"L{n}" for n in range(1, 9)),
        *(f"S{n}" for n in range(1, 10)),
    ]
    assert all(table().values())


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, names in table().items() for name in names])
def test_what_shows_it_exists_and_says_so(number: str, name: str) -> None:
    path = CHECKOUT / name
    if path.suffix != ".py":
        assert path.is_file()
        return
    assert number in named(path)
    assert "def test_" in path.read_text() or "def main(" in path.read_text()


def test_every_file_that_names_a_number_stands_beside_it() -> None:
    files = sorted(set((CHECKOUT / "tests").rglob("*.py")) - {Path(__file__)})
    said = {(number, str(path.relative_to(CHECKOUT))) for path in files for number in named(path)}
    assert said == {(number, name) for number, names in table().items() for name in names if name.endswith(".py")}
