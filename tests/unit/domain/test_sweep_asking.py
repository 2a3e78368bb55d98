# Rounds that lie minutes apart, put beside each other by a candidate that was in both.
from __future__ import annotations

import pytest

from controlplane.domain.sweep_asking import together
from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_racing import Look


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


def test_without_the_reference_in_a_turn_its_blocks_stay_as_they_were() -> None:
    found = together([look(a=[100], b=[50]), look(a=[50], c=[100, 90])], [None, "a"])
    assert rates(found, "c") == [200, 90]
    assert rates(together([look(b=[50]), look(c=[100])], [None, None]), "c") == [100]


def test_another_reference_links_the_rounds_that_it_is_in() -> None:
    """The first one is gone in the third round, in which the machine is a quarter as fast."""
    second, third = look(a=[50], b=[100]), look(b=[50], c=[30])
    found = together([look(a=[100]), second, third], [None, "a", "b"])
    assert [rates(found, name) for name in "abc"] == [[100], [200], [120]]


def test_a_failure_of_the_reference_in_a_later_round_does_not_take_it_out_of_the_first() -> None:
    later = Look(look(c=[10]).blocks, {"a": "it died", "d": "it never loaded"})
    assert together([look(a=[100], b=[50]), later], [None, "a"]).failed == {"d": "it never loaded"}
