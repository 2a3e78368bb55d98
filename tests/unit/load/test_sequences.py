# Sequences: one request after the other, ids of their own, and messages that protobuf reads as if it had written them.
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from clients.load.calls import Call
from clients.load.grpc_status import SUCCESS, UNAVAILABLE, Status
from clients.load.messages import message
from clients.load.sequences import Ids, Plan, Sequences, Stream, head, identified

INPUT = {"X": np.arange(3, dtype=np.float32)}


def request(call: Call) -> tuple[int | str, bool, bool]:
    """Id, start and end, as protobuf reads them."""
    read = service_pb2.ModelInferRequest.FromString(call.message[5:])
    found = read.parameters["sequence_id"]
    number = getattr(found, str(found.WhichOneof("parameter_choice")))
    return number, read.parameters["sequence_start"].bool_param, read.parameters["sequence_end"].bool_param


def messages(count: int, ids: Ids = "int64") -> tuple[bytes, ...]:
    plain = [message(f"m{n}", INPUT, version=None, parameters={"other": n}) for n in range(count)]
    return tuple(head(one, ids) for one in plain)


def sequences(*streams: Stream, live: int = 1, seed: int = 0, first_id: int = 100) -> Sequences:
    count = sum(stream.count for stream in streams)
    return Sequences(Plan(streams, live, first_id, 10, (seed,)), messages(count))


def answer(source: Sequences, *calls: Call, status: Status = SUCCESS) -> None:
    for call in calls:
        call.status = status
    source.answered(calls)


@given(
    st.integers(1, 2**63 - 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["int64", "int32", "string"]),
)
def test_a_patched_message_reads_as_if_protobuf_had_written_it(number: int, start: bool, end: bool, ids: Ids) -> None:
    plain = message("m", INPUT, version=3, parameters={"other": 5})
    patched = head(plain, ids) + identified(number, ids)[start, end]
    assert int.from_bytes(patched[1:5], "big") == len(patched) - 5
    read = service_pb2.ModelInferRequest.FromString(patched[5:])
    wanted = service_pb2.ModelInferRequest.FromString(plain[5:])
    if ids == "string":
        wanted.parameters["sequence_id"].string_param = f"{number:016x}"
    else:
        wanted.parameters["sequence_id"].int64_param = number
    wanted.parameters["sequence_start"].bool_param = start
    wanted.parameters["sequence_end"].bool_param = end
    assert read == wanted


def test_a_sequence_sends_its_script_in_order_and_a_new_one_follows() -> None:
    source = sequences(Stream(0, 3, 1, (3, 3)))
    seen = []
    for _ in range(7):
        call = source.next(0, 0)
        seen.append((call.tag, *request(call)))
        answer(source, call)
    assert seen == [
        (0, 100, True, False),
        (1, 100, False, False),
        (2, 100, False, True),
        (0, 110, True, False),
        (1, 110, False, False),
        (2, 110, False, True),
        (0, 120, True, False),
    ]


def test_a_sequence_of_one_request_starts_and_ends_with_it() -> None:
    source = sequences(Stream(0, 1, 1, (1, 1)))
    assert request(source.next(0, 0)) == (100, True, True)


def test_who_has_waited_longest_is_next_and_nobody_is_advanced_without_an_answer() -> None:
    source = sequences(Stream(0, 4, 1, (4, 4)), live=3)
    first, second, third = (source.next(0, 0) for _ in range(3))
    answer(source, third)
    answer(source, first)
    assert [request(source.next(0, 0))[0] for _ in range(2)] == [request(third)[0], request(first)[0]]
    with pytest.raises(IndexError):
        source.next(0, 0)  # the loop keeps no more in flight than there are live sequences
    answer(source, second)
    assert request(source.next(0, 0)) == (request(second)[0], False, False)


def test_a_failed_request_ends_its_sequence_and_a_new_one_takes_its_place() -> None:
    source = sequences(Stream(0, 4, 1, (4, 4)))
    call = source.next(0, 0)
    answer(source, call)
    call = source.next(0, 0)
    answer(source, call, status=Status(UNAVAILABLE))
    assert request(source.next(0, 0)) == (110, True, False)


def test_lengths_are_drawn_from_the_range_alike_for_the_same_seed() -> None:
    def lengths(seed: int) -> list[int]:
        source, count = sequences(Stream(0, 6, 1, (2, 6)), seed=seed), 0
        found: list[int] = []
        while len(found) < 400:
            call = source.next(0, 0)
            count += 1
            _, start, end = request(call)
            assert start == (count == 1)
            assert source.cut(call) == (end and count < 6)
            answer(source, call)
            if end:
                found.append(count)
                count = 0
        return found

    assert set(lengths(1)) == {2, 3, 4, 5, 6}
    assert np.bincount(lengths(1)).tolist()[2:] == pytest.approx([80] * 5, abs=30)
    assert lengths(1) == lengths(1) != lengths(2)


def test_sequences_take_their_scripts_in_turn() -> None:
    source = sequences(Stream(0, 6, 1, (2, 2)))
    tags = []
    for _ in range(12):
        call = source.next(0, 0)
        tags.append(call.tag)
        answer(source, call)
    assert sorted(tags[:6]) == [0, 1, 2, 3, 4, 5]
    assert [tag + 1 for tag in tags[::2]] == tags[1::2]
    assert tags[:6] == tags[6:]


def test_weights_count_requests_also_between_stateful_and_other_models() -> None:
    streams = (Stream(0, 5, 1, (1, 5)), Stream(5, 4, 3))
    source = sequences(*streams, live=4)
    counts = [0, 0]
    for _ in range(4000):
        call = source.next(0, 0)
        counts[call.tag >= 5] += 1
        assert (b"sequence_id" in call.message) == (call.tag < 5)
        answer(source, call)
    assert counts == pytest.approx([1000, 3000], abs=20)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_whatever_the_order_of_answers_and_failures_each_sequence_is_whole(
    data: st.DataObject, live: int, fewest: int, more: int
) -> None:
    most = fewest + more
    source = sequences(Stream(0, 2 * most, 1, (fewest, most)), Stream(2 * most, 3, 2), live=live)
    flying: list[Call] = []
    seen: dict[int | str, list[tuple[int, bool, bool]]] = {}
    over: set[int | str] = set()

    def sent(call: Call) -> None:
        flying.append(call)
        if call.tag < 2 * most:
            number, start, end = request(call)
            assert number not in over
            seen.setdefault(number, []).append((call.tag, start, end))

    def ended(*, well: bool) -> None:
        call = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        if call.tag < 2 * most and (not well or request(call)[2]):
            over.add(request(call)[0])
        answer(source, call, status=SUCCESS if well else Status(UNAVAILABLE))

    for _ in range(data.draw(st.integers(0, 40))):
        if len(flying) < live and (not flying or data.draw(st.booleans())):
            sent(source.next(0, 0))
        else:
            ended(well=data.draw(st.integers(0, 5)) > 0)
        busy = [request(call)[0] for call in flying if call.tag < 2 * most]
        assert len(busy) == len(set(busy)), "one request of a sequence at a time"
    while True:
        for call in source.closing(0):
            sent(call)
        if not flying:
            break
        ended(well=True)
    assert set(seen) == over, "none is left under way"
    for steps in seen.values():
        tags = [tag for tag, _, _ in steps]
        assert tags == list(range(tags[0], tags[0] + len(tags)))
        assert tags[0] % most == 0
        assert [start for _, start, _ in steps] == [True] + [False] * (len(steps) - 1)
        assert not any(end for _, _, end in steps[:-1])
        assert len(steps) <= most


def test_the_last_requests_end_what_is_under_way_and_begin_nothing() -> None:
    source = sequences(Stream(0, 5, 1, (5, 5)), live=3)
    first, second = source.next(0, 0), source.next(0, 0)
    answer(source, first)
    (last,) = source.closing(7)
    assert (*request(last), last.tag, last.scheduled, last.sent) == (100, False, True, 1, 7, 7)
    answer(source, second)
    (other,) = source.closing(8)
    assert request(other) == (110, False, True)
    answer(source, last, other)
    assert source.closing(9) == []
