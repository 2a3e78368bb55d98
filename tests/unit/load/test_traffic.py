# What is sent in one run: weights hold exactly over a cycle, every request comes equally often, sequences go to all processes.
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load.errors import LoadInputError
from clients.load.traffic import Part, Traffic, whole_weights


def part(model: str, count: int, **options: object) -> Part:
    return Part(model, tuple(f"{model}{number}".encode() for number in range(count)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([1], [1]),
        ([0.7, 0.3], [7, 3]),
        ([2, 4, 6], [1, 2, 3]),
        ([0.1, 0.2], [1, 2]),
        ([1e6, 1], [999, 1]),
        ([3.14159, 2.71828], [536, 464]),
    ],
)
def test_weights_are_held_by_the_smallest_whole_numbers_or_the_nearest_of_a_thousand(
    weights: list[float], whole: list[int]
) -> None:
    assert whole_weights(weights) == whole


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=8))
def test_no_whole_weight_is_further_off_than_rounding_makes_it(weights: list[float]) -> None:
    whole = whole_weights(weights)
    exact = np.array(weights) / sum(weights)
    assert min(whole) >= 1
    assert np.abs(np.array(whole) / sum(whole) - exact).max() < (len(weights) + 1) / 1000


def test_every_cycle_holds_the_weights_in_an_order_of_its_own_and_every_request_comes_equally_often() -> None:
    traffic = Traffic((part("a", 5, weight=3), part("b", 2, weight=1)))
    order = traffic.order(np.random.default_rng(1))
    cycles = traffic.owners[order].reshape(-1, 4)
    assert (cycles.sum(axis=1) == 1).all()
    assert len({tuple(cycle) for cycle in cycles.tolist()}) > 1
    used = np.bincount(order, minlength=7)
    assert used.tolist() == [used[0]] * 5 + [used[5]] * 2
    assert used[:5].sum() == 3 * used[5:].sum()
    assert (order == traffic.order(np.random.default_rng(1))).all()
    assert (order != traffic.order(np.random.default_rng(2))).any()


def test_one_model_alone_sends_each_request_once_a_round() -> None:
    order = Traffic.of([b"a", b"b", b"c"]).order(np.random.default_rng(0))
    assert sorted(order.tolist()) == [0, 1, 2]


def test_a_circle_that_would_be_too_long_still_holds_the_weights() -> None:
    traffic = Traffic((part("a", 997), part("b", 991), part("c", 983, weight=0.5)))
    order = traffic.order(np.random.default_rng(0))
    assert len(order) <= 1 << 20
    assert np.bincount(traffic.owners[order]).tolist() == [len(order) // 5 * share for share in (2, 2, 1)]
    assert np.bincount(order).min() > 0


def test_a_tag_tells_its_part_and_request() -> None:
    traffic = Traffic((part("a", 2), part("a", 3, version=2)))
    assert traffic.messages == (b"a0", b"a1", b"a0", b"a1", b"a2")
    assert [traffic.origin(tag) for tag in range(5)] == [("a", 0), ("a", 1), ("a:2", 0), ("a:2", 1), ("a:2", 2)]


@pytest.mark.parametrize(
    ("count", "lengths", "steps"),
    [(7, (1, 3), [0, 1, 2, 3, 4, 5]), (3, (3, 3), [0, 1, 2]), (2, (2, 5), [0, 1, 0, 1, 0])],
    ids=["a last part is left out", "exact", "repeated"],
)
def test_messages_of_a_stateful_model_are_whole_scripts(count: int, lengths: tuple[int, int], steps: list[int]) -> None:
    found = part("s", count, lengths=lengths)
    assert found.steps == tuple(f"s{number}".encode() for number in steps)


def test_live_sequences_are_spread_over_the_processes_and_no_two_have_an_id() -> None:
    traffic = Traffic((part("s", 4, lengths=(2, 2)),))
    first, second = traffic.plans([2, 1], seed=5)
    assert first is not None
    assert second is not None
    assert (first.live, second.live) == (2, 1)
    assert (second.first_id - first.first_id, first.stride) == (1, 2)
    again = traffic.plans([2, 1], seed=5)[0]
    assert again is not None
    assert again.first_id != first.first_id, "the server may remember the ids of the run before"
    assert Traffic((part("a", 1),)).plans([1, 1], seed=0) == [None, None]


def test_ids_for_32_bits_stay_below_2_to_the_31st() -> None:
    for _ in range(50):
        (plan,) = Traffic((part("s", 1, lengths=(1, 1), ids="int32"),)).plans([1], seed=0)
        assert plan is not None
        assert 0 < plan.first_id <= 2**30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Traffic(()), "nothing to send"),
        (lambda: part("a", 0), "nothing to send to a"),
        (lambda: part("a", 1, weight=0), "a has the weight 0"),
        (lambda: part("a", 1, weight=float("inf")), "a has the weight inf"),
        (lambda: part("a", 1, lengths=(3, 2)), "sequences of 3 to 2 requests"),
        (lambda: part("a", 1, lengths=(0, 2)), "sequences of 0 to 2 requests"),
        (lambda: part("a", 2, expected=({},)), "a has 1 expected answers for 2 requests"),
        (lambda: Traffic((part("a", 1), part("a", 1))), "a comes twice"),
        (
            lambda: Traffic((part("a", 1, lengths=(1, 1)),), live=1).plans([1, 0], seed=0),
            "1 live sequences over 2 processes",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(LoadInputError) as caught:
        make()
    assert caught.value.message == message
