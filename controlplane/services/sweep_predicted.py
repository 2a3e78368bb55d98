# The search method `racing` where not all are tried: which candidates those that were measured predict to be better.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from controlplane.domain.canonical import Json, digest_bytes
from controlplane.domain.sweep_blocks import Turns
from controlplane.domain.sweep_candidates import Candidate, candidate
from controlplane.domain.sweep_dimensions import Dimension
from controlplane.domain.sweep_places import VERSION, numbers, ordered, places
from controlplane.domain.sweep_predict import Axis, Point, Worth, most_promising, worth
from controlplane.domain.sweep_search import Figure
from controlplane.domain.sweep_space import ConfigEditor, Space, Subject
from controlplane.domain.sweeps import Trial
from controlplane.services.sweep_optuna import Asked

_MOST_LOOKED_AT = 200
"""Choices that are predicted; of a larger space as many are drawn. Each costs some ms, since refused ones are none."""
_MUCH_WORSE = 1.0
"""Below the worst that was measured, in logs, is what could not be measured at all."""


def predicted_candidates(
    space: Space,
    subject: Subject,
    editor: ConfigEditor,
    trials: Sequence[Trial],
    blocks: Turns,
    *,
    figures: Sequence[Figure],
    seed: int,
    count: int,
    rows: int = 1,
) -> Asked:
    """At most `count` that are no trials yet, the most promising first. The same rows and seed give the same ones."""
    dimensions = (Dimension(VERSION, space.versions), *space.dimensions)
    axes = [Axis(one.name, len(one.values), numbers(one) is not None) for one in dimensions]
    seen = worth(blocks, figures)
    if seen:
        least = min(seen.values(), key=lambda one: one.value)
        lost = Worth(least.value - _MUCH_WORSE, least.variance)
        seen |= {one.candidate: lost for one in trials if one.failure}
    known = [(places(one, space, subject, editor), seen[one.candidate]) for one in trials if one.candidate in seen]
    had = {one.candidate for one in trials}
    others: dict[str, tuple[Candidate, Point]] = {}
    for point in _points(dimensions, seed):
        one = candidate(*_choice(point, space), space, subject, editor, rows=rows)
        if isinstance(one, Candidate) and one.digest not in had:
            others.setdefault(one.digest, (one, point))
    listed = list(others.values())
    found = most_promising(axes, known, [point for _, point in listed], count)
    return Asked(tuple(listed[at][0] for at in found), ())


def _points(dimensions: Sequence[Dimension], seed: int) -> list[Point]:
    names, sizes = [one.name for one in dimensions], [len(one.values) for one in dimensions]
    if prod(sizes) <= _MOST_LOOKED_AT:
        return [dict(zip(names, one, strict=True)) for one in product(*map(range, sizes))]
    found: dict[tuple[int, ...], Point] = {}
    for draw in range(_MOST_LOOKED_AT):  # of a digest, because it says the same everywhere
        bits = int(digest_bytes(f"{seed}:{draw}".encode()).removeprefix("sha256:"), 16)
        point: dict[str, int] = {}
        for name, number in zip(names, sizes, strict=True):
            bits, point[name] = divmod(bits, number)
        found.setdefault(tuple(point.values()), point)
    return list(found.values())


def _choice(point: Point, space: Space) -> tuple[int, Mapping[str, Json]]:
    """The version, and the values by dimension."""
    wanted = {one.name: ordered(one)[point[one.name]] for one in space.dimensions}
    return space.versions[point[VERSION]], wanted
