# One load from several hosts against one server: each sends its share of the calls, and their records are merged exactly.
"""The sending processes of all hosts are planned as if they were one host's, and each host runs every n-th of them. What is summarized is
every record, as if one host had sent all: counts add up, and percentiles are those of all samples. Such a load has a fixed length,
as nobody sees all of it while it goes on.

A latency is a difference in one host's own clock. Records are laid side by side from each host's own start; that those starts are
one moment rests on the hosts' clocks, which are to be synchronized."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clients.load.errors import LoadFailed, LoadInputError
from clients.load.jobs import Load, Target, due_times, plan
from clients.load.measure import Measurement, summarize
from clients.load.outcomes import ANSWERED
from clients.load.processes import NOTHING, Records, Senders
from clients.load.traffic import Traffic
from clients.load.verdicts import Limits
from clients.load.worker import Ending

_LATE_SECONDS = 0.05
_LEAD_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Asked:
    """The whole load, the same for every host; `processes` and `connections` are each one's. Of the limits' seconds, `cap` counts."""

    target: Target
    traffic: Traffic
    load: Load
    limits: Limits
    processes: int
    connections: int
    seed: int

    def __post_init__(self) -> None:
        if self.target.via.chosen == "stream" or self.target.shared is not None:
            raise LoadInputError("several hosts send neither streams nor through shared memory", "one host for those")


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one host sent: the records of each of its processes, in ns from its start, and how many calls each may have in flight."""

    parts: tuple[Records, ...]
    places: tuple[int, ...]
    endings: tuple[Ending, ...]


def send_share(
    asked: Asked, host: int, hosts: int, *, ready: Callable[[], float], go_on: Callable[[], None] = lambda: None
) -> Share:
    """`ready` is called when every process is connected, and says at which second of the wall clock all hosts begin. What `go_on`,
    called a few times a second, raises ends it. Raises LoadFailed when it was ready too late."""
    limits, due = asked.limits, due_times(asked.load, asked.limits, asked.seed)
    jobs = plan(
        asked.target, asked.traffic, asked.load, limits, due,
        processes=asked.processes * hosts, connections=asked.connections, seed=asked.seed,
    )[host::hosts]  # fmt: skip
    blocks: list[list[Records]] = [[NOTHING] for _ in jobs]
    with Senders(jobs) as senders:
        left = ready() - time.time() - _LEAD_SECONDS
        if left < -_LATE_SECONDS:
            raise LoadFailed(f"a host was ready {-left:.2f} s after all were to begin")
        time.sleep(max(left, 0.0))
        start = senders.start(_LEAD_SECONDS)
        if due is None and limits.count is None:
            senders.stop(start + int((limits.warm_up + limits.cap) * 1e9))
        for number, block in senders.blocks():
            blocks[number].append(block)
            go_on()
        endings = tuple(senders.endings)
    parts = [np.concatenate(some) for some in blocks]
    for part in parts:
        part[:, : ANSWERED + 1] -= start
    return Share(tuple(parts), tuple(job.most for job in jobs), endings)


def merged(asked: Asked, shares: Sequence[Share], *, ceiling: float = np.inf) -> Measurement:
    """Of the shares of all hosts; `ceiling` is what they reach together, in calls a second."""
    return summarize(
        [part for share in shares for part in share.parts],
        0,
        asked.limits,
        [ending for share in shares for ending in share.endings],
        offsets=due_times(asked.load, asked.limits, asked.seed),
        places=[places for share in shares for places in share.places],
        steady=asked.load.steady,
        ceiling=ceiling,
        transport=asked.target.transport,
        traffic=asked.traffic,
    )
