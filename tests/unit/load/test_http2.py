# The sender against good and hostile peers: every call ends once, with the right status, and nothing hangs.
from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.load.calls import Call
from clients.load.frames import Broken, frame
from clients.load.grpc_status import INTERNAL, OK, UNAVAILABLE, UNKNOWN
from clients.load.http2 import Http2
from tests.unit.load.peers import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    UPDATE,
    Peer,
    opened,
    prefixed,
    started,
)


def codes(calls: list[Call]) -> list[tuple[int, int]]:
    return [(call.tag, -1 if call.status is None else call.status.code) for call in calls]


def test_a_request_is_a_header_block_and_a_message_on_a_stream_of_its_own() -> None:
    http = opened()
    started(http, 2)
    out = bytes(http.output)
    sizes = []
    while out:
        size = int.from_bytes(out[:3], "big")
        sizes.append((out[3], out[4], int.from_bytes(out[5:9], "big"), size))
        out = out[9 + size :]
    assert [(kind, flags, stream) for kind, flags, stream, _ in sizes] == [
        (HEADERS, END_HEADERS, 1),
        (DATA, END_STREAM, 1),
        (HEADERS, END_HEADERS, 3),
        (DATA, END_STREAM, 3),
    ]


def test_answers_end_calls_in_the_order_in_which_they_came() -> None:
    http, peer = opened(), Peer()
    started(http, 3)
    ended = http.receive(peer.answer(5, b"third") + peer.answer(1, b"first"))
    assert codes(ended) == [(2, OK), (0, OK)]
    assert [bytes(call.body or b"") for call in ended] == [prefixed(b"third"), prefixed(b"first")]
    assert codes(http.receive(peer.answer(3))) == [(1, OK)]
    assert http.in_flight == 0


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_acceptance_7_bytes_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    http, peer = opened(), Peer()
    started(http, 3)
    data = peer.answer(1) + frame(PING, 0, 0, b"12345678") + peer.answer(3, b"x" * 50) + peer.answer(5)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    ended = [call for a, b in pairwise(places) for call in http.receive(data[a:b])]
    assert codes(ended) == [(0, OK), (1, OK), (2, OK)]


def test_acceptance_7_padding_continuations_priorities_and_unknown_frames_are_read() -> None:
    http, peer = opened(), Peer()
    started(http, 1)
    head = peer.block((":status", "200"), ("content-type", "application/grpc"))
    data = frame(HEADERS, 0x20 | PADDED, 1, b"\x03" + b"\0\0\0\0\x10" + head[:2] + b"\0\0\0")
    data += frame(CONTINUATION, 0, 1, head[2:5]) + frame(CONTINUATION, END_HEADERS, 1, head[5:])
    data += frame(77, 0xFF, 1, b"what is this") + frame(PRIORITY, 0, 1, b"\0\0\0\0\x01")
    data += frame(DATA, PADDED, 1, b"\x02" + prefixed(b"yes") + b"\0\0") + peer.trailers(1)
    assert codes(http.receive(data)) == [(0, OK)]


def test_acceptance_7_a_peer_that_uses_its_table_and_huffman_before_our_settings_reach_it_is_understood() -> None:
    http = Http2("host:1", "/p")
    peer = Peer(plain=False)
    started(http, 2)
    assert codes(http.receive(frame(SETTINGS, 0, 0) + peer.answer(1) + peer.answer(3))) == [(0, OK), (1, OK)]
    http.receive(frame(SETTINGS, 1, 0))
    peer.encoder.header_table_size = 0  # as it must, having acknowledged
    started(http, 1)
    assert codes(http.receive(peer.answer(5))) == [(0, OK)]


def test_acceptance_7_a_peer_that_keeps_its_table_after_our_settings_is_broken_off() -> None:
    http = opened()
    peer = Peer(plain=False)
    started(http, 2)
    with pytest.raises(Broken, match="cannot be decoded"):
        http.receive(peer.answer(1) + peer.answer(3))
    assert len(http.ended()) + len(http.abandon()) == 2


def test_an_error_in_the_trailers_is_the_calls_status_with_its_message_decoded() -> None:
    http, peer = opened(), Peer()
    (call,) = started(http, 1)
    block = peer.block(
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "5"),
        ("grpc-message", "no %22m%22 %C3%BC"),
    )
    assert http.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, block)) == [call]
    assert call.status is not None
    assert (call.status.name, call.status.message) == ("NOT_FOUND", 'no "m" ü')


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lambda p: p.head(1) + p.trailers(1), INTERNAL),
        (lambda p: p.head(1) + frame(DATA, 0, 1, prefixed(b"yes")[:-1]) + p.trailers(1), INTERNAL),
        (lambda p: p.head(1) + frame(DATA, 0, 1, prefixed(b"yes") + b"x") + p.trailers(1), INTERNAL),
        (lambda p: p.head(1) + frame(DATA, 0, 1, b"\x01" + prefixed(b"yes")[1:]) + p.trailers(1), INTERNAL),
        (lambda p: p.head(1) + frame(DATA, END_STREAM, 1, prefixed(b"yes")), UNKNOWN),
        (lambda p: p.head(1) + p.trailers(1, "99"), UNKNOWN),
        (lambda p: p.head(1) + p.trailers(1, "-1"), UNKNOWN),
        (lambda p: p.head(1) + p.trailers(1, "²"), UNKNOWN),
        (lambda p: frame(HEADERS, END_HEADERS | END_STREAM, 1, p.block((":status", "503"))), UNAVAILABLE),
        (
            lambda p: (
                frame(HEADERS, END_HEADERS, 1, p.block((":status", "200"), ("content-type", "text/html")))
                + frame(DATA, END_STREAM, 1, b"<html>")
            ),
            UNKNOWN,
        ),
        (lambda p: frame(RST, 0, 1, (7).to_bytes(4, "big")), UNAVAILABLE),
        (lambda p: frame(RST, 0, 1, (999).to_bytes(4, "big")), UNKNOWN),
    ],
)
def test_acceptance_7_what_is_no_good_answer_never_counts_as_one(data: object, code: int) -> None:
    http = opened()
    started(http, 1)
    assert callable(data)
    assert codes(http.receive(data(Peer()))) == [(0, code)]


@pytest.mark.parametrize(
    "data",
    [
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        frame(HEADERS, 0, 1, b"\x88") + frame(DATA, 0, 1, b"x"),
        frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 3, b"x"),
        frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1, b"\x88" * 40000) * 2,
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(DATA, 0, 1, b"before headers"),
        frame(DATA, 0, 99, b"nobody's"),
        frame(DATA, 0, 2, b"a push"),
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 2, b"\x88"),
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05ab"),
        frame(PUSH, END_HEADERS, 1, b"\0\0\0\x02\x88"),
        frame(SETTINGS, 0, 1),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(SETTINGS, 1, 0, b"123456"),
        frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\x01"),
        frame(PING, 0, 0, b"short"),
        frame(RST, 0, 1, b""),
        frame(RST, 0, 0, b"\0\0\0\0"),
        frame(GOAWAY, 0, 0, b"x"),
        frame(UPDATE, 0, 0, b"\0\0\0\0"),
        frame(UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
        frame(UPDATE, 0, 77, b"\0\0\0\x01"),
        frame(PRIORITY, 0, 0, b"12345"),
        b"\x7f\xff\xff\x00\x00\x00\x00\x00\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_acceptance_7_a_breach_of_the_rules_ends_the_connection(data: bytes) -> None:
    http = opened()
    started(http, 2)
    with pytest.raises(Broken):
        http.receive(data)
    assert len(http.ended()) + len(http.abandon()) == 2


FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 1, 3, 3, 5, 2, 7, 99, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                Peer().block((":status", "200"), ("content-type", "application/grpc")),
                Peer().block(("grpc-status", "0")),
                Peer(plain=False).block(("grpc-status", "0"), ("x", "y")),
                prefixed(b"yes"),
                prefixed(b""),
                (1).to_bytes(4, "big"),
                bytes(8),
            ]
        ),
    ),
)


@given(frames=st.lists(st.one_of(FRAMES, st.binary(max_size=20)), max_size=30), cut=st.integers(1, 50))
def test_acceptance_7_whatever_comes_every_call_ends_once(frames: list[bytes], cut: int) -> None:
    http = opened()
    calls = started(http, 3)
    ended: list[Call] = []
    data = b"".join(frames)
    try:
        for at in range(0, len(data), cut):
            ended += http.receive(data[at : at + cut])
    except Broken:
        ended += http.ended()
    assert all(call.status is not None for call in ended)
    for call in ended:
        if call.status is not None and call.status.code == OK:
            body = bytes(call.body or b"")
            assert body == prefixed(body[5:])
    ended += http.abandon()
    assert sorted(call.tag for call in ended) == [call.tag for call in calls]


def test_a_message_over_the_windows_goes_out_as_the_peer_opens_them() -> None:
    http = opened()
    message = prefixed(bytes(range(256)) * 1000)
    (call,) = started(http, 1, message)
    sent = b""
    for _ in range(100):
        sent += _data_of(bytes(http.output))
        http.output.clear()
        if call.unsent is None:
            break
        assert (
            http.receive(
                frame(UPDATE, 0, 0, (5000).to_bytes(4, "big")) + frame(UPDATE, 0, 1, (7000).to_bytes(4, "big"))
            )
            == []
        )
    assert sent == message


def test_a_larger_window_and_frame_apply_to_what_is_under_way() -> None:
    http = opened()
    message = prefixed(bytes(300_000))
    (call,) = started(http, 1, message)
    settings = b"\0\x04" + (10**6).to_bytes(4, "big") + b"\0\x05" + (2**20).to_bytes(4, "big")
    http.receive(frame(UPDATE, 0, 0, (10**6).to_bytes(4, "big")) + frame(SETTINGS, 0, 0, settings))
    assert call.unsent is None
    assert _data_of(bytes(http.output)) == message


def test_many_calls_behind_a_closed_window_cost_no_more_than_few() -> None:
    """Of 10,000 begun at once nearly all wait for the peer: a start that looked at all those before it would take a minute."""
    http = opened()
    begun = time.process_time()
    calls = started(http, 10_000, prefixed(bytes(300)))
    assert time.process_time() - begun < 5
    sent = len(_data_of(bytes(http.output)))
    assert sent == 65535
    http.output.clear()
    http.receive(frame(UPDATE, 0, 0, (10_000 * 305 - sent).to_bytes(4, "big")))
    assert not [call for call in calls if call.unsent is not None]


def test_calls_over_the_peers_limit_wait_for_a_place() -> None:
    http, peer = opened(), Peer()
    http.receive(frame(SETTINGS, 0, 0, b"\0\x03" + (2).to_bytes(4, "big")))
    calls = started(http, 4)
    assert [call.stream for call in calls] == [1, 3, 0, 0]
    http.receive(peer.answer(3))
    assert [call.stream for call in calls] == [1, 3, 5, 0]
    assert http.in_flight == 3


def test_goaway_answers_what_the_peer_will_not_and_keeps_the_rest() -> None:
    http, peer = opened(), Peer()
    started(http, 3)
    gone = http.receive(frame(GOAWAY, 0, 0, (3).to_bytes(4, "big") + bytes(4) + b"restarting"))
    assert codes(gone) == [(2, UNAVAILABLE)]
    assert not http.open
    assert codes(http.receive(peer.answer(1) + peer.answer(3))) == [(0, OK), (1, OK)]


def test_stream_ids_are_used_up_at_last() -> None:
    http = opened()
    http._next = 2**31 - 1
    assert http.open
    started(http, 1)
    assert not http.open


def test_a_ping_is_answered_and_our_window_is_given_back() -> None:
    http, peer = opened(keep=False), Peer()
    http.receive(frame(PING, 0, 0, b"abcdefgh"))
    assert bytes(http.output) == frame(PING, 1, 0, b"abcdefgh")
    http.output.clear()
    (call,) = started(http, 1)
    http.output.clear()
    http.receive(peer.head(1))
    for _ in range(1025):
        http.receive(frame(DATA, 0, 1, bytes(2**20)))
    assert bytes(http.output) == frame(UPDATE, 0, 0, (2**30).to_bytes(4, "big"))
    assert call.size == 1025 * 2**20


def _data_of(output: bytes) -> bytes:
    found = b""
    while output:
        size = int.from_bytes(output[:3], "big")
        if output[3] == DATA:
            found += output[9 : 9 + size]
        output = output[9 + size :]
    return found
