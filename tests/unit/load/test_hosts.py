# One load from several hosts: the shares are the plan of one host, and merge to what one host would have seen.
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from clients.load.errors import LoadFailed, LoadInputError
from clients.load.histogram import decode, encode
from clients.load.hosts import Asked, Share, merged, send_share
from clients.load.jobs import Load, Target, due_times
from clients.load.measure import Measurement, summarize
from clients.load.outcomes import ANSWERED, DUE, SENT, TAG
from clients.load.processes import Records
from clients.load.schedule import Curve
from clients.load.statistics import percentile
from clients.load.traffic import Traffic
from clients.load.transports import Via
from clients.load.verdicts import Limits
from clients.load.worker import Ending
from tests.unit.load.echo import Echo, echoing
from tests.unit.load.peers import prefixed

HOSTS = 2
LIMITS = Limits(seconds=1.0, cap=1.0, warm_up=0.2, precision=1.0)


@pytest.fixture
def echo() -> Iterator[tuple[Echo, Target]]:
    with echoing() as found:
        yield found


def asked(target: Target, load: Load, **more: int) -> Asked:
    messages = Traffic.of((prefixed(b"one"), prefixed(b"two")))
    return Asked(target, messages, load, LIMITS, processes=more.get("processes", 1), connections=1, seed=7)


def sent(asked: Asked, at: Callable[[], float] | None = None) -> list[Share]:
    begin = threading.Barrier(HOSTS)
    moments: list[float] = []

    def ready() -> float:
        begin.wait()
        moments.append(time.time() + 1.0)
        begin.wait()
        return moments[0]

    with ThreadPoolExecutor(HOSTS) as together:
        return list(together.map(lambda host: send_share(asked, host, HOSTS, ready=at or ready), range(HOSTS)))


def test_each_call_of_the_schedule_is_sent_once_by_one_host(echo: tuple[Echo, Target]) -> None:
    server, target = echo
    wanted = asked(target, Load(curve=Curve.flat(300)), processes=2)

    shares = sent(wanted)
    found = merged(wanted, shares)

    due = due_times(wanted.load, LIMITS, 7)
    assert due is not None
    assert np.sort(found.records[:, DUE]).tolist() == due.tolist()
    assert server.count == len(found.records) == sum(len(part) for share in shares for part in share.parts)
    assert [len(share.parts) for share in shares] == [2, 2]
    assert (found.failed, found.completed) == ({}, found.sent)
    assert 150 < found.rate.value < 600  # as many at all; a busy host answers them in heaps
    whole = np.concatenate([part for share in shares for part in share.parts])
    kept = whole[whole[:, DUE] >= 200_000_000]
    kept = kept[np.argsort(kept[:, ANSWERED], kind="stable")][found.cut :]
    assert found.latency.scheduled[99.0] == percentile((kept[:, ANSWERED] - kept[:, DUE]) / 1e9, 99.0)


def test_a_closed_loop_of_several_hosts_ends_when_its_time_is_over(echo: tuple[Echo, Target]) -> None:
    server, target = echo
    wanted, began = asked(target, Load(concurrency=5)), time.monotonic()

    found = merged(wanted, sent(wanted))

    assert time.monotonic() - began < 60
    assert server.count == len(found.records) > 20
    assert found.records[:, SENT].max() < 1.5e9
    assert set(np.unique(found.records[:, TAG])) == {0, 1}


def recorded(seconds: float, rate: int, seed: int) -> Records:
    random, number = np.random.default_rng(seed), np.arange(int(seconds * rate))
    due = (number / rate * 1e9).astype(np.int64)
    answered = due + (random.gamma(2.0, 3.0, len(number)) * 1e6).astype(np.int64)
    return np.column_stack((due, due + 1000, answered, 0 * number, 0 * number)).astype(np.int64)


def test_what_is_merged_is_what_one_host_would_have_said() -> None:
    """Of four processes: counts, intervals and percentiles, to the last digit; histograms add up."""
    parts = [recorded(1.2, 500, seed) for seed in range(4)]
    wanted = asked(Target("h", 1), Load(concurrency=4), processes=2)
    endings = [Ending(0.1, 1, 0, {14: f"gone {number}"}) for number in range(4)]

    def share(host: int) -> Share:
        return Share(tuple(parts[host::2]), (1, 1), tuple(endings[host::2]))

    found = merged(wanted, [share(0), share(1)], ceiling=5000.0)

    alone = summarize(parts, 0, LIMITS, endings, offsets=None, places=[1] * 4, steady=True, ceiling=5000.0)

    def numbers(one: Measurement) -> tuple[object, ...]:
        return (
            one.sent,
            one.completed,
            one.offered,
            one.rate,
            one.latency,
            one.verdict,
            one.client_cpu,
            one.reconnects,
        )

    assert numbers(found) == numbers(alone)
    lengths = found.records[:, ANSWERED] - found.records[:, DUE]
    together = decode(encode(lengths))[1].sum()
    assert together == sum(decode(encode(part[:, ANSWERED] - part[:, DUE]))[1].sum() for part in parts) == 2400


def test_a_host_that_is_ready_too_late_is_an_error(echo: tuple[Echo, Target]) -> None:
    _, target = echo

    with pytest.raises(LoadFailed, match=r"ready [0-9.]+ s after all were to begin"):
        send_share(asked(target, Load(concurrency=2)), 0, 1, ready=lambda: time.time() - 1)


def test_streams_are_for_one_host() -> None:
    with pytest.raises(LoadInputError, match="neither streams"):
        asked(replace(Target("h", 1), via=Via(kind="stream")), Load(concurrency=2))
