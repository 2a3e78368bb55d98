# What this client can do on this host at best: calls to the same server that infer nothing.
from __future__ import annotations

from dataclasses import dataclass, replace

from clients.load.errors import LoadFailed
from clients.load.measure import Limits, Load, Target, measure
from clients.load.processes import SenderPool

LIVE = "/inference.GRPCInferenceService/ServerLive"
_EMPTY = b"\0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ceiling`: calls a second with so many in flight; `floor`: seconds of one call alone, its median. The server's part in
    answering that it lives is in both, so the client itself is better than this."""

    ceiling: float
    floor: float
    concurrency: int


def calibrate(
    target: Target,
    *,
    concurrency: int,
    processes: int,
    connections: int,
    seconds: float = 1.0,
    floor: float | None = None,
    pool: SenderPool | None = None,
) -> Calibration:
    """Two short runs, or one where the `floor` is known from an earlier one or is what that one finds. Raises LoadFailed when the
    server answers nothing."""
    via = replace(target.via, kind="grpcio") if target.via.chosen == "stream" else target.via
    live = replace(target, path=LIVE, via=via, shared=None)
    limits = Limits(seconds=seconds, cap=seconds, warm_up=0.2, timeout=5)
    many = Load(concurrency=concurrency)
    busy = measure(live, (_EMPTY,), many, limits, processes=processes, connections=connections, pool=pool)
    if not busy.completed:
        raise LoadFailed(f"the server did not say whether it lives: {busy.failures}")
    if floor is None:
        alone = busy if concurrency == 1 else measure(live, (_EMPTY,), Load(concurrency=1), limits, pool=pool)
        if not alone.completed:
            raise LoadFailed(f"the server did not say whether it lives: {alone.failures}")
        floor = alone.latency.sent[50.0].value
    return Calibration(busy.rate.value, floor, concurrency)
