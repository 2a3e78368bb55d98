# How two configs differ, and what the difference costs: what reloads, and what breaks clients.
"""Trees are compared in the codec's normal form. Elements of the lists in `NAMED_LISTS` are matched by their name, all
others by their index; lists of plain values are compared whole. An unequal pair of trees never has an empty diff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_paths import Field, Index, Key, Step, path_text
from controlplane.domain.config_tree import message, messages, number, text, texts
from controlplane.domain.environments import RevisionContent

NAMED_LISTS = frozenset({"input", "output", "instance_group", "model_warmup", "control_input"})
"""Lists of messages whose order means nothing to Triton and whose elements have a name."""

MAPS = frozenset(
    {
        "cc_model_filenames",
        "input",  # of a CUDA graph's spec; the model's own `input` is a list
        "input_map",
        "inputs",
        "metric_tags",
        "output_map",
        "parameters",
        "priority_queue_policy",
    }
)
"""Fields that are maps of the user's keys, not messages."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One difference; None is: nothing there. `path` reads and writes by the same notation as `--set`."""

    path: str
    old: Json
    new: Json


def diff(old: JsonObject, new: JsonObject) -> tuple[FieldChange, ...]:
    """The differences in the order of their paths; a message that is wholly new or gone is one difference."""
    return tuple(sorted(_objects((), old, new, keys=False), key=lambda change: change.path))


def _values(path: tuple[Step, ...], name: str, old: Json, new: Json) -> Iterator[FieldChange]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _objects(path, old, new, keys=name in MAPS)
    elif _messages(old) and _messages(new):
        assert isinstance(old, Sequence)
        assert isinstance(new, Sequence)
        yield from _lists(path, name, old, new)
    else:
        yield FieldChange(path_text(path), old, new)


def _objects(
    path: tuple[Step, ...], old: Mapping[str, Json], new: Mapping[str, Json], *, keys: bool
) -> Iterator[FieldChange]:
    for name in sorted({*old, *new}):
        step = Key(name) if keys else Field(name)
        yield from _values((*path, step), "" if keys else name, old.get(name), new.get(name))


def _lists(path: tuple[Step, ...], name: str, old: Sequence[Json], new: Sequence[Json]) -> Iterator[FieldChange]:
    before, after = _names(old), _names(new)
    if name in NAMED_LISTS and before is not None and after is not None:
        yield from _objects(path, dict(zip(before, old, strict=True)), dict(zip(after, new, strict=True)), keys=True)
        if [n for n in before if n in after] != [n for n in after if n in before]:
            yield FieldChange(path_text(path), list(before), list(after))
        return
    for index in range(max(len(old), len(new))):
        a = old[index] if index < len(old) else None
        b = new[index] if index < len(new) else None
        yield from _values((*path, Index(index)), "", a, b)


def _messages(value: Json) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def _names(elements: Sequence[Json]) -> list[str] | None:
    """The elements' names when each has one of its own."""
    names = [str(item.get("name", "")) for item in elements if isinstance(item, Mapping)]
    return names if all(names) and len(set(names)) == len(elements) else None


class ReloadClass(StrEnum):
    """What a change costs, least first."""

    NONE = "none"
    IN_PLACE = "in_place"  # instances or versions come and go; what serves goes on serving
    RELOAD = "reload"  # every version is loaded anew beside the old ones, which serve meanwhile
    BREAKS_CLIENTS = "breaks_clients"  # as reload, and requests that worked before may be refused


_COSTS = list(ReloadClass)
_IN_PLACE_FIELDS = frozenset({"instance_group", "version_policy"})


@dataclass(frozen=True, slots=True)
class Impact:
    """`reasons` says why, one sentence each, and what else is worth knowing before it is approved."""

    reload_class: ReloadClass
    reasons: tuple[str, ...]


def impact(old: RevisionContent, new: RevisionContent, interfaces: Mapping[int, JsonObject]) -> Impact:
    """What going from one revision to another costs. `interfaces` holds `Signature.interface()` of the versions that
    have one, by number; it is asked where a config does not list inputs and outputs itself."""
    found = list(_impacts(old, new, interfaces))
    cost = max((cost for cost, _ in found), key=_COSTS.index, default=ReloadClass.NONE)
    return Impact(cost, tuple(reason for _, reason in found))


def _impacts(
    old: RevisionContent, new: RevisionContent, interfaces: Mapping[int, JsonObject]
) -> Iterator[tuple[ReloadClass, str]]:
    if old.config is None and new.config is None:
        return
    if old.config is None or new.config is None:
        if new.config is None:
            yield ReloadClass.BREAKS_CLIENTS, "the model is no longer served"
        else:
            yield ReloadClass.RELOAD, "nothing of the model is served yet: it is loaded"
        return
    for reason in _broken(_client_view(old, interfaces), _client_view(new, interfaces)):
        yield ReloadClass.BREAKS_CLIENTS, reason
    before, after = ({ref.number: ref.artifact for ref in side.versions} for side in (old, new))
    for version in sorted({*before, *after}):
        if version not in after:
            yield ReloadClass.IN_PLACE, f"version {version} is dropped: requests that name it are refused"
        elif version not in before:
            yield ReloadClass.IN_PLACE, f"version {version} is loaded"
        elif before[version] != after[version]:
            yield ReloadClass.RELOAD, f"version {version} has other bytes"
    if old.beside != new.beside:
        yield (
            ReloadClass.RELOAD,
            f"files beside the config change ({_files_named(old, new)}): all versions are loaded anew",
        )
    fields = sorted(f for f in {*old.config, *new.config} if old.config.get(f) != new.config.get(f))
    if others := [field for field in fields if field not in _IN_PLACE_FIELDS]:
        yield ReloadClass.RELOAD, f"{', '.join(others)} changes: all versions are loaded anew"
    elif fields:
        yield ReloadClass.IN_PLACE, f"only {', '.join(fields)} changes: what serves goes on serving"


def content_diff(old: RevisionContent, new: RevisionContent) -> tuple[FieldChange, ...]:
    """Versions first, then the files beside the config, then its fields; a config that comes or goes is one difference."""
    before, after = ({ref.number: ref.artifact for ref in side.versions} for side in (old, new))
    found = [
        FieldChange(f"versions[{number}]", before.get(number), after.get(number))
        for number in sorted({*before, *after})
        if before.get(number) != after.get(number)
    ]
    found += beside_diff(old, new)
    if old.config is not None and new.config is not None:
        return (*found, *diff(old.config, new.config))
    if old.config != new.config:
        found.append(FieldChange("config", old.config, new.config))
    return tuple(found)


def beside_diff(old: RevisionContent, new: RevisionContent) -> tuple[FieldChange, ...]:
    """The files beside the config, by path; old and new are digests."""
    before, after = ({entry.path: entry.sha256 for entry in side.beside.files} for side in (old, new))
    return tuple(
        FieldChange(f'beside["{path}"]', before.get(path), after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    )


def _files_named(old: RevisionContent, new: RevisionContent) -> str:
    return ", ".join(change.path.split('"')[1] for change in beside_diff(old, new))


@dataclass(frozen=True, slots=True)
class _ClientView:
    """What an unversioned request sees: tensors by name as (datatype, shape, optional), and how it must be sent."""

    inputs: Mapping[str, tuple[str, list[str], bool]]
    outputs: Mapping[str, tuple[str, list[str], bool]]
    rows: int
    decoupled: bool
    sequences: bool


def _client_view(content: RevisionContent, interfaces: Mapping[int, JsonObject]) -> _ClientView:
    config = content.config or {}
    rows = number(config.get("max_batch_size"))
    highest = interfaces.get(max(content.numbers, default=0), {})
    return _ClientView(
        _tensors(config.get("input"), highest.get("inputs"), batched=rows > 0),
        _tensors(config.get("output"), highest.get("outputs"), batched=rows > 0),
        rows,
        message(config.get("model_transaction_policy")).get("decoupled") is True,
        "sequence_batching" in config,
    )


def _tensors(configured: Json, graph: Json, *, batched: bool) -> dict[str, tuple[str, list[str], bool]]:
    """From the config, whose dims leave the batch out and are what clients send (a reshape is not theirs to see)."""
    found = {}
    for item in messages(configured):
        shape = ["-1"] * batched + texts(item.get("dims"))
        found[text(item.get("name"))] = (text(item.get("data_type")), shape, item.get("optional") is True)
    if found:
        return found
    return {text(item["name"]): (text(item["datatype"]), texts(item["dims"]), False) for item in messages(graph)}


def _broken(old: _ClientView, new: _ClientView) -> Iterator[str]:
    """Why a request that worked before may not work now."""
    if (old.rows > 0) != (new.rows > 0):
        yield f"max_batch_size goes from {old.rows} to {new.rows}: every shape gains or loses the batch dimension"
    elif new.rows < old.rows:
        yield f"max_batch_size falls from {old.rows} to {new.rows}: requests with more rows are refused"
    if old.decoupled != new.decoupled:
        yield "model_transaction_policy.decoupled changes: clients must send in another way"
    if old.sequences != new.sequences:
        yield "sequence_batching comes or goes: requests must have, or lose, a sequence id"
    for name, (datatype, shape, _) in old.inputs.items():
        now = new.inputs.get(name)
        if now is None:
            yield f"input {name} is gone"
        elif now[0] != datatype or len(now[1]) != len(shape) or _narrower(shape, now[1]):
            yield f"input {name} was {_shown(datatype, shape)}, becomes {_shown(now[0], now[1])}"
    for name, (datatype, shape, optional) in new.inputs.items():
        if name not in old.inputs and not optional:
            yield f"input {name} ({_shown(datatype, shape)}) is new and must be sent"
    for name, (datatype, shape, _) in old.outputs.items():
        now = new.outputs.get(name)
        if now is None:
            yield f"output {name} is gone"
        elif now[:2] != (datatype, shape):
            yield f"output {name} was {_shown(datatype, shape)}, becomes {_shown(now[0], now[1])}"


def _narrower(old: list[str], new: list[str]) -> bool:
    return any(b not in {a, "-1"} for a, b in zip(old, new, strict=True))


def _shown(datatype: str, shape: list[str]) -> str:
    return f"{datatype} [{', '.join(shape)}]"
