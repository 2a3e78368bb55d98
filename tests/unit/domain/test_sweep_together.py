# Rounds that lie minutes apart, put beside each other by a candidate that was in both.
from __future__ import annotations

import pytest

from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_racing import Look
from controlplane.domain.sweep_together import together


def look(**rates: list[float]) -> Look:
    return Look(
        [Block(name, turn, 1.0, {"rate": one}, 1) for name, own in rates.items() for turn, one in enumerate(own)]
    )


def rates(found: Look, name: str) -> list[float]:
    own = sorted((block for block in found.blocks if block.candidate == name), key=lambda block: block.turn)
    return [block.figures["rate"] for block in own]


def test_the_first_round_stays_and_later_blocks_are_put_beside_it_turn_by_turn() -> None:
    """The machine was half as fast in the second round."""
    found = together([look(a=[100, 110, 90], b=[50, 60, 40]), look(a=[50, 50, 50], c=[100, 90, 120])], [None, "a"])
    assert rates(found, "a") == [100, 110, 90]
    assert rates(found, "b") == [50, 60, 40]
    assert rates(found, "c") == pytest.approx([200, 198, 216])


def turns(found: Look, name: str) -> list[int]:
    return sorted(block.turn for block in found.blocks if block.candidate == name)


def test_what_no_reference_links_gets_turns_of_its_own() -> None:
    """Minutes lie between: paired by turn, it would seem to have been measured at once."""
    found = together([look(a=[100], b=[50]), look(a=[50], c=[100, 90])], [None, "a"])
    assert rates(found, "c") == [200, 90]
    assert (turns(found, "a"), turns(found, "b"), turns(found, "c")) == ([0], [0], [0, 2])
    alone = together([look(b=[50, 40]), look(c=[100, 110])], [None, None])
    assert (rates(alone, "c"), turns(alone, "b"), turns(alone, "c")) == ([100, 110], [0, 1], [2, 3])


def test_a_reference_links_to_the_turns_that_it_has_itself() -> None:
    """Nothing fits beside a. The machine is twice as fast when d is measured."""
    apart = together([look(a=[10]), look(b=[100], c=[80]), look(b=[200], d=[120])], [None, None, "b"])
    assert [turns(apart, name) for name in "abcd"] == [[0], [1], [1], [1]]
    assert rates(apart, "d") == [60]


def test_a_reference_that_failed_in_a_round_links_nothing_there() -> None:
    gone = Look(look(c=[10]).blocks, {"a": "it died"})
    found = together([look(a=[100], b=[50]), gone], [None, "a"])
    assert (turns(found, "a"), turns(found, "c")) == ([0], [1])


def test_another_reference_links_the_rounds_that_it_is_in() -> None:
    """The first one is gone in the third round, in which the machine is a quarter as fast."""
    second, third = look(a=[50], b=[100]), look(b=[50], c=[30])
    found = together([look(a=[100]), second, third], [None, "a", "b"])
    assert [rates(found, name) for name in "abc"] == [[100], [200], [120]]


def test_a_failure_of_the_reference_in_a_later_round_does_not_take_it_out_of_the_first() -> None:
    later = Look(look(c=[10]).blocks, {"a": "it died", "d": "it never loaded"})
    assert together([look(a=[100], b=[50]), later], [None, "a"]).failed == {"d": "it never loaded"}
