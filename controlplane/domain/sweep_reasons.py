# Why the chosen config does better than its neighbours, in words with numbers: shares of queue and compute, one parameter at a time. Pure.
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_blocks import paired
from controlplane.domain.sweep_compare import LEVEL, blocks_by_turn
from controlplane.domain.sweep_figures import Asked
from controlplane.domain.sweep_rounds import Measurement, Stage
from controlplane.domain.sweep_search import UNKNOWN, ratio_words
from controlplane.domain.sweeps import Trial

_MOST = 8
_MOVED = 0.1
"""A share that moves by less is no reason."""
_SHARED = {"instances", "threads"}
"""More of these share the same cores."""
_ABSENT = "as in the base config"


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the time in the server, of one request: milliseconds in all and computing, the share of the queue, rows in a batch."""

    total_ms: float
    queue: float
    compute_ms: float
    batch: float | None

    @property
    def words(self) -> str:
        batch = "" if self.batch is None else f"; {self.batch:.3g} requests in a batch"
        compute = self.compute_ms / self.total_ms if self.total_ms else 0.0
        return f"queue {100 * self.queue:.0f} % and compute with input and output {100 * compute:.0f} % of {self.total_ms:.3g} ms in the server{batch}"


def shares_of(measurements: Iterable[Measurement]) -> Shares | None:
    """Of all these blocks together, by the server's own statistics; None where it told none."""
    sums: dict[str, int] = {}
    batches: dict[int, int] = {}
    for one in measurements:
        for name, value in one.server.items():
            sums[name] = sums.get(name, 0) + value
        for size, count in one.batches.items():
            batches[size] = batches.get(size, 0) + count
    count, total = sums.get("succeeded", 0), sums.get("total_ns", 0)
    if not count or not total:
        return None
    compute = sum(sums.get(f"{part}_ns", 0) for part in ("input", "infer", "output"))
    runs = sum(batches.values())
    return Shares(
        total / count / 1e6,
        sums.get("queue_ns", 0) / total,
        compute / count / 1e6,
        sum(size * times for size, times in batches.items()) / runs if runs else None,
    )


def reasons(asked: Asked, trials: Sequence[Trial], measurements: Sequence[Measurement], chosen: Trial) -> list[str]:
    """Those of which something is known. Each neighbour differs from the chosen one in one parameter, or in the version alone. By the blocks of turns that both were in;
    the largest difference comes first."""
    rows = [one for one in measurements if one.stage is not Stage.RATE]
    turns = blocks_by_turn(asked, rows)
    advantage = paired(turns, LEVEL)
    found: list[tuple[float, str]] = []
    for other in trials:
        differing = _differs(chosen, other)
        if differing is None:
            continue
        name, here, there = differing
        compared = ((one, advantage(one, chosen.candidate, other.candidate)) for one in (*asked.figures, *asked.race))
        figure, ratio = next(
            ((one, ratio) for one, ratio in compared if 0 < ratio.low < ratio.high < math.inf), (None, UNKNOWN)
        )
        if figure is None:
            continue
        rounds = {key[0] for key, turn in turns.items() if chosen.candidate in turn and other.candidate in turn}
        ours, theirs = (
            shares_of(m for m in rows if m.round in rounds and m.order.candidate == one.candidate)
            for one in (chosen, other)
        )
        line = (
            f"{name} {_said(here)} instead of {_said(there)} (trial {other.name}): {figure.name} {ratio_words(ratio)}"
        )
        if figure.name not in {one.name for one in asked.figures}:
            line += ", the highest percentile that its short blocks show"
        if ours is not None and theirs is not None:
            line += _moved(name, here, there, ours, theirs)
        found.append((abs(math.log(ratio.value)), line))
    return [line for _, line in sorted(found, key=lambda one: -one[0])[:_MOST]]


def _moved(name: str, here: Json, there: Json, ours: Shares, theirs: Shares) -> str:
    """What the server's own times say of the reason."""
    said = (
        f"; queue {100 * theirs.queue:.0f} % → {100 * ours.queue:.0f} %, "
        f"compute {theirs.compute_ms:.3g} → {ours.compute_ms:.3g} ms a request"
    )
    waits = ours.queue * ours.total_ms, theirs.queue * theirs.total_ms
    grown = ours.compute_ms / theirs.compute_ms - 1 if theirs.compute_ms else 0.0
    more = _more(here, there)
    if name in _SHARED and more is not None and abs(grown) >= _MOVED and (grown > 0) == more:
        said += ": compute grows as the cores are shared" if more else ": compute is shorter with the cores to itself"
    if waits[1] and abs(waits[0] / waits[1] - 1) >= _MOVED:
        said += f", requests wait {'less' if waits[0] < waits[1] else 'longer'} ({waits[1]:.3g} → {waits[0]:.3g} ms)"
    if ours.batch and theirs.batch and abs(ours.batch / theirs.batch - 1) >= _MOVED:
        said += f", batches of {theirs.batch:.3g} → {ours.batch:.3g}"
    return said


def _differs(one: Trial, other: Trial) -> tuple[str, Json, Json] | None:
    """The one parameter in which they differ, with both values."""
    if other.candidate == one.candidate or other.refused:
        return None
    mine, theirs = one.parameters, other.parameters
    names = [name for name in {**mine, **theirs} if mine.get(name, _ABSENT) != theirs.get(name, _ABSENT)]
    if one.version != other.version:
        return ("version", one.version, other.version) if not names else None
    if len(names) != 1:
        return None
    return names[0], mine.get(names[0], _ABSENT), theirs.get(names[0], _ABSENT)


def _more(here: Json, there: Json) -> bool | None:
    return here > there if isinstance(here, int) and isinstance(there, int) else None


def _said(value: Json) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_said(item)}" for name, item in value.items()) + "}"
    return "left out" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
