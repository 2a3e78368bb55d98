# What is sent where and how, and what each sending process does of it.
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clients.load.errors import LoadInputError
from clients.load.schedule import Curve, Offsets, Process, arrivals
from clients.load.shared_memory import Slots
from clients.load.traffic import Traffic
from clients.load.transports import Via
from clients.load.verdicts import Limits
from clients.load.worker import Job

_MOST_CONNECTIONS = 500
"""What `select` waits for at once is bounded."""
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: a gRPC call of one message, by default an inference."""

    host: str
    port: int
    path: str = INFER
    metadata: tuple[tuple[str, str], ...] = ()
    via: Via = field(default_factory=Via)
    shared: Slots | None = None

    def __post_init__(self) -> None:
        if self.shared is not None and self.shared.tails and self.via.chosen == "stream":
            raise LoadInputError("the responses of a stream would overwrite one another in shared memory", "outputs={}")

    @property
    def transport(self) -> str:
        """As results name it."""
        return f"{self.via}, shared memory" if self.shared is not None else str(self.via)


@dataclass(frozen=True, slots=True)
class Load:
    """Closed loop: `concurrency` calls in flight. Open loop: a `curve` of rates, or the `offsets` of a trace, with at most
    `most` calls in flight for each process. Of sequences at most one call each is in flight: see `Traffic.live`."""

    concurrency: int = 0
    curve: Curve | None = None
    process: Process = "poisson"
    offsets: Offsets | None = None
    most: int = 1000

    def __post_init__(self) -> None:
        if sum((self.concurrency > 0, self.curve is not None, self.offsets is not None)) != 1:
            raise LoadInputError("one load is needed", "a concurrency, a rate or a trace")

    @property
    def steady(self) -> bool:
        """Whether it is the same from begin to end."""
        rates = {rate for piece in self.curve.pieces for rate in (piece.first, piece.last)} if self.curve else set()
        return self.offsets is None and len(rates) < 2


def due_times(load: Load, limits: Limits, seed: int) -> Offsets | None:
    """When calls are due, in ns from the start; None in a closed loop."""
    seconds, offsets = limits.warm_up + limits.cap, load.offsets
    if load.curve is not None:
        if limits.count is not None:
            needed = load.curve.area(limits.warm_up) + limits.count
            while load.curve.area(seconds) < needed + 6 * needed**0.5 + 20:
                seconds *= 2
        offsets = arrivals(load.curve, seconds, process=load.process, seed=seed)
    if offsets is None or limits.count is None:
        return offsets
    return offsets[: int(np.searchsorted(offsets, limits.warm_up * 1e9)) + limits.count]


def plan(
    target: Target,
    traffic: Traffic,
    load: Load,
    limits: Limits,
    offsets: Offsets | None,
    *,
    processes: int,
    connections: int,
    seed: int,
) -> list[Job]:
    """What each process does; together it is the load."""
    random = np.random.default_rng(seed)
    if load.concurrency and load.concurrency < processes:
        raise LoadInputError(f"{load.concurrency} in flight over {processes} processes", "fewer processes")
    if connections > _MOST_CONNECTIONS:
        raise LoadInputError(f"{connections} connections of one process", f"{_MOST_CONNECTIONS} at the most")
    inside = [len(range(number, load.concurrency or traffic.live, processes)) for number in range(processes)]
    plans, prepared = traffic.plans(inside, seed), traffic.messages
    return [
        Job(
            address=(target.host, target.port),
            path=target.path,
            metadata=target.metadata,
            messages=prepared,
            order=traffic.order(random),
            connections=connections,
            via=target.via,
            concurrency=inside[number] if load.concurrency else 0,
            offsets=np.zeros(0, np.int64) if offsets is None else offsets[number::processes],
            most=min([load.most, *([plan.live] if plan else []), *([len(places.tails)] if places else [])]),
            timeout_ns=int(limits.timeout * 1e9),
            count=None if limits.count is None else len(range(number, limits.count, processes)),
            warm_up_ns=int(limits.warm_up * 1e9),
            shared=places,
            plan=plan,
            expected=traffic.expected,
        )
        for number, (plan, places) in enumerate(zip(plans, _slots(target, inside, load), strict=True))
    ]


def _slots(target: Target, inside: list[int], load: Load) -> list[Slots | None]:
    """For the outputs of each process; None where they come in the answers."""
    if target.shared is None or not target.shared.tails:
        return [None] * len(inside)
    parts = [target.shared.part(number, len(inside)) for number in range(len(inside))]
    if any(len(part.tails) < (most if load.concurrency else 1) for most, part in zip(inside, parts, strict=True)):
        raise LoadInputError(
            f"{len(target.shared.tails)} slots in shared memory for {load.concurrency} calls in flight in "
            f"{len(inside)} processes",
            "one for each call, and some more",
        )
    return list(parts)
