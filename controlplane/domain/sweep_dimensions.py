# The dimensions of a sweep's space: short names for what is tuned most, or any config path, and the edits that they mean.
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_intent import Accelerator, Kind
from controlplane.domain.config_paths import Field, parse_path
from controlplane.domain.config_tree import message, messages, text
from controlplane.domain.sweep_values import Condition, condition, similar, values
from controlplane.errors import ConfigPathInvalid, SweepInvalid

Edit = tuple[str, str | None]
"""A config path and the text to set there; None leaves out what is there."""

_DELAY = "dynamic_batching.max_queue_delay_microseconds"
_PREFERRED = "dynamic_batching.preferred_batch_size"
_QUEUE = "dynamic_batching.default_queue_policy"
_THREADS = 'parameters["intra_op_thread_count"]'
_ACCELERATORS = "optimization.execution_accelerators"
_QUEUE_FIELDS = {"timeout_us": int, "delay": bool, "clients_decide": bool, "max_size": int}
_NO_ACCELERATOR = "none"


@dataclass(frozen=True, slots=True)
class Dimension:
    """`name` is a short name (`SHORT`) or a config path. `values` are tried where every condition of `when` holds; elsewhere the
    base config's own value stays. None as a value leaves the place out."""

    name: str
    values: tuple[Json, ...]
    when: tuple[Condition, ...] = ()

    def to_json(self) -> JsonObject:
        return {"values": list(self.values), "when": [condition.text for condition in self.when]}


def dimension(name: str, written: Json) -> Dimension:
    """From `values`, or from `{values: …, when: …}`. Raises SweepInvalid."""
    if name not in SHORT:
        _check_path(name)
    wanted: Json = written
    when: tuple[Condition, ...] = ()
    if isinstance(written, dict) and "values" in written:
        if strange := sorted(set(written) - {"values", "when"}):
            raise SweepInvalid(
                f"space.{name} has an unknown field {strange[0]!r}", hint=similar(strange[0], ("values", "when"))
            )
        wanted, asked = written["values"], written.get("when", [])
        lines = asked if isinstance(asked, list) else [asked]
        if not all(isinstance(line, str) for line in lines):
            raise SweepInvalid(f"space.{name}.when is no condition", hint="write PATH=VALUE, or a list of such")
        when = tuple(condition(str(line), f"space.{name}.when") for line in lines)
    found = values(wanted, f"space.{name}")
    if name in SHORT:
        for value in found:
            if (fit := SHORT[name].fits(value)) is not None:
                raise SweepInvalid(f"space.{name} cannot be {json.dumps(value)}", hint=fit)
    return Dimension(name, found, when)


def edits(name: str, value: Json, config: JsonObject) -> list[Edit]:
    """What gives `config` this value of the dimension."""
    if name in SHORT:
        return SHORT[name].edits(value, config)
    return [(name, None if value is None else _written(value))]


def place(name: str) -> str:
    """The config path of a dimension."""
    return SHORT[name].place if name in SHORT else name


def _check_path(name: str) -> None:
    try:
        first, *rest = parse_path(name)
    except ConfigPathInvalid as error:
        raise SweepInvalid(f"space: {error.message}", hint=similar(name, SHORT)) from None
    top = first.name if isinstance(first, Field) else ""
    if top in _KEPT:
        raise SweepInvalid(
            f"space cannot vary {name}", hint="name versions at the top of the spec; what clients see stays as it is"
        )
    if not rest and top not in _TOP:
        raise SweepInvalid(f"space knows no dimension {name!r}", hint=similar(name, [*SHORT, *_TOP]))


_KEPT = {"name", "backend", "platform", "input", "output", "version_policy", "versions", "version"}
_TOP = (
    "dynamic_batching", "sequence_batching", "ensemble_scheduling", "instance_group", "optimization", "parameters",
    "response_cache", "model_warmup", "model_operations", "model_transaction_policy", "model_repository_agents",
)  # fmt: skip
"""Fields of the config that a path of one step may name as a whole."""


def _rows(value: Json, config: JsonObject) -> list[Edit]:
    """With one row at a time nothing is joined: what tells how to join goes too, and the queue stays only for its limits."""
    found: list[Edit] = [("max_batch_size", str(value))]
    batching = message(config.get("dynamic_batching"))
    if value == 1 and "dynamic_batching" in config:
        joining = {"max_queue_delay_microseconds", "preferred_batch_size", "preserve_ordering"}
        if set(batching) <= joining:
            return [*found, ("dynamic_batching", None)]
        found += [
            (f"dynamic_batching.{field}", None)
            for field in sorted(joining - {"preserve_ordering"})
            if field in batching
        ]
    return found


def _queue(value: Json, config: JsonObject) -> list[Edit]:
    if value is None:
        there = "default_queue_policy" in message(config.get("dynamic_batching"))
        return [(_QUEUE, None)] if there else []
    asked = message(value)
    policy: JsonObject = {
        "timeout_action": "DELAY" if asked.get("delay") else "REJECT",
        "default_timeout_microseconds": str(asked.get("timeout_us", 0)),
        "allow_timeout_override": asked.get("clients_decide", False),
        "max_queue_size": asked.get("max_size", 0),
    }
    return [(_QUEUE, json.dumps(policy))]


def _group(field: str) -> Callable[[Json, JsonObject], list[Edit]]:
    def edit(value: Json, config: JsonObject) -> list[Edit]:
        """Of the first group; where the config has none, Triton would make one, so it gets it first."""
        said = f"KIND_{str(value).upper()}" if field == "kind" else str(value)
        groups = messages(config.get("instance_group"))
        found: list[Edit] = [] if groups else [("instance_group", '[{"name":"all","kind":"KIND_CPU","count":1}]')]
        found.append((f"instance_group[0].{field}", said))
        if said == "KIND_CPU" and groups and groups[0].get("gpus"):
            found.append(("instance_group[0].gpus", None))
        accelerators = message(message(config.get("optimization")).get("execution_accelerators"))
        if field == "kind" and accelerators and groups and text(groups[0].get("kind")) != said:
            found.append((_ACCELERATORS, None))  # those of the other kind
        return found

    return edit


def _threads(value: Json, config: JsonObject) -> list[Edit]:
    if value is None:
        there = "intra_op_thread_count" in message(config.get("parameters"))
        return [(_THREADS, None)] if there else []
    return [(f"{_THREADS}.string_value", str(value))]


def _accelerator(value: Json, config: JsonObject) -> list[Edit]:
    there = message(message(config.get("optimization")).get("execution_accelerators"))
    if value == _NO_ACCELERATOR:
        return [(_ACCELERATORS, None)] if there else []
    side = "gpu" if value == Accelerator.TENSORRT.value else "cpu"
    listed = [item for item in messages(there.get(f"{side}_execution_accelerator")) if text(item.get("name")) == value]
    return [(_ACCELERATORS, json.dumps({f"{side}_execution_accelerator": listed or [{"name": value}]}))]


def _cache(value: Json, config: JsonObject) -> list[Edit]:
    if value:
        return [("response_cache.enable", "true")]
    return [("response_cache", None)] if "response_cache" in config else []


def _whole(low: int, *, missing: bool = False) -> Callable[[Json], str | None]:
    def fits(value: Json) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**31
        return None if whole or (missing and value is None) else f"use whole numbers, {low} or more"

    return fits


def _word(*words: str) -> Callable[[Json], str | None]:
    return lambda value: None if value in words else f"use {', '.join(words)}"


def _fits_sizes(value: Json) -> str | None:
    fine = isinstance(value, list) and all(_whole(1)(size) is None for size in value)
    return None if fine else "each value is a list of sizes, such as [[], [4, 8]]"


def _fits_queue(value: Json) -> str | None:
    hint = f"each value is null or an object with some of {', '.join(_QUEUE_FIELDS)}"
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        return hint
    for key, item in value.items():
        if type(item) is not _QUEUE_FIELDS.get(key) or (isinstance(item, int) and item < 0):
            return hint
    return None


@dataclass(frozen=True, slots=True)
class Short:
    """`place` is where it stands in the config; `fits` says None, or how a value is written."""

    place: str
    fits: Callable[[Json], str | None]
    edits: Callable[[Json, JsonObject], list[Edit]]


SHORT: Mapping[str, Short] = {
    "max_batch_size": Short("max_batch_size", _whole(0), _rows),
    "kind": Short("instance_group[0].kind", _word(*(kind.value for kind in Kind)), _group("kind")),
    "instances": Short("instance_group[0].count", _whole(1), _group("count")),
    "threads": Short(f"{_THREADS}.string_value", _whole(0, missing=True), _threads),
    "accelerator": Short(_ACCELERATORS, _word(_NO_ACCELERATOR, *(a.value for a in Accelerator)), _accelerator),
    "queue_delay_us": Short(_DELAY, _whole(0), lambda value, _: [(_DELAY, str(value))]),
    "preferred_batch_sizes": Short(_PREFERRED, _fits_sizes, lambda value, _: [(_PREFERRED, _written(value))]),
    "queue": Short(_QUEUE, _fits_queue, _queue),
    "response_cache": Short(
        "response_cache.enable", lambda v: None if isinstance(v, bool) else "use true or false", _cache
    ),
}
"""In the order in which they are set: what comes later finds what came before."""


def _written(value: Json) -> str:
    """As the config's codec reads it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
