# The candidates of a sweep: each choice as a config with its digest, equal ones merged, impossible ones explained.
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.canonical import Json, JsonObject, digest, digest_bytes
from controlplane.domain.config_findings import Finding, Severity, refused
from controlplane.domain.config_lint import lint
from controlplane.domain.config_tree import messages, number, parameter, served_by, text
from controlplane.domain.sweep_dimensions import place
from controlplane.domain.sweep_space import Choice, ConfigEditor, Made, Space, Subject, make, size, walk

_T = TypeVar("_T")

MOST_LISTED = 1000
"""Choices that are all looked at; of a larger space as many are drawn as are asked for."""
_DRAWS = 4
"""Draws for each candidate that is asked for: some are equal, some are invalid."""
_ENOUGH, _ENOUGH_OF_EACH = 256, 2
"""No more is drawn once so many are valid, or twice as many as are asked for where that is more: each takes milliseconds."""
_SPREAD = 128
"""More are in an order that the seed alone decides: by then every pair of values has come."""
_NO_VALUE = -1
"""Of a dimension whose conditions do not hold."""
_POINTLESS = {
    "accelerator.no_gpu", "batching.delay_for_nothing", "batching.without_batch", "instances.count", "priority.without_levels",
    "queue.no_timeout", "queue.timeout_in_delay",
}  # fmt: skip
"""Regrets that make a config do the same as another one, or nothing: not worth measuring unless the base has them too."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`parameters` are the values that make it of the version's base config; `base` says that it is that config itself."""

    version: int
    config: JsonObject
    digest: str
    parameters: Choice
    base: bool = False

    @property
    def config_digest(self) -> str:
        return digest(self.config)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A choice that is not tried, and why."""

    version: int
    parameters: Choice
    findings: tuple[Finding, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """`tried` are at most as many as asked for: the base configs first, then spread over the space. `choices` is
    the size of the space; `merged` of those that were looked at had a config that another one has; `left_out` were valid and are not
    tried. `drawn`: the space is too large to be looked at whole."""

    tried: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]
    choices: int
    merged: int
    left_out: int
    drawn: bool


def candidates(
    space: Space, subject: Subject, editor: ConfigEditor, *, seed: int, most: int, rows: int = 1
) -> Candidates:
    """`rows` are those of one request of the load. The same space, subject and seed give the same answer everywhere."""
    choices = size(space, subject, editor)
    drawn = choices > MOST_LISTED
    found: dict[str, Candidate] = {}
    refusals: dict[str, Refusal] = {}
    merged = 0
    known = {version: _lint(subject.bases[version], version, subject) for version in space.versions}
    ways = _draws(space, subject, editor, seed, most * _DRAWS) if drawn else _all(space, subject, editor)
    enough = max(_ENOUGH, most * _ENOUGH_OF_EACH)
    for version, made in chain(((version, ((), subject.bases[version], ())) for version in space.versions), ways):
        if drawn and len(found) >= enough:
            break
        one = _judged(version, made, subject, rows, known[version])
        own = one.digest
        if own in found or own in refusals:
            if one.parameters and not _adopt(one, found):
                merged += 1
        elif isinstance(one, Refusal):
            refusals[own] = one
        else:
            found[own] = one
    tried = _spread(found.values(), seed, most)
    return Candidates(tried, tuple(refusals.values()), choices, merged, len(found) - len(tried), drawn)


def candidate(
    version: int, wanted: Mapping[str, Json], space: Space, subject: Subject, editor: ConfigEditor, *, rows: int = 1
) -> Candidate | Refusal:
    """The one that these values make, as a search asks for it; values of dimensions whose conditions do not hold fall
    away."""
    base = subject.bases[version]
    return _judged(version, make(base, wanted, space, editor), subject, rows, _lint(base, version, subject))


def _judged(version: int, made: Made, subject: Subject, rows: int, known: tuple[Finding, ...]) -> Candidate | Refusal:
    """`known` is what lint finds in the base config."""
    parameters, config, why = made
    if config is None:
        return Refusal(version, parameters, why, digest([version, [list(pair) for pair in parameters]]))
    own, base = digest({"version": version, "config": config}), config == subject.bases[version]
    findings = known if base else _lint(config, version, subject)
    why = (*(one for one in findings if one.severity is Severity.REFUSED), *_too_large(config, version, subject, rows))
    if not base:  # what its users live with is measured, however unwise
        had = {(one.code, one.path) for one in known}
        why += tuple(one for one in findings if one.code in _POINTLESS and (one.code, one.path) not in had)
        why += (*_crowded(config, subject), *_other(config, subject.bases[version]))
    return Refusal(version, parameters, why, own) if why else Candidate(version, config, own, parameters, base)


def _adopt(one: Candidate | Refusal, found: dict[str, Candidate]) -> bool:
    """The base config comes without parameters; the choice that makes the same config lends it its own."""
    known = found.get(one.digest)
    if known is None or not known.base or known.parameters:
        return False
    found[one.digest] = replace(known, parameters=one.parameters)
    return True


def _spread(found: Iterable[Candidate], seed: int, most: int) -> tuple[Candidate, ...]:
    """The base configs, then each time the one whose values, and pairs of values, were seen least so far; among equals the seed
    decides. So however few there is time for, they are of everywhere in the space."""
    left = sorted(found, key=lambda one: digest_bytes(f"{seed}:{one.digest}".encode()))
    bases = sorted((one for one in left if one.base), key=lambda one: one.version)
    left = [*bases, *(one for one in left if not one.base)]
    if len(left) < 2:
        return tuple(left[:most])
    values = _values(left)
    count = (values != _NO_VALUE).sum(axis=1)
    parts = count * (count + 1) / 2  # values alone, and every two of them
    seen = np.zeros(len(left))
    order: list[int] = []
    while len(order) < min(len(left), most, max(_SPREAD, len(bases))):
        place = len(order) if len(order) < len(bases) else int(np.argmin(seen / parts))
        order.append(place)
        alike = ((values == values[place]) & (values[place] != _NO_VALUE)).sum(axis=1)
        seen += alike * (alike + 1) / 2
        seen[place] = np.inf
    rest = sorted(set(range(len(left))) - set(order))
    return tuple(left[place] for place in (*order, *rest)[:most])


def _values(candidates: Sequence[Candidate]) -> NDArray[np.int32]:
    """A row for each, a column for the version and for each dimension: which of its values, by number."""
    known: dict[str, dict[str, int]] = {}
    rows = [
        {name: known.setdefault(name, {}).setdefault(json.dumps(value), len(known[name])) for name, value in named}
        for named in ((("version", one.version), *one.parameters) for one in candidates)
    ]
    return np.array([[row.get(name, _NO_VALUE) for name in known] for row in rows], np.int32)


def _all(space: Space, subject: Subject, editor: ConfigEditor) -> Iterator[tuple[int, Made]]:
    for version in space.versions:
        for made in walk(subject.bases[version], space.dimensions, editor):
            yield version, made


def _draws(space: Space, subject: Subject, editor: ConfigEditor, seed: int, count: int) -> Iterator[tuple[int, Made]]:
    for number_of in range(count):

        def among(what: str, values: Sequence[_T], draw: int = number_of) -> _T:
            # of a digest, because it says the same with every version of Python
            bits = digest_bytes(f"{seed}:{draw}:{what}".encode()).removeprefix("sha256:")[:16]
            return values[int(bits, 16) % len(values)]

        version = among("version", space.versions)
        wanted = {one.name: among(one.name, one.values) for one in space.dimensions}
        yield version, make(subject.bases[version], wanted, space, editor)


def _too_large(config: JsonObject, version: int, subject: Subject, rows: int) -> list[Finding]:
    found = []
    most = number(config.get("max_batch_size"))
    if 0 < most < rows:
        found.append(
            refused(
                "sweep.rows",
                "max_batch_size",
                f"requests of {rows} rows do not fit into max_batch_size {most}",
                f"use {rows} or more, or a smaller load.rows",
            )
        )
    weights = subject.sizes.get(version, 0)
    count = sum(max(1, number(group.get("count"))) for group in messages(config.get("instance_group")))
    on_cpu = all(text(group.get("kind")) != "KIND_GPU" for group in messages(config.get("instance_group")))
    if on_cpu and weights * count > subject.host.memory_bytes:
        found.append(
            refused(
                "sweep.memory",
                place("instances"),
                f"{count} instances of {weights >> 20} MiB are more than the {subject.host.memory_bytes >> 20} MiB of the host",
                "use fewer instances",
            )
        )
    return found


def _crowded(config: JsonObject, subject: Subject) -> list[Finding]:
    """Twice as many threads as cores may hide waiting; more only take turns."""
    if served_by(config) != "onnxruntime":
        return []
    cores = subject.host.cpu_cores
    groups = [group for group in messages(config.get("instance_group")) if text(group.get("kind")) != "KIND_GPU"]
    count = sum(max(1, number(group.get("count"))) for group in groups)
    said = parameter(config, "intra_op_thread_count") or "0"
    threads = (int(said) if said.isdecimal() else 0) or cores
    if count * threads <= 2 * cores:
        return []
    message = (
        f"{count} instances of {threads} threads are {count * threads} threads on {cores} cores, over twice as many"
    )
    return [refused("sweep.crowded", place("threads"), message, f"use {max(1, 2 * cores // count)} threads or fewer")]


def _other(config: JsonObject, base: JsonObject) -> list[Finding]:
    lost = [name for name in ("sequence_batching", "ensemble_scheduling") if name in base and name not in config]
    return [
        refused("sweep.scheduler", name, f"{name} is gone: the model would be another one to its clients", "leave it")
        for name in lost
    ]


def _lint(config: JsonObject, version: int, subject: Subject) -> tuple[Finding, ...]:
    signatures = {version: subject.signatures[version]} if version in subject.signatures else {}
    return lint(config, model=subject.model, signatures=signatures, host=subject.host, embedded=subject.embedded)
