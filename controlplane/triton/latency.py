# The latency of one served version under recorded requests at a rate, measured by the load generator.
"""The generator's process is spawned, and gone when a call returns or raises. Its load is bounded: the gate's rate for its
time, and not longer than until the server has fallen behind; the calibration before it has a few calls in flight for a
moment, none of which infers anything.

It ends early where the percentile's interval lies on one side of the bound. Each look is a chance to be wrong, so there are
few, further and further apart, and they ask for more confidence (99 %) than the end does (95 %)."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from clients.inference import Tls
from clients.load.calibrate import Calibration, calibrate
from clients.load.errors import LoadFailed, LoadInputError
from clients.load.measure import Limits, Load, Measurement, Target, measure
from clients.load.messages import message
from clients.load.outcomes import ANSWERED, DUE, STATUS, succeeded
from clients.load.processes import Records
from clients.load.schedule import Curve
from clients.load.statistics import fewest, percentile, warm_up
from clients.load.transports import Via
from controlplane.domain.latency_gates import LatencyGate, LatencySeen
from controlplane.domain.tensors import Tensors

_WARM_UP_SECONDS = 1.0
_PRECISION = 1.0
"""Half an interval, as a share of its percentile: the verdict calls what is known less well unstable."""
_LOOKS_APART = 1.5
_LOOK_CONFIDENCE = 0.99
_CALIBRATION_SECONDS = 0.4
_TIMEOUT_SECONDS = 30.0
_BEHIND_SECONDS = 2.0
_SEQUENCES = 256


def measure_latency(
    address: str,
    model: str,
    version: int,
    gate: LatencyGate,
    inputs: Sequence[Tensors],
    *,
    metadata: tuple[tuple[str, str], ...] = (),
    tls: Tls | None = None,
    sequences: bool = False,
    seed: int = 0,
    go_on: Callable[[], None],
) -> LatencySeen:
    """`inputs` are the requests, taken in turns; with `sequences` each is a sequence of its own. `go_on` is called a few
    times a second, and what it raises ends the measurement. A generator that fails is the verdict `broken`."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        target = Target(host.strip("[]"), int(port), metadata=metadata, via=Via(tls=tls))
        requests = _requests(model, version, inputs, sequences=sequences)
        calibration = calibrate(
            target,
            concurrency=max(4, math.ceil(float(gate.rate) / 50)),
            processes=1,
            connections=1,
            seconds=_CALIBRATION_SECONDS,
        )
        go_on()
        return _measured(target, requests, gate, calibration, seed=seed, go_on=go_on)
    except (LoadFailed, LoadInputError, ValueError) as error:
        return LatencySeen("broken", (f"the load generator could not measure: {error}",))


def _measured(
    target: Target,
    requests: tuple[bytes, ...],
    gate: LatencyGate,
    calibration: Calibration,
    *,
    seed: int,
    go_on: Callable[[], None],
) -> LatencySeen:
    rate, bound = float(gate.rate), gate.bound_seconds
    limits = Limits(
        seconds=gate.most_seconds,
        cap=gate.most_seconds,
        warm_up=_WARM_UP_SECONDS,
        precision=_PRECISION,
        watched=float(gate.percentile),
        lateness=max(0.001, bound / 10),
        timeout=_TIMEOUT_SECONDS,
    )
    blocks: list[Records] = []
    waiting, look, going = 0, _WARM_UP_SECONDS + gate.seconds, True

    def watch(elapsed: float, records: Records) -> bool:
        """False when it can be told, when a request failed, which decides too, and when so many wait that the server does not
        keep the rate: more of them would only harm it."""
        nonlocal waiting, look, going
        go_on()
        if not going or elapsed > _WARM_UP_SECONDS + gate.most_seconds:
            return False  # it has ended; what was sent is awaited
        blocks.append(records)
        left = int(rate * elapsed) - sum(map(len, blocks))
        start = time.monotonic_ns() - int(elapsed * 1e9)
        if left > rate * (_BEHIND_SECONDS + 2 * bound) + 32:
            waiting, going = left, False
        elif _counted(records, start)[:, STATUS].any():
            going = False
        elif elapsed >= look:
            look = _LOOKS_APART * elapsed
            going = not _decided(np.concatenate(blocks), start, gate)
        return going

    measured = measure(
        target,
        requests,
        Load(curve=Curve.flat(rate), most=math.ceil(rate * (_WARM_UP_SECONDS + gate.most_seconds)) + 1000),
        limits,
        seed=seed,
        ceiling=calibration.ceiling if calibration.ceiling > 0 else math.inf,
        progress=watch,
    )
    return replace(_seen(measured, float(gate.percentile), calibration), seed=seed, waiting=waiting)


def _counted(records: Records, start: int) -> Records:
    """Those of them that were due after the warm-up."""
    return records[records[:, DUE] >= start + int(_WARM_UP_SECONDS * 1e9)]


def _decided(records: Records, start: int, gate: LatencyGate) -> bool:
    counted = succeeded(_counted(records[np.argsort(records[:, ANSWERED], kind="stable")], start))
    waited = (counted[:, ANSWERED] - counted[:, DUE]) / 1e9
    waited = waited[warm_up(waited) :]
    if len(waited) < fewest(float(gate.percentile)):
        return False
    interval = percentile(waited, float(gate.percentile), _LOOK_CONFIDENCE)
    return interval.low > gate.bound_seconds or interval.high <= gate.bound_seconds


def _seen(measured: Measurement, percent: float, calibration: Calibration) -> LatencySeen:
    scheduled, sent = measured.latency.scheduled[percent], measured.latency.sent[percent]
    return LatencySeen(
        verdict=measured.verdict,
        reasons=measured.reasons,
        seconds=measured.seconds,
        offered=measured.offered,
        answered=measured.completed,
        failed=measured.failed,
        failure=next(iter(measured.failures.values()), ""),
        value=scheduled.value,
        low=scheduled.low,
        high=scheduled.high,
        sent_low=sent.low,
        rate=measured.rate.value,
        lateness=measured.lateness_p99,
        ceiling=calibration.ceiling,
        floor=calibration.floor,
        concurrency=calibration.concurrency,
    )


def _requests(model: str, version: int, inputs: Sequence[Tensors], *, sequences: bool) -> tuple[bytes, ...]:
    if not sequences:
        return tuple(message(model, one, version=version, parameters={}) for one in inputs)
    return tuple(
        message(
            model,
            inputs[number % len(inputs)],
            version=version,
            parameters={"sequence_id": uuid.uuid4().int >> 65, "sequence_start": True, "sequence_end": True},
        )
        for number in range(_SEQUENCES)
    )
