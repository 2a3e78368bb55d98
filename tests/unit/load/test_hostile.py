# A whole run against hostile peers on real sockets: errors, never a hang, and never a wrong count.
from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from clients.load.errors import LoadInputError
from clients.load.frames import frame
from clients.load.grpc_status import NAMES
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.outcomes import STATUS
from clients.load.schedule import Curve
from tests.unit.load.hostile import Hostile, Script, Talk, hostile
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
    prefixed,
)

LIMITS = Limits(seconds=0.6, cap=0.6, warm_up=0, timeout=2, errors=1)
MESSAGE = prefixed(b"a request")
LOADS = pytest.mark.parametrize("load", [Load(concurrency=3), Load(curve=Curve.flat(400))], ids=["closed", "open"])

BREACHES = (
    frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
    frame(HEADERS, 0, 1, b"\x88") + frame(DATA, 0, 1, b"x"),
    frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 3, b"x"),
    frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1, b"\x88" * 40000) * 2,
    frame(CONTINUATION, END_HEADERS, 1, b""),
    frame(DATA, 0, 2**31 - 1, b"nobody's"),
    frame(DATA, 0, 2, b"a push"),
    frame(DATA, 0, 0, b"x"),
    frame(DATA, END_STREAM, 3, prefixed(b"before headers")),
    frame(HEADERS, END_HEADERS, 2, b"\x88"),
    frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05ab"),
    frame(PUSH, END_HEADERS, 1, b"\0\0\0\x02\x88"),
    frame(SETTINGS, 0, 1),
    frame(SETTINGS, 0, 0, b"12345"),
    frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"),
    frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\x01"),
    frame(PING, 0, 0, b"short"),
    frame(RST, 0, 1, b""),
    frame(GOAWAY, 0, 0, b"x"),
    frame(UPDATE, 0, 0, b"\0\0\0\0"),
    frame(UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    frame(PRIORITY, 0, 0, b"12345"),
    b"\x7f\xff\xff\x00\x00\x00\x00\x00\x01",  # a frame of 8 MiB begins
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(200),  # TLS
    b"",  # hangs up
)


def run(
    server: Hostile,
    load: Load,
    limits: Limits = LIMITS,
    *,
    connections: int = 1,
    message: bytes = MESSAGE,
    enough: Callable[[], bool] = lambda: True,
) -> tuple[Measurement, Counter[str]]:
    """Within the time that it may take, with every call in the records once, and no answer that was not given. How many calls
    ended with each status, over the whole run, which goes on until there was `enough`, for half a minute at the most."""
    begun = time.monotonic()
    longer = replace(limits, seconds=30, cap=30)

    def watch(seconds: float, _records: object) -> bool:
        return seconds < limits.cap or not enough()

    target = Target("127.0.0.1", server.port)
    measured = measure(target, (message,), load, longer, connections=connections, progress=watch)
    assert time.monotonic() - begun < 90
    ended = Counter(NAMES[status] for status in measured.records[:, STATUS])
    assert ended["OK"] <= server.good
    assert measured.completed + sum(measured.failed.values()) == measured.sent == len(measured.records) - measured.cut
    return measured, ended


@LOADS
def test_load_acceptance_7_a_breach_ends_the_connection_and_what_was_answered_before_counts(load: Load) -> None:
    def script(talk: Talk) -> None:
        streams = talk.streams()
        talk.answer(next(streams))
        next(streams)
        breach = BREACHES[talk.number % len(BREACHES)]
        if breach:
            talk.send(breach)
            talk.linger()

    with hostile(script) as server:
        measured, ended = run(server, load, enough=lambda: server.good > 2 * len(BREACHES))
    assert len(server.talks) > len(BREACHES)
    assert ended["OK"] == server.good > len(BREACHES)
    assert set(ended) <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert measured.reconnects > len(BREACHES)


def noise(rng: random.Random) -> bytes:
    """Frames good and bad, none of which ends a call well."""
    blocks: tuple[bytes, ...] = (
        b"\x88",
        Peer().block((":status", "200"), ("content-type", "application/grpc")),
        rng.randbytes(9),
        b"",
    )
    blocks += (Peer(plain=False).block(("x", "y"), ("x", "y")), Peer().block(("grpc-status", "13")))
    payloads = (*blocks, rng.randbytes(rng.randrange(60)), bytes(8), (1).to_bytes(4, "big"), prefixed(b"yes"))
    return b"".join(
        frame(
            rng.randrange(12),
            rng.randrange(256),
            rng.choice([0, 1, 3, 5, 7, 9, 2, 99, 2**31 - 1]),
            rng.choice(payloads),
        )
        for _ in range(rng.randrange(1, 12))
    ) + rng.randbytes(rng.randrange(3))


@pytest.mark.parametrize("seed", range(2))
def test_load_acceptance_7_noise_of_any_seed_is_an_error_and_no_answer(seed: int) -> None:
    def script(talk: Talk) -> None:
        rng = random.Random(seed * 1_000_003 + talk.number)
        for stream in talk.streams():
            if rng.random() < 0.5:
                talk.answer(stream)
            else:
                talk.send(noise(rng))

    with hostile(script) as server:
        _, ended = run(server, Load(concurrency=3), enough=lambda: len(server.talks) > 20 and server.good > 0)
    assert ended["OK"] > 0
    assert ended.total() - ended["OK"] > 10


def mute(talk: Talk) -> None:
    talk.linger()


def deaf(talk: Talk) -> None:
    """Grants every window, and reads nothing."""
    talk.send(frame(SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff") + frame(UPDATE, 0, 0, b"\x7f\xff\0\0"))
    time.sleep(3)


def slow(talk: Talk) -> None:
    for stream in talk.streams():
        for byte in talk.peer.answer(stream):
            talk.send(bytes((byte,)))
            time.sleep(0.1)


def closed_window(talk: Talk) -> None:
    talk.send(frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0"))
    talk.linger()


def no_streams(talk: Talk) -> None:
    talk.send(frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\0"))
    talk.linger()


def endless_headers(talk: Talk) -> None:
    stream = next(talk.streams())
    talk.send(frame(HEADERS, 0, stream, b"\x88"))
    while True:
        talk.send(frame(CONTINUATION, 0, stream) * 100)


def endless_data(talk: Talk) -> None:
    stream = next(talk.streams())
    talk.send(talk.peer.head(stream))
    while True:
        talk.send(frame(DATA, 0, stream) * 100)


def answers_to_the_dead(talk: Talk) -> None:
    for stream in talk.streams():
        time.sleep(1.5)
        talk.send(talk.peer.answer(stream))


ENDLESS: tuple[Script, ...] = (
    mute, deaf, slow, closed_window, no_streams, endless_headers, endless_data, answers_to_the_dead,
)  # fmt: skip


def test_load_acceptance_7_peers_that_never_end_an_answer_are_given_up() -> None:
    """Each on a connection of its own, with requests that no socket takes whole."""
    limits = Limits(seconds=0.7, cap=0.7, warm_up=0, timeout=0.5, errors=1)
    with hostile(lambda talk: ENDLESS[talk.number % len(ENDLESS)](talk)) as server:
        load, message = Load(concurrency=2 * len(ENDLESS)), prefixed(bytes(8_000_000))
        _, ended = run(server, load, limits, connections=len(ENDLESS), message=message)
    assert set(ended) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert 2 * len(ENDLESS) <= ended.total() < 1000
    assert len(server.talks) >= len(ENDLESS)


@pytest.mark.parametrize(
    "flood", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\x09")], ids=["pings", "settings"]
)
def test_load_acceptance_7_a_flood_whose_answers_are_not_taken_ends_the_connection(flood: bytes) -> None:
    def script(talk: Talk) -> None:
        while True:
            talk.send(flood * 1000)

    with hostile(script) as server:
        measured, ended = run(server, Load(concurrency=2))
    assert set(ended) == {"UNAVAILABLE"}
    assert "flood" in measured.failures["UNAVAILABLE"]


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "table and Huffman"])
def test_load_acceptance_7_pieces_padding_and_tables_are_understood(plain: bool) -> None:
    """A peer that has not acknowledged our settings yet may use its table of headers."""

    def script(talk: Talk) -> None:
        for stream in talk.streams():
            block = talk.peer.block((":status", "200"), ("content-type", "application/grpc"), ("x-id", str(stream)))
            trailer = talk.peer.block(("grpc-status", "0"), ("x-id", str(stream)))
            data = frame(HEADERS, 0x20 | PADDED, stream, b"\x03" + b"\0\0\0\0\x10" + block[:2] + b"\0\0\0")
            data += frame(CONTINUATION, 0, stream, block[2:5]) + frame(CONTINUATION, END_HEADERS, stream, block[5:])
            data += frame(77, 0xFF, stream, b"what is this") + frame(DATA, 0, stream, b"")
            data += frame(DATA, PADDED, stream, b"\x02" + prefixed(b"yes")[:3] + b"\0\0")
            data += frame(PING, 0, 0, bytes(8)) + frame(DATA, 0, stream, prefixed(b"yes")[3:])
            data += frame(HEADERS, END_STREAM, stream, trailer[:1])
            data += frame(CONTINUATION, END_HEADERS, stream, trailer[1:])
            talk.answer(stream, data)

    with hostile(script, plain=plain) as server:
        _, ended = run(server, Load(concurrency=3), connections=2, enough=lambda: server.good > 100)
    assert ended == {"OK": server.good}
    assert server.good > 50
    assert len(server.talks) == 2


@LOADS
def test_load_acceptance_6_goaway_in_the_middle_loses_no_call(load: Load) -> None:
    """As servers do that drain: first a warning, then what is in flight is answered, later calls find another connection."""

    def script(talk: Talk) -> None:
        for stream in talk.streams():
            if talk.asked == 20:
                talk.send(frame(GOAWAY, 0, 0, (2**31 - 1).to_bytes(4, "big") + bytes(4) + b"draining"))
            talk.answer(stream)

    with hostile(script) as server:
        measured, ended = run(server, load, connections=2, enough=lambda: server.good > 200)
    assert ended == {"OK": server.good}
    assert server.good > 100
    assert measured.reconnects == len(server.talks) - 2 > 5


def test_load_acceptance_6_goaway_fails_the_calls_that_it_leaves_out() -> None:
    def script(talk: Talk) -> None:
        streams = talk.streams()
        for _ in range(5):
            talk.answer(next(streams))
        last = [next(streams), next(streams)]
        talk.send(frame(GOAWAY, 0, 0, min(last).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"calm"))
        talk.answer(min(last))
        talk.linger()

    with hostile(script) as server:
        measured, ended = run(server, Load(concurrency=2), enough=lambda: server.good > 100)
    assert ended["OK"] == server.good > 50
    # the last one's call is given up at the end
    assert set(ended) <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
    assert measured.failures["UNAVAILABLE"] == "the server goes away (code 11) calm"
    assert ended["UNAVAILABLE"] >= len(server.talks) - 2


def test_more_connections_than_can_be_waited_for_are_refused() -> None:
    with pytest.raises(LoadInputError, match="501 connections of one process"):
        measure(Target("127.0.0.1", 1), (MESSAGE,), Load(concurrency=1), LIMITS, connections=501)


def test_many_connections_are_waited_for() -> None:
    def script(talk: Talk) -> None:
        for stream in talk.streams():
            talk.answer(stream)

    with hostile(script) as server:
        _, ended = run(server, Load(concurrency=500), connections=500)
    assert ended == {"OK": server.good}
    assert len(server.talks) == 500
