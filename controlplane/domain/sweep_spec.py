# A sweep's spec: what is searched, under which load and how; strict, with one canonical form.
from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import combinations

from controlplane.domain.canonical import Json, JsonObject, digest
from controlplane.domain.config_paths import meet
from controlplane.domain.names import check_name
from controlplane.domain.sweep_dimensions import Dimension, dimension, place
from controlplane.domain.sweep_values import ladder, plain, settled, similar
from controlplane.errors import SweepInvalid

_VERSIONS = re.compile(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*")
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_MOST = {"rate": 200_000, "concurrency": 10_000}
"""More than one load generator brings about, and not so much that what it prepares takes the worker's memory."""
_MOST_DIMENSIONS, _MOST_EDITS = 64, 16_000
"""The second of all candidates: each is checked by itself when a sweep is planned, and whoever asked waits for that."""
_FEWEST_REQUESTS = 10
"""Of a whole sweep; so few tell nothing apart, but nobody has to guess why."""


class Method(StrEnum):
    RACING = "racing"
    EXHAUSTIVE = "exhaustive"
    OPTUNA = "optuna"


class Shape(StrEnum):
    """How requests come, in the words of the load generator."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    FIND_RATE = "find_rate"
    BURSTS = "bursts"
    RAMP = "ramp"
    CURVE = "curve"
    TRACE = "trace"


_FORMS = {
    Shape.FIND_RATE: (f"{_NUMBER}:{_NUMBER}", "LOW:HIGH in requests a second, such as 50:5000"),
    Shape.BURSTS: (f"{_NUMBER}(:{_NUMBER}){{2,3}}", "RATE:ON:OFF or RATE:ON:OFF:BETWEEN, such as 400:2:8"),
    Shape.RAMP: (f"{_NUMBER}:{_NUMBER}:{_NUMBER}", "FIRST:LAST:SECONDS, such as 10:400:60"),
    Shape.CURVE: (f"{_NUMBER}:{_NUMBER}(,{_NUMBER}:{_NUMBER})+", "SECOND:RATE,SECOND:RATE, such as 0:10,30:400,60:10"),
    Shape.TRACE: (r"[^\x00-\x1f]{1,500}", "a file of arrival times"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """`text` is the shape's argument as on the load generator's command line (`400`, `1:64:x2`, `400:2:8`); several steps of a
    rate or concurrency are a ladder. `rows` are those of each request."""

    shape: Shape
    text: str
    process: str = "poisson"
    rows: int = 1

    def __post_init__(self) -> None:
        what = f"load.{self.shape.value}"
        if self.shape in _FORMS:
            form, hint = _FORMS[self.shape]
            if re.fullmatch(form, self.text) is None:
                raise SweepInvalid(f"{what} cannot be {self.text[:60]!r}", hint=hint)
            if self.shape is not Shape.TRACE:
                self._check_most(Decimal(part) for part in re.split("[:,]", self.text))
            low, _, high = self.text.partition(":")
            if self.shape is Shape.FIND_RATE and not 0 < Decimal(low) < Decimal(high):
                raise SweepInvalid(f"{what}: {self.text} leads nowhere", hint=hint)
            if self.shape in {Shape.BURSTS, Shape.RAMP, Shape.CURVE}:
                self._check_curve()
        elif any(self.shape is Shape.CONCURRENCY and step % 1 for step in self.steps):
            raise SweepInvalid(f"{what} cannot be {self.text[:60]!r}", hint="use whole numbers, such as 16 or 1:64:x2")
        else:
            self._check_most(self.steps)
        if self.process not in {"poisson", "even"}:
            raise SweepInvalid(f"load.process cannot be {self.process[:60]!r}", hint="use poisson or even")
        if not 1 <= self.rows <= 1_000_000:
            raise SweepInvalid(f"load.rows cannot be {self.rows}", hint="use 1 or more")

    def _check_most(self, numbers: Iterable[Decimal]) -> None:
        most = _MOST.get(self.shape.value, _MOST["rate"])
        if any(one > most for one in numbers):
            raise SweepInvalid(
                f"load.{self.shape.value} cannot be {self.text[:60]!r}: that is more than {most}",
                hint=f"use at most {most}",
            )

    def _check_curve(self) -> None:
        """By the code that sends it: what it refuses there would be held against the candidates."""
        from clients.load.errors import LoadInputError
        from clients.load.schedule import Curve

        points = [[float(number) for number in point.split(":")] for point in self.text.split(",")]
        try:
            if self.shape is Shape.BURSTS:
                Curve.bursts(*points[0])
            elif self.shape is Shape.RAMP:
                Curve.ramp(*points[0])
            else:
                Curve.through([(second, rate) for second, rate in points])
        except LoadInputError as error:
            raise SweepInvalid(
                f"load.{self.shape.value} cannot be {self.text[:60]!r}: {error.message}",
                hint=error.hint or _FORMS[self.shape][1],
            ) from None

    @property
    def steps(self) -> tuple[Decimal, ...]:
        """Of a rate or a concurrency; other shapes are one step and have no number."""
        if self.shape in {Shape.RATE, Shape.CONCURRENCY}:
            return ladder(self.text, f"load.{self.shape.value}")
        return ()

    def to_json(self) -> JsonObject:
        return {self.shape.value: self.text, "process": self.process, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class Search:
    """`seconds` is the time budget; `candidates` the most that are tried, of which each is compared with each; `margin_percent` the difference below which two
    candidates are the same to the user."""

    method: Method = Method.RACING
    seed: int = 1
    seconds: int = 180
    candidates: int = 64
    margin_percent: Decimal = Decimal(5)

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**31 - 1), ("seconds", 10, 7 * 86400), ("candidates", 1, 1000)):
            if not low <= getattr(self, name) <= high:
                raise SweepInvalid(f"search.{name} cannot be {getattr(self, name)}", hint=f"use {low} to {high}")
        if not 0 < self.margin_percent <= 50:
            raise SweepInvalid(
                f"search.margin_percent cannot be {plain(self.margin_percent)}", hint="use a number above 0, up to 50"
            )

    def to_json(self) -> JsonObject:
        return {
            "method": self.method.value,
            "seed": self.seed,
            "seconds": self.seconds,
            "candidates": self.candidates,
            "margin_percent": plain(self.margin_percent),
        }


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """Only the model is needed. Without `versions` the caller chooses; what `space` names replaces the default of that
    name, and with `defaults` the rest of the default space is searched too; without `load` the objectives decide."""

    model: str
    versions: tuple[int, ...] = ()
    space: tuple[Dimension, ...] = ()
    defaults: bool = True
    load: Load | None = None
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        if len(self.space) > _MOST_DIMENSIONS:
            raise SweepInvalid(f"space has {len(self.space)} dimensions", hint=f"at most {_MOST_DIMENSIONS}")
        if (edits := len(self.space) * self.search.candidates) > _MOST_EDITS:
            raise SweepInvalid(
                f"{self.search.candidates} candidates in a space of {len(self.space)} dimensions are {edits} values to set and check",
                hint=f"use search.candidates: {_MOST_EDITS // len(self.space)}, or fewer dimensions",
            )
        for one, other in combinations(self.space, 2):
            if meet(place(one.name), place(other.name)):
                raise SweepInvalid(
                    f"space.{one.name} and space.{other.name} set the same place of the config", hint="keep one of them"
                )
        if self.load is not None and self.load.shape is Shape.RATE:
            least = min(self.load.steps)
            if (whole := least * self.search.seconds) < _FEWEST_REQUESTS:
                raise SweepInvalid(
                    f"load.rate {plain(least)} brings {plain(round(whole, 3))} requests in the {self.search.seconds} s of the whole sweep",
                    hint=f"use a higher rate, or more search.seconds: {_FEWEST_REQUESTS} requests at the least",
                )

    def to_json(self) -> JsonObject:
        """Everything said; `spec_from_json` gives the same spec back."""
        found: JsonObject = {
            "model": self.model,
            "versions": list(self.versions),
            "space": {one.name: one.to_json() for one in self.space},
            "defaults": self.defaults,
            "search": self.search.to_json(),
        }
        return found if self.load is None else found | {"load": self.load.to_json()}

    @property
    def digest(self) -> str:
        return digest(self.to_json())


def spec_from_json(tree: Json) -> SweepSpec:
    """Raises SweepInvalid for what is unknown, misspelt or impossible; NameInvalid for the model's name."""
    top = _object(tree, "the spec", ("model", "versions", "space", "defaults", "load", "search"))
    named = top.get("model")
    if not isinstance(named, str):
        raise SweepInvalid("the spec names no model", hint="begin it with model: NAME")
    model, _, after = named.partition(":")
    if after and "versions" in top:
        raise SweepInvalid(
            "the spec names versions twice", hint=f"write model: {model[:100]} and versions: [{after[:60]}]"
        )
    defaults = top.get("defaults", True)
    if not isinstance(defaults, bool):
        raise SweepInvalid(f"defaults cannot be {defaults!r}", hint="use true or false")
    wanted = top.get("space")
    space = {} if wanted is None else _object(wanted, "space", None)
    return SweepSpec(
        check_name(model, "model"),
        versions_of(after if ":" in named else top.get("versions", [])),
        tuple(dimension(name, space[name]) for name in sorted(space)),
        defaults,
        _load(top.get("load")),
        _search(top.get("search")),
    )


def versions_of(written: Json) -> tuple[int, ...]:
    """Of `[3, 4]`, `3` or `3,4`, in order. Raises SweepInvalid."""
    if isinstance(written, str) and _VERSIONS.fullmatch(written):
        written = [int(part) for part in written.split(",")]
    listed = written if isinstance(written, list) else [written]
    found = {one for one in listed if isinstance(one, int) and not isinstance(one, bool) and 1 <= one < 2**31}
    if len(found) != len(listed):
        raise SweepInvalid(
            f"versions cannot be {written!r}", hint="write versions: [3, 4], each once, or model: NAME:3,4"
        )
    return tuple(sorted(found))


def _load(written: Json) -> Load | None:
    if written is None:
        return None
    shapes = [shape.value for shape in Shape]
    tree = _object(written, "load", (*shapes, "process", "rows"))
    asked = [name for name in shapes if name in tree]
    if len(asked) != 1:
        how = f"has {' and '.join(asked)} at once" if asked else "has no shape"
        raise SweepInvalid(f"load {how}", hint=f"use one of {', '.join(shapes)}")
    text, process = settled(tree[asked[0]], f"load.{asked[0]}"), tree.get("process", "poisson")
    if isinstance(text, list):  # a ladder may be a list, too
        text = ",".join(str(item) for item in text)
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise SweepInvalid(f"load.{asked[0]} cannot be {text!r}", hint="such as 16, 1,4,16 or 1:64:x2")
    if not isinstance(process, str):
        raise SweepInvalid(f"load.process cannot be {process!r}", hint="use poisson or even")
    shape, said = Shape(asked[0]), str(text)
    if shape in {Shape.RATE, Shape.CONCURRENCY} and ":" not in said:  # 100.0 and 100 are one load, with one digest
        said = ",".join(plain(step) for step in ladder(said, f"load.{shape.value}"))
    return Load(shape, said, process, _whole(tree.get("rows", 1), "load.rows"))


def _search(written: Json) -> Search:
    if written is None:
        return Search()
    plainly = Search()
    tree = _object(written, "search", tuple(plainly.to_json()))
    method = tree.get("method", plainly.method.value)
    if not isinstance(method, str) or method not in {one.value for one in Method}:
        raise SweepInvalid(f"search.method cannot be {method!r}", hint=f"use {', '.join(one.value for one in Method)}")
    margin = settled(tree.get("margin_percent", plain(plainly.margin_percent)), "search.margin_percent")
    steps = ladder(str(margin), "search.margin_percent")
    if len(steps) != 1:
        raise SweepInvalid(f"search.margin_percent cannot be {margin!r}", hint="use one number")
    return Search(
        Method(method),
        _whole(tree.get("seed", plainly.seed), "search.seed"),
        _whole(tree.get("seconds", plainly.seconds), "search.seconds"),
        _whole(tree.get("candidates", plainly.candidates), "search.candidates"),
        steps[0],
    )


def _object(written: Json, what: str, known: Collection[str] | None) -> JsonObject:
    """`known` None: every name is looked at by who asked."""
    if not isinstance(written, dict) or not all(isinstance(key, str) for key in written):
        raise SweepInvalid(f"{what} is not an object with named fields", hint="such as model: NAME")
    for name in written if known is not None else ():
        if name not in (known or ()):
            raise SweepInvalid(f"{what} has an unknown field {name[:60]!r}", hint=similar(name, known or ()))
    return written


def _whole(value: Json, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SweepInvalid(f"{what} cannot be {value!r}", hint="use a whole number")
    return value
