# What the demo shows of a command's output, and how it ends when something is not as told.
from __future__ import annotations

import pytest

from controlplane.demo.narrator import Narrator, excerpt
from controlplane.errors import DemoFailed

PAGE = """change 1
plan 1
  + config: {
      "a": 1
      "b": 2
      "c": 3
      "d": 4
    }
approvals: 0 of 1
blocked by"""


@pytest.mark.parametrize(
    ("since", "until", "shown"),
    [
        (
            "",
            None,
            ["change 1", "plan 1", "  + config: {", "      … 4 lines", "    }", "approvals: 0 of 1", "blocked by"],
        ),
        ("plan", "approvals", ["…", "plan 1", "  + config: {", "      … 4 lines", "    }", "…"]),
        ("approvals", None, ["…", "approvals: 0 of 1", "blocked by"]),
        ("nowhere", None, ["…"]),
    ],
)
def test_a_part_of_the_output_is_shown_and_what_is_left_out_is_marked(
    since: str, until: str | None, shown: list[str]
) -> None:
    assert excerpt(PAGE, since, until) == shown


def test_a_few_nested_lines_stay() -> None:
    assert excerpt("        NAME   TYPE\ninput   x") == ["        NAME   TYPE", "input   x"]


def test_no_output_is_nothing() -> None:
    assert excerpt("") == []


def test_a_check_that_holds_is_told_and_one_that_does_not_ends_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()
    narrator.check(True, "the sun rose")
    with pytest.raises(DemoFailed, match=r"^not as told: the moon rose$"):
        narrator.check(False, "the moon rose")
    assert capsys.readouterr().out == "  ✓ the sun rose\n"
    assert narrator.checks == 1
