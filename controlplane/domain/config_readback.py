# What Triton reports for a config that it loaded: what it adds by rule, and what it decides itself.
"""Triton fills a config in when it loads it. `normalise` adds what follows from the config alone, so that it is compared
exactly; `SERVER_DECIDES` names what follows from the server, and is taken as observed where it was left open and is
plausible. Everything else must be reported as it was written. Seen on Triton 2.51 and held by tests/live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_diff import FieldChange, diff

_PLATFORMS = {
    "onnxruntime": "onnxruntime_onnx",
    "openvino": "openvino",
    "pytorch": "pytorch_libtorch",
    "tensorrt": "tensorrt_plan",
}
_FILES = {
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "python": "model.py",
    "pytorch": "model.pt",
    "tensorrt": "model.plan",
}


def mismatches(desired: JsonObject, observed: JsonObject) -> tuple[FieldChange, ...]:
    """Where the loaded config (`new`) is not what loading `desired` gives (`old`); empty when it is."""
    known = dict(desired)
    for field, plausible in SERVER_DECIDES.items():
        if field not in known and field in observed and plausible(known, observed[field]):
            known[field] = observed[field]
    expected = normalise(known)
    groups, seen = expected.get("instance_group"), observed.get("instance_group")
    if isinstance(groups, list) and isinstance(seen, list) and len(groups) == len(seen):
        pairs = zip(groups, seen, strict=True)
        expected["instance_group"] = [_decided(cast("JsonObject", a), cast("JsonObject", b)) for a, b in pairs]
    return diff(expected, observed)


def normalise(desired: JsonObject) -> JsonObject:
    """`desired` with what Triton adds to every such config, whatever the server."""
    config = dict(desired)
    rows = int(cast("int", config.get("max_batch_size", 0)))
    config.setdefault("version_policy", {"latest": {"num_versions": 1}})
    if config.get("platform") == "ensemble":
        return config
    if backend := _backend(config):
        config["backend"] = backend
    if backend in _FILES:
        config.setdefault("default_model_filename", _FILES[backend])
    pinned: JsonObject = {"input_pinned_memory": {"enable": True}, "output_pinned_memory": {"enable": True}}
    config["optimization"] = {**pinned, **_message(config.get("optimization"))}
    if "dynamic_batching" in config:
        config["dynamic_batching"] = _preferring(_message(config["dynamic_batching"]), rows)
    if "sequence_batching" in config:
        sequence = {"max_sequence_idle_microseconds": "1000000", **_message(config["sequence_batching"])}
        if "oldest" in sequence:
            sequence["oldest"] = _preferring(_message(sequence["oldest"]), rows)
        config["sequence_batching"] = sequence
    groups = config.get("instance_group")
    if isinstance(groups, list):
        named = [{"name": f"{config.get('name', '')}_{i}", **_message(group)} for i, group in enumerate(groups)]
        config["instance_group"] = named
    return config


def _backend(config: JsonObject) -> str:
    """What serves the model, also where the older `platform` says it; empty where the config does not say."""
    of_platform = {platform: backend for backend, platform in _PLATFORMS.items()}
    return str(config.get("backend", "")) or of_platform.get(str(config.get("platform")), "")


def _preferring(batching: JsonObject, rows: int) -> JsonObject:
    """Without preferred sizes Triton prefers the largest."""
    return {"preferred_batch_size": [rows], **batching} if rows > 0 else batching


def _message(value: Json) -> JsonObject:
    return dict(value) if isinstance(value, Mapping) else {}


def _decided(group: JsonObject, seen: JsonObject) -> JsonObject:
    """An instance group with what the server decides about it: a count below one, KIND_AUTO, and a GPU group's GPUs."""
    decided = dict(group)
    if int(cast("int", group.get("count", 0))) < 1 and int(cast("int", seen.get("count", 0))) >= 1:
        decided["count"] = seen["count"]
    if "kind" not in group and "kind" in seen:
        decided["kind"] = seen["kind"]
    if "gpus" not in group and "gpus" in seen and decided.get("kind") == "KIND_GPU":
        decided["gpus"] = seen["gpus"]
    return decided


def _automatic_groups(config: JsonObject, seen: Json) -> bool:
    """One group named like the model, or one for each GPU."""
    name = str(config.get("name", ""))
    return isinstance(seen, list) and all(
        isinstance(group, Mapping) and str(group.get("name", "")).startswith(name) for group in seen
    )


def _is_ensemble(config: JsonObject, _seen: Json) -> bool:
    return config.get("platform") == "ensemble"


def _is_incomplete(config: JsonObject, _seen: Json) -> bool:
    """A config without inputs or outputs is completed from the model, where the server does that."""
    return config.get("platform") != "ensemble" and not (config.get("input") and config.get("output"))


SERVER_DECIDES: Mapping[str, Callable[[JsonObject, Json], bool]] = {
    "name": lambda _config, _seen: True,  # the directory's, and a load asks for it by this name
    "backend": lambda config, _seen: "platform" not in config,  # found from the files
    "platform": lambda config, seen: seen == _PLATFORMS.get(_backend(config)),
    "runtime": lambda config, seen: seen in {"model.py", f"libtriton_{_backend(config)}.so"},
    "instance_group": _automatic_groups,
    "model_transaction_policy": _is_ensemble,  # decoupled when a member is
    "max_batch_size": _is_incomplete,
    "dynamic_batching": _is_incomplete,
    "output": _is_incomplete,
    "input": _is_incomplete,
}
"""Fields that the server fills in when they are left out, and which values of it are plausible; asked in this order,
with what was taken over before."""
