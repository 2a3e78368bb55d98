# What Triton reports for a config that it loaded: what it adds by rule, and what it decides itself.
"""Triton fills a config in when it loads it. `normalise` adds what follows from the config alone, so that it is compared
exactly; `SERVER_DECIDES` names what follows from the server, and is taken as observed where it was left open and is
plausible. Everything else must be reported as it was written. Seen on Triton 2.51 and held by tests/live."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.config_diff import FieldChange, diff
from controlplane.domain.config_tree import PLATFORMS, message, messages, number, served_by, text

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
    groups, seen = messages(expected.get("instance_group")), messages(observed.get("instance_group"))
    if groups and len(groups) == len(seen):
        expected["instance_group"] = [_decided(*pair) for pair in zip(groups, seen, strict=True)]
    return diff(expected, observed)


def normalise(desired: JsonObject) -> JsonObject:
    """`desired` with what Triton adds to every such config, whatever the server."""
    config = dict(desired)
    rows = number(config.get("max_batch_size"))
    config.setdefault("version_policy", {"latest": {"num_versions": 1}})
    if config.get("platform") == "ensemble":
        return config
    if backend := served_by(config):
        config["backend"] = backend
    if backend in _FILES:
        config.setdefault("default_model_filename", _FILES[backend])
    pinned: JsonObject = {"input_pinned_memory": {"enable": True}, "output_pinned_memory": {"enable": True}}
    config["optimization"] = {**pinned, **message(config.get("optimization"))}
    if "dynamic_batching" in config:
        config["dynamic_batching"] = _preferring(message(config["dynamic_batching"]), rows)
    if "sequence_batching" in config:
        sequence = {"max_sequence_idle_microseconds": "1000000", **message(config["sequence_batching"])}
        if "oldest" in sequence:
            sequence["oldest"] = _preferring(message(sequence["oldest"]), rows)
        config["sequence_batching"] = sequence
    if groups := messages(config.get("instance_group")):
        config["instance_group"] = [
            {"name": f"{config.get('name', '')}_{i}", **group} for i, group in enumerate(groups)
        ]
    return config


def _preferring(batching: JsonObject, rows: int) -> JsonObject:
    """Without preferred sizes Triton prefers the largest."""
    return {"preferred_batch_size": [rows], **batching} if rows > 0 else batching


def _decided(group: JsonObject, seen: JsonObject) -> JsonObject:
    """An instance group with what the server decides about it: a count below one, KIND_AUTO, and a GPU group's GPUs."""
    decided = dict(group)
    if number(group.get("count")) < 1 and number(seen.get("count")) >= 1:
        decided["count"] = seen["count"]
    if "kind" not in group and "kind" in seen:
        decided["kind"] = seen["kind"]
    if "gpus" not in group and "gpus" in seen and decided.get("kind") == "KIND_GPU":
        decided["gpus"] = seen["gpus"]
    return decided


def _automatic_groups(config: JsonObject, seen: Json) -> bool:
    """One group named like the model, or one for each GPU."""
    name = str(config.get("name", ""))
    return all(text(group.get("name")).startswith(name) for group in messages(seen))


def _is_ensemble(config: JsonObject, _seen: Json) -> bool:
    return config.get("platform") == "ensemble"


def _is_incomplete(config: JsonObject, _seen: Json) -> bool:
    """A config without inputs or outputs is completed from the model, where the server does that."""
    return config.get("platform") != "ensemble" and not (config.get("input") and config.get("output"))


SERVER_DECIDES: Mapping[str, Callable[[JsonObject, Json], bool]] = {
    "name": lambda _config, _seen: True,  # the directory's, and a load asks for it by this name
    "backend": lambda config, _seen: "platform" not in config,  # found from the files
    "platform": lambda config, seen: seen == PLATFORMS.get(served_by(config)),
    "runtime": lambda config, seen: seen in {"model.py", f"libtriton_{served_by(config)}.so"},
    "instance_group": _automatic_groups,
    "model_transaction_policy": _is_ensemble,  # decoupled when a member is
    "max_batch_size": _is_incomplete,
    "dynamic_batching": _is_incomplete,
    "output": _is_incomplete,
    "input": _is_incomplete,
}
"""Fields that the server fills in when they are left out, and which values of it are plausible; asked in this order,
with what was taken over before."""
