# What a sweep's spec is written with: whole-number ranges, ladders of load, values of a dimension, conditions.
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_paths import Field, Index, Key, Step, parse_path
from controlplane.errors import SweepInvalid

MOST_VALUES = 64
"""Values of one dimension, steps of one ladder."""
_RANGE = re.compile(r"(?P<low>[0-9.]{1,20}):(?P<high>[0-9.]{1,20}):(?P<times>x?)(?P<step>[0-9.]{1,20})")
_CONDITION = re.compile(r"(?P<where>.+?)(?P<differs>!?)=(?P<value>[^=]*)")
_DECIMAL = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")
_FORM = "such as 1:8:1 (by adding) or 1:64:x2 (by multiplying); the end is included when it is met"


def ladder(text: str, what: str) -> tuple[Decimal, ...]:
    """`16`, `1,4,16`, `100:1000:100` (by adding) or `1:64:x2` (by multiplying), all above 0, each once."""
    if ":" in text:
        return stretch(text, what, zero=False)
    if text.count(",") >= MOST_VALUES:
        raise SweepInvalid(f"{what} has more than {MOST_VALUES} steps", hint="leave some out")
    found = tuple(_decimal(part.strip(), what) for part in text.split(","))
    for at, number in enumerate(found):
        if number <= 0:
            raise SweepInvalid(f"{what} is {plain(number)}", hint="use numbers above 0")
        if number in found[:at]:
            raise SweepInvalid(f"{what} has the step {plain(number)} twice", hint="leave one of them out")
    return found


def stretch(text: str, what: str, *, zero: bool = True) -> tuple[Decimal, ...]:
    """The numbers of `lo:hi:step` or `lo:hi:xN`. `zero`: it may begin there, when it goes on by adding."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise SweepInvalid(f"{what}: {text[:60]!r} is no range", hint=_FORM)
    low, high, step = (_decimal(match[part], what) for part in ("low", "high", "step"))
    times = bool(match["times"])
    if high < low or (low == 0 and (times or not zero)) or step <= (1 if times else 0):
        raise SweepInvalid(f"{what}: the range {text} leads nowhere", hint=_FORM)
    found = [low]
    while (number := found[-1] * step if times else found[-1] + step) <= high:
        found.append(number)
        if len(found) > MOST_VALUES:
            raise SweepInvalid(f"{what}: the range {text} has more than {MOST_VALUES} values", hint="use a larger step")
    return tuple(found)


def values(written: Json, what: str) -> tuple[Json, ...]:
    """The values of a dimension: one, a list of them, or a range in words. Numbers with a fraction become text, so that
    they are digested alike everywhere; null leaves the place out of the config."""
    if isinstance(written, str) and _RANGE.fullmatch(written):
        return tuple(_number(number) for number in stretch(written, what))
    found = [settled(one, what) for one in (written if isinstance(written, list) else [written])]
    if not found:
        raise SweepInvalid(f"{what} has no values", hint="name one or more, or leave it out")
    if len(found) > MOST_VALUES:
        raise SweepInvalid(f"{what} has {len(found)} values", hint=f"at most {MOST_VALUES}")
    for at, one in enumerate(found):
        if any(type(one) is type(other) and one == other for other in found[:at]):
            raise SweepInvalid(f"{what} has the value {one!r} twice", hint="leave one of them out")
    return tuple(found)


def settled(value: Json, what: str) -> Json:
    """The tree without floats."""
    if isinstance(value, float):
        return plain(_decimal(repr(value), what))
    if isinstance(value, Mapping):
        return {str(key): settled(item, what) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settled(item, what) for item in value]
    if isinstance(value, int) and abs(value) > 2**53 - 1:
        raise SweepInvalid(f"{what}: a number beyond 2**53 is not the same everywhere", hint="quote it")
    if value is None or isinstance(value, str | int):
        return value
    raise SweepInvalid(f"{what}: {value!r} is not text, a number, true or false", hint="quote it")  # YAML has dates


def plain(number: Decimal) -> str:
    """Without exponent and trailing zeros: one text for equal numbers."""
    return f"{number.normalize():f}"


def short(number: float) -> str:
    """Four figures for people, without an exponent: 0.1234, 1.235, 12350."""
    said = f"{number:.4g}"
    return f"{float(said):.0f}" if abs(number) >= 1000 else said


@dataclass(frozen=True, slots=True)
class Condition:
    """`where` is a config path; the candidate's config has `value` there, or, if it `differs`, something else."""

    where: str
    value: str
    differs: bool = False

    @property
    def text(self) -> str:
        return f"{self.where}{'!' * self.differs}={self.value}"

    def holds(self, config: JsonObject) -> bool:
        """Where nothing is set the config has 0, false or no text, as Triton reads it."""
        there = at_path(config, self.where)
        alike = self.value in {"", "0", "false"} if there is None else _text(there) == self.value
        return alike != self.differs


def condition(text: str, what: str) -> Condition:
    """`PATH=VALUE` or `PATH!=VALUE`."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise SweepInvalid(
            f"{what}: {text[:100]!r} is no condition",
            hint="write PATH=VALUE or PATH!=VALUE, such as max_batch_size!=1",
        )
    where = match["where"].strip()
    parse_path(where)
    return Condition(where, match["value"].strip(), bool(match["differs"]))


def at_path(config: JsonObject, path: str) -> Json:
    """What the config has there; None where it has nothing."""
    found: Json = config
    for step in parse_path(path):
        found = _below(found, step)
        if found is None:
            return None
    return found


def _below(value: Json, step: Step) -> Json:
    if isinstance(value, Mapping):
        return value.get(step.name if isinstance(step, Field) else step.text) if isinstance(step, Field | Key) else None
    if not isinstance(value, list):
        return None
    if isinstance(step, Key):
        return next((item for item in value if isinstance(item, Mapping) and item.get("name") == step.text), None)
    return value[step.number] if isinstance(step, Index) and step.number < len(value) else None


def similar(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is not known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"


def _text(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(number: Decimal) -> Json:
    return int(number) if number == number.to_integral_value() else plain(number)


def _decimal(text: str, what: str) -> Decimal:
    """In ASCII digits, so that one number has one form; so small or large that writing it out takes pages is nobody's."""
    if _DECIMAL.fullmatch(text) is None:
        raise SweepInvalid(f"{what}: {text[:60]!r} is not a number", hint="such as 16 or 2.5")
    number = Decimal(text)
    if abs(number) > _LARGEST or 0 < abs(number) < _SMALLEST:
        raise SweepInvalid(f"{what}: {text[:60]!r} is not a number of this world", hint="such as 16 or 2.5")
    return number
