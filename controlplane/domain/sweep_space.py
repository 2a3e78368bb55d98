# The space of a sweep: derived from the model, its objectives and the hardware where the spec is silent; counted, not listed.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import prod
from typing import Protocol

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.catalog import Batching, Objective, Signature
from controlplane.domain.config_findings import Finding, refused
from controlplane.domain.config_intent import Reason
from controlplane.domain.config_paths import meet
from controlplane.domain.config_tree import message, messages, number, served_by, text
from controlplane.domain.servers import HostFacts
from controlplane.domain.sweep_dimensions import SHORT, Dimension, edits, place
from controlplane.domain.sweep_spec import SweepSpec
from controlplane.domain.sweep_values import Condition
from controlplane.errors import ConfigInvalid, ConfigPathInvalid, SweepInvalid

MOST_BRANCHES = 1000
"""Ways through the dimensions that conditions look at: those are walked even to count, at a millisecond or two each."""
_ROWS = (1, 4, 16, 64)
_DELAYS_US = (0, 100, 500, 2000)
_MOST_INSTANCES = 8
_ONE_BY_ONE = Condition("max_batch_size", "1", differs=True)


class ConfigEditor(Protocol):
    """What the config's codec can do with a path."""

    def set(self, config: JsonObject, path: str, text: str) -> JsonObject: ...

    def unset(self, config: JsonObject, path: str) -> JsonObject: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is swept, and on what. `bases` are the configs that edits start from, by version, in the codec's normal form and
    without version policy; opaque versions have no signature. `sizes` are the bytes of the artifacts, where known; `embedded`
    says that our own server runs the candidates."""

    model: str
    bases: Mapping[int, JsonObject]
    signatures: Mapping[int, Signature]
    host: HostFacts
    embedded: bool = False
    objectives: tuple[Objective, ...] = ()
    sizes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Space:
    """Every choice of one version and one value of each dimension whose conditions hold. `dimensions` stand in the order in which
    they are set. `reasons` say why each place is searched, or is not."""

    versions: tuple[int, ...]
    dimensions: tuple[Dimension, ...]
    reasons: tuple[Reason, ...] = ()


def space_of(spec: SweepSpec, subject: Subject) -> Space:
    """What the spec names, and of the rest what is worth it for this model on this host. Raises SweepInvalid."""
    versions = spec.versions or tuple(sorted(subject.bases))
    if missing := [version for version in versions if version not in subject.bases]:
        raise SweepInvalid(f"{spec.model} has no version {missing[0]}", hint=f"see tritonctl model show {spec.model}")
    if not versions:
        raise SweepInvalid(f"{spec.model} has no version to sweep", hint="register one: tritonctl model register")
    reasons = [Reason(place(one.name), f"{_list(one.values)}, as the spec says") for one in spec.space]
    found = list(spec.space)
    if spec.defaults:
        for one, reason in _defaults(subject, versions, {one.name: one for one in spec.space}):
            if any(meet(reason.path, place(named.name)) for named in spec.space):
                continue
            reasons.append(reason)
            found += [one] if one is not None else []
    return Space(versions, _ordered(found), tuple(reasons))


def size(space: Space, subject: Subject, editor: ConfigEditor) -> int:
    """How many choices there are, invalid ones and those of equal configs included, however many."""
    parents = [one for one in space.dimensions if _looked_at(one, space.dimensions)]
    rest = [one for one in space.dimensions if one not in parents]
    total = branches = 0
    for version in space.versions:
        for _, config, _ in walk(subject.bases[version], parents, editor):
            branches += 1
            if branches > MOST_BRANCHES:
                raise SweepInvalid(
                    f"conditions of the space look at more than {MOST_BRANCHES} combinations",
                    hint="give fewer values to the dimensions that conditions name",
                )
            total += 1 if config is None else prod(len(one.values) for one in rest if active(one, config))
    return total


Choice = tuple[tuple[str, Json], ...]
"""Values by dimension, of those whose conditions held."""


Made = tuple[Choice, JsonObject | None, tuple[Finding, ...]]
"""Values, and the config that they make, or None and why they make none."""


def walk(
    config: JsonObject, dimensions: Sequence[Dimension], editor: ConfigEditor, chosen: Choice = ()
) -> Iterator[Made]:
    """Every way through the dimensions; a value that cannot be set ends its way."""
    if not dimensions:
        yield chosen, config, ()
        return
    first, rest = dimensions[0], dimensions[1:]
    if not active(first, config):
        yield from walk(config, rest, editor, chosen)
        return
    for value in first.values:
        with_it = (*chosen, (first.name, value))
        edited, why = apply(config, first.name, value, editor)
        if edited is None:
            yield with_it, None, why
        else:
            yield from walk(edited, rest, editor, with_it)


def make(config: JsonObject, wanted: Mapping[str, Json], space: Space, editor: ConfigEditor) -> Made:
    """One way: values of dimensions whose conditions do not hold fall away."""
    made: Choice = ()
    for one in space.dimensions:
        if one.name in wanted and active(one, config):
            made = (*made, (one.name, wanted[one.name]))
            edited, why = apply(config, one.name, wanted[one.name], editor)
            if edited is None:
                return made, None, why
            config = edited
    return made, config, ()


def apply(
    config: JsonObject, name: str, value: Json, editor: ConfigEditor
) -> tuple[JsonObject | None, tuple[Finding, ...]]:
    """`config` with this value of the dimension, or None and why not."""
    try:
        for path, wanted in edits(name, value, config):
            config = editor.unset(config, path) if wanted is None else editor.set(config, path, wanted)
    except (ConfigInvalid, ConfigPathInvalid) as error:
        return None, (refused(error.code, place(name), error.message, error.hint or "leave it out of the space"),)
    return config, ()


def active(one: Dimension, config: JsonObject) -> bool:
    return all(condition.holds(config) for condition in one.when)


def _ordered(dimensions: list[Dimension]) -> tuple[Dimension, ...]:
    """A condition's dimensions come before the one that has it; else short names first, then paths by name."""
    places = {name: at for at, name in enumerate(SHORT)}
    waiting = sorted(dimensions, key=lambda one: (places.get(one.name, len(places)), one.name))
    found: list[Dimension] = []
    while waiting:
        ready = [one for one in waiting if not any(_looks_at(one, other) for other in waiting if other is not one)]
        if not ready:
            names = " and ".join(one.name for one in waiting)
            raise SweepInvalid(f"the conditions of {names} wait for each other", hint="take one of them away")
        found.append(ready[0])
        waiting.remove(ready[0])
    return tuple(found)


def _looks_at(one: Dimension, other: Dimension) -> bool:
    return any(meet(condition.where, place(other.name)) for condition in one.when)


def _looked_at(one: Dimension, dimensions: tuple[Dimension, ...]) -> bool:
    return any(_looks_at(other, one) for other in dimensions)


_Choices = Iterator[tuple[Dimension | None, Reason]]


def _defaults(subject: Subject, versions: tuple[int, ...], named: Mapping[str, Dimension]) -> _Choices:
    """Each place with its dimension, or with None when it is left as it is."""
    bases = [subject.bases[version] for version in versions]
    yield _batch_sizes(subject, versions)
    yield _delays(subject, bases)
    if any("ensemble_scheduling" in base for base in bases):
        yield None, Reason("instance_group", "left as it is: an ensemble has no instances; sweep its members")
    else:
        yield from _hardware(subject, bases, named)
    for name, why in (
        ("preferred_batch_sizes", "sizes that are no faster than others only delay"),
        ("queue", "limits refuse requests; they make no answer faster, and are chosen for overload"),
        ("response_cache", "a load that repeats its requests would measure the cache, and not the model"),
    ):
        yield None, Reason(place(name), f"left as it is: {why}; name {name} in the space to search it")


def _batch_sizes(subject: Subject, versions: tuple[int, ...]) -> tuple[Dimension | None, Reason]:
    path = place("max_batch_size")
    rows = {version: number(subject.bases[version].get("max_batch_size")) for version in versions}
    signatures = {version: subject.signatures.get(version) for version in versions}
    seen = [v for v in versions if (s := signatures[v]) is not None and rows[v] and s.batching is Batching.BATCHABLE]
    opaque = [version for version in versions if signatures[version] is None and rows[version] > 1]
    if not seen and not opaque:
        batching = {signature.batching for signature in signatures.values() if signature is not None}
        why = "the base config has no batch dimension"
        if Batching.FIXED in batching:
            why = "an input or output has no variable first dimension, so Triton cannot join requests"
        elif Batching.MIXES_ROWS in batching:
            why = "rows were seen to answer differently in company, so joining requests changes answers"
        elif Batching.UNKNOWN in batching:
            why = "it could not be tried whether each row is answered by itself"
        return None, Reason(path, f"left as it is: {why}")
    top = max([_ROWS[-1]] if seen else [rows[version] for version in opaque])
    tried = tuple(sorted({one for one in _ROWS if one <= top} | {rows[version] for version in (*seen, *opaque)}))
    why = (
        "each row was seen to be answered by itself"
        if seen
        else f"the config lets {top} in, and no signature says more"
    )
    return Dimension("max_batch_size", tried), Reason(path, f"{_list(tried)}: {why}")


def _delays(subject: Subject, bases: list[JsonObject]) -> tuple[Dimension | None, Reason]:
    path = place("queue_delay_us")
    if any("sequence_batching" in base or "ensemble_scheduling" in base for base in bases):
        return None, Reason(path, "left as it is: sequences and ensembles have schedulers of their own")
    if all(number(base.get("max_batch_size")) < 1 for base in bases):
        return None, Reason(path, "left as it is: nothing is joined without a batch dimension")
    bound = tightest_latency_ms(subject.objectives)
    own = {number(message(base.get("dynamic_batching")).get("max_queue_delay_microseconds")) for base in bases}
    fit = {delay for delay in _DELAYS_US if bound is None or delay * 4 <= bound * 1000}
    tried = tuple(sorted(fit | own))
    why = (
        "from none at all"
        if bound is None
        else f"up to a quarter of the {bound.normalize():f} ms that an answer may take"
    )
    return Dimension("queue_delay_us", tried, (_ONE_BY_ONE,)), Reason(path, f"{_list(tried)}: {why}")


def _hardware(subject: Subject, bases: list[JsonObject], named: Mapping[str, Dimension]) -> _Choices:
    host, gpu = subject.host, subject.host.gpus > 0 and not subject.embedded
    onnx = all(served_by(base) == "onnxruntime" for base in bases)
    path = place("kind")
    if gpu and onnx:
        yield Dimension("kind", ("cpu", "gpu")), Reason(path, f"the host has {host.gpus} GPU")
    else:
        why = "the embedded server runs on the CPU" if subject.embedded else "the host has no GPU"
        yield None, Reason(path, f"left as it is: {'the backend may know only one' if gpu else why}")
    varied = (gpu and onnx) or any(meet(path, place(name)) for name in named)
    groups = [messages(base.get("instance_group")) for base in bases]
    own = {number(of_base[0].get("count")) for of_base in groups if of_base} - {0}
    most = min(_MOST_INSTANCES, max(host.cpu_cores, 2 if gpu else 1))
    counts = tuple(sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | own))
    yield Dimension("instances", counts), Reason(place("instances"), f"{_list(counts)}: {_cores(host)}")
    path = place("threads")
    on_cpu = (Condition(place("kind"), "KIND_CPU"),) if varied else ()
    if not onnx:
        yield None, Reason(path, "left as it is: each backend names its threads otherwise")
    elif not varied and any(text(of_base[0].get("kind")) == "KIND_GPU" for of_base in groups if of_base):
        yield None, Reason(path, "left as it is: the instances run on a GPU")
    else:
        there = named.get("instances", Dimension("instances", counts)).values
        threads = tuple(sorted({1, host.cpu_cores} | {max(1, host.cpu_cores // number(count)) for count in there}))
        yield (
            Dimension("threads", threads, on_cpu),
            Reason(path, f"{_list(threads)}: one, all, and an equal share of {_cores(host)}"),
        )
    path = place("accelerator")
    if gpu and onnx:
        on_gpu = (Condition(place("kind"), "KIND_GPU"),)
        yield Dimension("accelerator", ("none", "tensorrt"), on_gpu), Reason(path, "none and tensorrt: on a GPU")
    else:
        why = "the embedded server has none" if subject.embedded else "OpenVINO needs a server that was built with it"
        yield None, Reason(path, f"left as it is: {why}")


def tightest_latency_ms(objectives: tuple[Objective, ...]) -> Decimal | None:
    """Of the hard ones."""
    bounds = [
        Decimal(one.bound)
        for one in objectives
        if one.metric == "latency_ms" and one.direction == "at_most" and one.weight is None
    ]
    return min(bounds, default=None)


def _cores(host: HostFacts) -> str:
    return f"{host.cpu_cores} core{'s' * (host.cpu_cores != 1)}"


def _list(tried: tuple[Json, ...]) -> str:
    return ", ".join(
        "left out" if one is None else str(one).lower() if isinstance(one, bool) else str(one) for one in tried
    )
