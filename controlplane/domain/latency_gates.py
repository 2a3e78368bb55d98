# Latency gates: what a policy asks of a percentile after a load, and what a measurement says of it.
"""A gate sends recorded requests to what was just loaded, as a Poisson process at a stated rate, and takes latency from the
moment at which each was due. The interval of the percentile decides: wholly at or below the bound it passed, wholly above it
failed, else it is inconclusive, and the gate itself says what that does to the change."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fnmatch import fnmatchcase

from clients.load.statistics import fewest
from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.names import check_name
from controlplane.errors import PolicyInvalid

LATER = "later"
"""The outcome of a gate in a plan that is judged after the load."""
MEASURE = "measure"
"""What the journal calls a measurement: nothing outside changes by it, but it takes its time."""
PAUSE, UNDO, ACCEPT = "pause", "undo", "accept"
_STRICTNESS = (ACCEPT, PAUSE, UNDO)

_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]{1,100}")
_TEXT = re.compile(
    r"(?P<name>[^=]+)=(?P<models>[^:]+):p(?P<percentile>[0-9.]+)<=(?P<bound_ms>[0-9.]+)ms@(?P<rate>[0-9.]+)/s(?P<rest>(,[a-z_]+=\w+)*)"
)
_HOW = (
    "write it as NAME=MODELS:p99<=10ms@50/s, and after it, where wanted, ,seconds=10,most_seconds=60,inconclusive=pause"
)


@dataclass(frozen=True, slots=True)
class LatencyGate:
    """Of the models whose name is like `models` (`*` and `?`), after a load: `percentile` of the latency at `rate` requests a
    second is at most `bound_ms`. It is measured for `seconds` at the least, and longer, up to `most_seconds`, until it can be
    told. `inconclusive` says what becomes of the change when it cannot be told: it pauses until a human decides, is undone, or
    goes on."""

    name: str
    models: str
    bound_ms: Decimal
    rate: Decimal
    percentile: Decimal = Decimal(99)
    seconds: int = 10
    most_seconds: int = 60
    inconclusive: str = PAUSE

    def __post_init__(self) -> None:
        check_name(self.name, "latency gate")
        if _PATTERN.fullmatch(self.models) is None:
            raise self._wrong(
                "models", self.models[:100], "a name in which * and ? stand for anything, such as digits*"
            )
        for name, low, high in (
            ("percentile", "1", "99.99"),
            ("bound_ms", "0.01", "5000"),
            ("rate", "0.1", "1000"),
            ("seconds", "1", "300"),
            ("most_seconds", str(self.seconds), "300"),
        ):
            if not Decimal(low) <= getattr(self, name) <= Decimal(high):
                raise self._wrong(name, getattr(self, name), f"use {low} to {high}")
        if self.inconclusive not in _STRICTNESS:
            raise self._wrong("inconclusive", self.inconclusive[:100], f"use {PAUSE}, {UNDO} or {ACCEPT}")
        least, most = fewest(float(self.percentile)), int(self.rate * self.most_seconds)
        if most < least:
            raise PolicyInvalid(
                f"latency gate {self.name!r} can never tell: p{self.percentile} takes {least} answers, and "
                f"{self.rate}/s for {self.most_seconds} s gives {most}",
                hint=f"most_seconds={math.ceil(least / self.rate)} or more, or a higher rate",
            )

    def matches(self, model: str) -> bool:
        return fnmatchcase(model, self.models)

    @property
    def title(self) -> str:
        """What plans and proofs call it."""
        return f"latency {self.name}"

    @property
    def words(self) -> str:
        return f"p{self.percentile} <= {self.bound_ms} ms at {self.rate}/s"

    @property
    def bound_seconds(self) -> float:
        return float(self.bound_ms) / 1000

    def asks_more_than(self, other: LatencyGate) -> bool:
        return (
            self.rate > other.rate
            or self.percentile > other.percentile
            or self.bound_ms < other.bound_ms
            or self.seconds > other.seconds
            or _STRICTNESS.index(self.inconclusive) > _STRICTNESS.index(other.inconclusive)
        )

    def __str__(self) -> str:
        """As `from_json` reads it."""
        return (
            f"{self.name}={self.models}:p{self.percentile}<={self.bound_ms}ms@{self.rate}/s,seconds={self.seconds},"
            f"most_seconds={self.most_seconds},inconclusive={self.inconclusive}"
        )

    def longer(self) -> LatencyGate:
        """The same, with twice the time to tell, as far as that goes."""
        return replace(self, most_seconds=min(300, 2 * self.most_seconds))

    def to_json(self) -> JsonObject:
        return {
            "name": self.name,
            "models": self.models,
            "bound_ms": str(self.bound_ms),
            "rate": str(self.rate),
            "percentile": str(self.percentile),
            "seconds": self.seconds,
            "most_seconds": self.most_seconds,
            "inconclusive": self.inconclusive,
        }

    @classmethod
    def from_json(cls, tree: Json) -> LatencyGate:
        """Of an object, or of text as on the command line. Raises PolicyInvalid."""
        fields = _of_text(tree) if isinstance(tree, str) else tree
        if not isinstance(fields, Mapping) or not {"name", "models", "bound_ms", "rate"} <= fields.keys():
            raise PolicyInvalid(f"{str(tree)[:200]!r} is not a latency gate", hint=_HOW)
        unknown = sorted(fields.keys() - set(cls.__dataclass_fields__))
        if unknown:
            raise PolicyInvalid(f"a latency gate has no {unknown[0][:100]!r}", hint=_HOW)
        optional = {
            name: read(name, fields[name])
            for name, read in (("percentile", _decimal), ("seconds", _whole), ("most_seconds", _whole))
            if name in fields
        }
        return cls(
            name=str(fields["name"]),
            models=str(fields["models"]),
            bound_ms=_decimal("bound_ms", fields["bound_ms"]),
            rate=_decimal("rate", fields["rate"]),
            inconclusive=str(fields.get("inconclusive", PAUSE)),
            **optional,  # type: ignore[arg-type]  # the types follow from the names
        )

    def _wrong(self, clause: str, value: object, hint: str) -> PolicyInvalid:
        return PolicyInvalid(f"latency gate {self.name[:100]!r}: {clause} is {value}", hint=hint)


def gates_from_json(tree: Json) -> tuple[LatencyGate, ...]:
    """At most 20, each with a name of its own. Raises PolicyInvalid."""
    if not isinstance(tree, Sequence) or isinstance(tree, str):
        raise PolicyInvalid(f"latency_gates has the wrong type: {tree!r}", hint="a list of latency gates")
    gates = tuple(LatencyGate.from_json(item) for item in tree)
    names = [gate.name for gate in gates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PolicyInvalid(f"there are two latency gates {twice!r}", hint="give each a name of its own")
    if len(gates) > 20:
        raise PolicyInvalid(f"{len(gates)} latency gates", hint="at most 20: one pattern can stand for many models")
    return gates


def tightened(live: Iterable[LatencyGate], bound: Iterable[LatencyGate], model: str) -> tuple[str, ...]:
    """In words, what the live policy asks of the model's latency that the one of its plan did not."""
    known = {gate.name: gate for gate in bound if gate.matches(model)}
    return tuple(
        f"new latency gate {gate.name}: {gate.words}"
        if gate.name not in known
        else f"latency gate {gate.name} went from {known[gate.name].words} to {gate.words}"
        for gate in live
        if gate.matches(model) and (gate.name not in known or gate.asks_more_than(known[gate.name]))
    )


class LatencyOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class LatencySeen:
    """What one measurement saw; times in seconds, rates in calls a second.

    `value`, from `low` to `high`, is the percentile from when a call was due, `sent_low` the lower end from when it was
    sent; infinite where the samples cannot tell. `ceiling` and `floor` are the generator's calibration on its host: calls
    without inference that it reaches with `concurrency` in flight, and the median of one alone. `waiting`: requests
    without an answer when it was stopped because the server fell behind. `cached`: answers of the response cache meanwhile.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    offered: int = 0
    answered: int = 0
    failed: Mapping[str, int] | None = None
    failure: str = ""
    value: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    sent_low: float = -math.inf
    rate: float = math.nan
    lateness: float = math.nan
    ceiling: float = math.nan
    floor: float = math.nan
    concurrency: int = 0
    seed: int = 0
    waiting: int = 0
    cached: int = 0

    def to_json(self) -> JsonObject:
        """Without floats, as digests want it: times in whole µs, null for what is not known."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "measured_us": _us(self.seconds),
            "offered": self.offered,
            "answered": self.answered,
            "failed": dict(self.failed or {}),
            "value_us": _us(self.value),
            "low_us": _us(self.low),
            "high_us": _us(self.high),
            "sent_low_us": _us(self.sent_low),
            "rate": f"{self.rate:.1f}" if math.isfinite(self.rate) else None,
            "lateness_p99_us": _us(self.lateness),
            "waiting": self.waiting,
            "cached": self.cached,
            "seed": self.seed,
            "calibration": {
                "ceiling": round(self.ceiling) if math.isfinite(self.ceiling) else None,
                "concurrency": self.concurrency,
                "floor_us": _us(self.floor),
            },
        }


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """One gate judged on one server, by the numbers that were `seen`; the row that a change keeps, whatever became of it."""

    change: int
    server: str
    version: int
    gate: JsonObject
    outcome: LatencyOutcome
    reason: str
    seen: JsonObject
    started_at: datetime
    finished_at: datetime


def judge(gate: LatencyGate, seen: LatencySeen) -> tuple[LatencyOutcome, str]:
    """The outcome and why, with the numbers.

    A wide interval that lies on one side of the bound decides as well as a narrow one. What the client limited can only
    fail, and only by the latency from the send, in which its own lateness is not.
    """
    numbers = f"{_interval(gate, seen)} at {gate.rate}/s; the bound is {gate.bound_ms} ms"
    bound, enough = gate.bound_seconds, seen.answered >= fewest(float(gate.percentile))
    if seen.waiting:
        return (
            LatencyOutcome.FAILED,
            f"the server fell behind {gate.rate}/s: {seen.waiting} requests waited for their answer when it was stopped",
        )
    if seen.failed:
        failed = ", ".join(f"{count} {name}" for name, count in seen.failed.items())
        count = sum(seen.failed.values())
        said = f": {seen.failure}" if seen.failure else ""
        return LatencyOutcome.FAILED, f"{count} of {count + seen.answered} requests failed ({failed}){said}"
    if seen.cached:
        return (
            LatencyOutcome.INCONCLUSIVE,
            f"the response cache answered {seen.cached} requests meanwhile, which say nothing of the model",
        )
    if seen.verdict == "client_limited" and not (enough and seen.sent_low > bound):
        return LatencyOutcome.INCONCLUSIVE, "; ".join((*seen.reasons, numbers))
    if not enough:
        return LatencyOutcome.INCONCLUSIVE, "; ".join(seen.reasons) or numbers
    if seen.low > bound:
        return LatencyOutcome.FAILED, numbers
    if seen.high <= bound:
        return LatencyOutcome.PASSED, numbers
    return LatencyOutcome.INCONCLUSIVE, f"{numbers}, inside the interval"


def _interval(gate: LatencyGate, seen: LatencySeen) -> str:
    ends = f"{_ms(seen.low)} to {_ms(seen.high)} ms" if math.isfinite(seen.high) else f"{_ms(seen.low)} ms or more"
    return f"p{gate.percentile} is {_ms(seen.value)} ms (95 %: {ends}, n {seen.answered})"


def _ms(seconds: float) -> str:
    return f"{1000 * max(seconds, 0.0):.3g}" if math.isfinite(seconds) else "?" if math.isnan(seconds) else "0"


def _us(seconds: float) -> int | None:
    return round(seconds * 1e6) if math.isfinite(seconds) else None


def _of_text(text: str) -> JsonObject | None:
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        return None
    fields: JsonObject = {name: value for name, value in match.groupdict().items() if name != "rest"}
    for part in match["rest"].split(",")[1:]:
        name, _, value = part.partition("=")
        fields[name] = value
    return fields


def _decimal(clause: str, value: Json) -> Decimal:
    try:
        number = Decimal(str(value)) if not isinstance(value, bool) else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or len(str(value)) > 12 or not -6 <= number.adjusted() <= 6:
        raise PolicyInvalid(f"a latency gate's {clause} is no number: {str(value)[:100]!r}", hint=_HOW)
    # Plain digits and no zeros at the end: one number has one form.
    return Decimal(f"{number.normalize():f}")


def _whole(clause: str, value: Json) -> int:
    number = _decimal(clause, value)
    if number != number.to_integral_value():
        raise PolicyInvalid(f"a latency gate's {clause} is {number}", hint="whole seconds")
    return int(number)
