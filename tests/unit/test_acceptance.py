# What CONTRIBUTING.md says of what shows what is so: each test exists and names its number, and none is left out.
from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"acceptance (\d+)(?: and (\d+))?", re.IGNORECASE)


def table() -> dict[int, list[str]]:
    """The files beside each number; a name with a star is every file that it matches and that names the number."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    return {
        int(number): [name for pattern in re.findall("`([^`]+)`", files) for name in files_of(pattern, int(number))]
        for number, files in ROW.findall(text)
    }


def files_of(pattern: str, number: int) -> list[str]:
    if "*" not in pattern:
        return [pattern]
    return sorted(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob(pattern) if number in named(path))


def named(path: Path) -> set[int]:
    """The numbers in the first line of a file."""
    with path.open() as file:
        return {int(number) for found in NAMED.findall(file.readline()) for number in found if number}


def test_every_number_has_something_that_shows_it() -> None:
    assert sorted(table()) == list(range(1, 12))
    assert all(table().values())


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, names in table().items() for name in names])
def test_what_shows_it_exists_and_says_so(number: int, name: str) -> None:
    path = CHECKOUT / name
    if path.suffix != ".py":
        assert path.is_file()
        return
    assert number in named(path)
    assert "def test_" in path.read_text() or "def main()" in path.read_text()


def test_every_file_that_names_a_number_stands_beside_it() -> None:
    files = sorted((CHECKOUT / "tests").rglob("*.py"))
    said = {(number, str(path.relative_to(CHECKOUT))) for path in files for number in named(path)}
    assert said == {(number, name) for number, names in table().items() for name in names if name.endswith(".py")}
