# Loads as people write them: ladders of concurrency or rate, bursts, ramps, curves, traces, limits.
from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clients.load.errors import LoadInputError
from clients.load.measure import Load
from clients.load.schedule import Curve, Process, trace

_MOST_STEPS = 64
_LIMIT = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*(?:<=|<|=)\s*(\d+(?:\.\d+)?)\s*(us|ms|s)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def steps(text: str, what: str) -> list[float]:
    """`16`, `1,4,16`, `100:1000:100` (by adding) or `1:64:x2` (by multiplying); the end is included when it is met."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        first, last, step = text.split(":")
        low, high, by = float(first), float(last), float(step.removeprefix("x"))
    except ValueError:
        raise LoadInputError(f"{text!r} is no {what}", "such as 16, 1,4,16, 100:1000:100 or 1:64:x2") from None
    times = step.startswith("x")
    if low <= 0 or high < low or by <= (1 if times else 0):
        raise LoadInputError(f"{text!r} leads nowhere", "such as 100:1000:100 or 1:64:x2")
    found = []
    while low <= high * (1 + 1e-9):
        found.append(low)
        low = low * by if times else low + by
        if len(found) > _MOST_STEPS:
            raise LoadInputError(f"{text!r} has more than {_MOST_STEPS} steps", "a larger step")
    return found


def loads(
    *,
    concurrency: str | None,
    rate: str | None,
    bursts: str | None,
    ramp: str | None,
    curve: str | None,
    trace_file: Path | None,
    process: Process,
) -> list[tuple[str, Load]]:
    """Each with the name under which it is reported. Raises LoadInputError unless just one shape is asked for."""
    asked = [name for name, value in (
        ("--concurrency", concurrency), ("--rate", rate), ("--bursts", bursts), ("--ramp", ramp), ("--curve", curve),
        ("--trace", trace_file),
    ) if value is not None]  # fmt: skip
    if len(asked) > 1:
        raise LoadInputError(f"{' and '.join(asked)} at once", "one shape for each run")
    if rate is not None:
        return [(f"{one:g}/s", Load(curve=Curve.flat(one), process=process)) for one in steps(rate, "rate")]
    if bursts is not None:
        high, on, off, *low = _numbers(bursts, "--bursts", "RATE:ON:OFF or RATE:ON:OFF:BETWEEN", (3, 4))
        return [(f"bursts {bursts}", Load(curve=Curve.bursts(high, on, off, *low), process=process))]
    if ramp is not None:
        first, last, seconds = _numbers(ramp, "--ramp", "FIRST:LAST:SECONDS", (3,))
        return [(f"ramp {ramp}", Load(curve=Curve.ramp(first, last, seconds), process=process))]
    if curve is not None:
        points = [_numbers(point, "--curve", "SECOND:RATE,SECOND:RATE", (2,)) for point in curve.split(",")]
        return [(f"curve {curve}", Load(curve=Curve.through([(a, b) for a, b in points]), process=process))]
    if trace_file is not None:
        return [(f"trace {trace_file.name}", Load(offsets=trace(trace_file)))]
    found = []
    for one in steps(concurrency or "1", "concurrency"):
        if one != int(one) or one < 1:
            raise LoadInputError(f"{one:g} calls cannot be in flight", "a whole number, 1 or more")
        found.append((f"{one:g} in flight", Load(concurrency=int(one))))
    return found


def limit(text: str) -> tuple[float, float]:
    """`p99<=10ms` as (99.0, 0.01)."""
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise LoadInputError(f"{text!r} is no limit", "such as p99<=10ms")
    return float(match[1]), float(match[2]) * _UNITS[match[3]]


def _numbers(text: str, option: str, form: str, counts: Sequence[int]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise LoadInputError(f"{option} {text}: not {form}", f"{option} {form}")
    return numbers


def bounds(text: str) -> tuple[float, float]:
    """`LOW:HIGH` of a search."""
    low, high = _numbers(text, "--find-rate", "LOW:HIGH", (2,))
    if not 0 < low < high:
        raise LoadInputError(f"--find-rate {text} leads nowhere", "LOW:HIGH in calls a second, such as 100:5000")
    return low, high
