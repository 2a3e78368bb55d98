# What is sent in one run: requests of one or more models by weight, each by itself or as sequences, with expected answers.
from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from clients.load.checks import Answers, Expected, Tolerance
from clients.load.errors import LoadInputError
from clients.load.sequences import Ids, Plan, Stream, head

_CYCLE = 1000
_CIRCLE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The requests of one model, or of one version of it: gRPC messages with their prefix.

    `weight` counts its requests against those of the other parts. With `lengths`, the fewest and the most requests of a
    sequence, the model is stateful: every `lengths[1]` messages are a script, of which a sequence sends the first steps (a last
    part is left out; fewer messages are repeated to one script). `expected` are the answers, one for each message of `steps`;
    None is any answer. One that ends its sequence before the script does is not checked: it may be answered otherwise.
    """

    model: str
    messages: tuple[bytes, ...]
    version: int | None = None
    weight: float = 1.0
    lengths: tuple[int, int] | None = None
    ids: Ids = "int64"
    expected: tuple[Answers | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages:
            raise LoadInputError(f"nothing to send to {self.label}", "one request or more")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise LoadInputError(f"{self.label} has the weight {self.weight:g}", "more than 0")
        if self.lengths is not None and not 1 <= self.lengths[0] <= self.lengths[1]:
            raise LoadInputError(
                f"sequences of {self.lengths[0]} to {self.lengths[1]} requests", "1 or more, the fewest first"
            )
        if self.expected and len(self.expected) not in {len(self.steps), max(len(self.steps), len(self.messages))}:
            raise LoadInputError(
                f"{self.label} has {len(self.expected)} expected answers for {len(self.steps)} requests",
                "one for each; requests that are not given by --data are drawn",
            )

    @property
    def label(self) -> str:
        """Its name in the results."""
        return self.model if self.version is None else f"{self.model}:{self.version}"

    @property
    def steps(self) -> tuple[bytes, ...]:
        """The messages as they are used: those of a stateful model are whole scripts."""
        if self.lengths is None:
            return self.messages
        most, count = self.lengths[1], len(self.messages)
        if count >= most:
            return self.messages[: count - count % most]
        return (self.messages * -(-most // count))[:most]


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """A tag is the index of a message among the steps of all parts, in order.

    `live` are the sequences that an open loop keeps under way, over all processes; closed loop, the concurrency says it. Each then
    waits about live / rate seconds between its requests: the server ends those that wait longer than its idle time.
    """

    parts: tuple[Part, ...]
    live: int = 0
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        labels = [part.label for part in self.parts]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice or not labels:
            raise LoadInputError(
                f"{twice[0]} comes twice" if twice else "nothing to send",
                "one part for each model, with all its requests",
            )

    @classmethod
    def of(cls, messages: Sequence[bytes]) -> Traffic:
        """One model, or none at all, whose name does not matter."""
        return cls((Part("", tuple(messages)),))

    @property
    def stateful(self) -> bool:
        return any(part.lengths is not None for part in self.parts)

    @property
    def messages(self) -> tuple[bytes, ...]:
        """By tag. Those of stateful models lack their tail, which each request gets."""
        found: list[bytes] = []
        for part in self.parts:
            if part.lengths is None:
                found += part.messages
            else:
                heads = {message: head(message, part.ids) for message in part.messages}
                found += [heads[message] for message in part.steps]
        return tuple(found)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The number of the part, by tag."""
        return np.repeat(np.arange(len(self.parts)), [len(part.steps) for part in self.parts])

    @property
    def expected(self) -> Expected | None:
        """By tag; None when nothing is checked."""
        if not any(part.expected for part in self.parts):
            return None
        answers = [part.expected[: len(part.steps)] or (None,) * len(part.steps) for part in self.parts]
        return Expected(tuple(answer for of_part in answers for answer in of_part), self.tolerance)

    def origin(self, tag: int) -> tuple[str, int]:
        """The part's label and the number of the message among its steps."""
        number = int(self.owners[tag])
        return self.parts[number].label, tag - self._firsts[number]

    def order(self, random: np.random.Generator) -> NDArray[np.int32]:
        """Tags in a circle. Each cycle of it, as long as the sum of the whole-number weights, keeps them exactly, in an order
        of its own; all around, each message of a part comes equally often, as far as about a million places allow."""
        parts, firsts = self.parts, self._firsts
        shares = whole_weights([part.weight for part in parts])
        counts = [len(part.steps) for part in parts]
        cycle = sum(shares)
        whole = math.lcm(*(count // math.gcd(count, share) for count, share in zip(counts, shares, strict=True)))
        cycles = min(whole, max(1, _CIRCLE // cycle))
        owners = np.tile(np.repeat(np.arange(len(parts)), shares), (cycles, 1))
        owners = random.permuted(owners, axis=1).ravel()
        order = np.zeros(len(owners), np.int32)
        for number, count in enumerate(counts):
            places = np.flatnonzero(owners == number)
            order[places] = firsts[number] + np.resize(random.permutation(count), len(places))
        return order

    def plans(self, lives: Sequence[int], seed: int) -> list[Plan | None]:
        """For each process what it does with sequences, so many of them at once; None when no model is stateful.

        Correlation ids start at a number that no seed repeats, for the server may remember those of the run before.
        """
        if not self.stateful:
            return [None] * len(lives)
        if min(lives) < 1:
            raise LoadInputError(
                f"{sum(lives)} live sequences over {len(lives)} processes",
                "at least one for each: --sequences with a rate, --concurrency without, or fewer processes",
            )
        small = any(part.ids == "int32" for part in self.parts)
        first = 1 + secrets.randbits(30 if small else 62)
        streams = tuple(
            Stream(tag, len(part.steps), part.weight, part.lengths, part.ids)
            for tag, part in zip(self._firsts, self.parts, strict=True)
        )
        return [
            Plan(streams, live, first + number, stride=len(lives), seed=(seed, number))
            for number, live in enumerate(lives)
        ]

    @property
    def _firsts(self) -> list[int]:
        counts = [len(part.steps) for part in self.parts]
        return [sum(counts[:number]) for number in range(len(counts))]


def whole_weights(weights: Iterable[float]) -> list[int]:
    """The smallest whole numbers in the same proportion, when a thousand or fewer hold them; else the nearest of a thousand,
    none of them 0."""
    exact = [Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    shares = [weight / total for weight in exact]
    cycle = math.lcm(*(share.denominator for share in shares))
    if cycle <= _CYCLE:
        return [int(share * cycle) for share in shares]
    found = [max(1, math.floor(share * _CYCLE)) for share in shares]
    behind = sorted(range(len(found)), key=lambda number: found[number] - shares[number] * _CYCLE)
    for number in behind[: max(0, _CYCLE - sum(found))]:
        found[number] += 1
    return found
