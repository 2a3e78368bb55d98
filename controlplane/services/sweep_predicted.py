# The search method `racing` where not all are tried: which candidates those that were measured predict to be better.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from controlplane.domain.canonical import Json, digest_bytes
from controlplane.domain.sweep_blocks import Turns
from controlplane.domain.sweep_candidates import Candidate, Refusal, candidate
from controlplane.domain.sweep_dimensions import Dimension
from controlplane.domain.sweep_places import VERSION, numbers, ordered, places
from controlplane.domain.sweep_predict import Axis, Point, most_promising, worth
from controlplane.domain.sweep_search import Figure
from controlplane.domain.sweep_space import ConfigEditor, Space, Subject
from controlplane.domain.sweeps import Trial
from controlplane.services.sweep_optuna import Asked

_MOST_LOOKED_AT = 500
"""Choices that are predicted; of a larger space as many are drawn."""
_TRIES = 6
"""Choices for each candidate that is wanted: some are measured already by another name, some are refused."""


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
    known = [(places(one, space, subject, editor), seen[one.candidate]) for one in trials if one.candidate in seen]
    points = [one for one in _points(dimensions, seed) if all(one != point for point, _ in known)]
    had = {one.candidate for one in trials}
    found: dict[str, Candidate] = {}
    refusals: dict[str, Refusal] = {}
    for at in most_promising(axes, known, points, count * _TRIES):
        one = candidate(*_choice(points[at], space), space, subject, editor, rows=rows)
        if one.digest in had:
            continue
        if isinstance(one, Refusal):
            refusals[one.digest] = one
        else:
            found[one.digest] = one
        if len(found) == count:
            break
    return Asked(tuple(found.values()), tuple(refusals.values()))


def _points(dimensions: Sequence[Dimension], seed: int) -> list[Point]:
    names, sizes = [one.name for one in dimensions], [len(one.values) for one in dimensions]
    if prod(sizes) <= _MOST_LOOKED_AT:
        return [dict(zip(names, one, strict=True)) for one in product(*map(range, sizes))]
    found: list[Point] = []
    for draw in range(_MOST_LOOKED_AT):  # of a digest, because it says the same everywhere
        bits = int(digest_bytes(f"{seed}:{draw}".encode()).removeprefix("sha256:"), 16)
        point: dict[str, int] = {}
        for name, number in zip(names, sizes, strict=True):
            bits, point[name] = divmod(bits, number)
        found.append(point)
    return found


def _choice(point: Point, space: Space) -> tuple[int, Mapping[str, Json]]:
    """The version, and the values by dimension."""
    wanted = {one.name: ordered(one)[point[one.name]] for one in space.dimensions}
    return space.versions[point[VERSION]], wanted
