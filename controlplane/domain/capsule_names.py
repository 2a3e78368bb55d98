# A capsule without names: who, what and where are renamed, each everywhere to the same; contents keep their digests. Pure.
"""What is needed to measure again stays: configs, with the names of tensors and of files that the model's own bytes refer to,
numbers, digests. Digests that were taken of something with a name in it are those of before, which nobody can take again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.capsules import Capsule
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_figures import LATENCY, OVERTIME, RATE, THROUGHPUT
from controlplane.domain.sweep_racing import Fate
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import Met
from controlplane.domain.sweep_spec import Method, Shape
from controlplane.domain.sweeps import SweepState, Trial

_EACH = "each everywhere the same"
DROPPED = (
    f"the names of the model, its environment, whoever started or cancelled the sweep, objectives and stakeholders are others, {_EACH}",
    "the bench's address, traces, absolute paths, names of instance groups and of container images are others",
    "the logs of the server are left out",
    "configs keep the names of their tensors, and versions those of their files: the model's own bytes refer to them",
    "other texts of configs, and of values that were tried for them, stay, whatever they name: owners, addresses, relative paths",
    "metrics and cohorts keep their names",
    "digests are those of before: of configs, candidates, the spec, fingerprints and rows none can be taken again",
)
SAMPLES_LEFT_OUT = (
    "recorded inferences of a user's own samples are left out: a replay takes them by digest from its store"
)
_EMBEDDED = "embedded"
_NAMED = frozenset({"model", "objective", "unseen", Shape.TRACE.value})
"""Where a text that stands alone is a name. Elsewhere it is a word of ours, or a number."""
_CANCELLED = re.compile(r"cancelled by (.+)", re.DOTALL)
"""As services/sweeps.py:cancel says it."""
_PATH = re.compile(r"(?<![\w.:/-])(?:file:/)?/[\w.@+-]{3,}(?:/[\w.@+-]*)*|(?<![\w.:/-])/[\w.@+-]{1,2}(?:/[\w.@+-]*)+")
_ADDRESS = re.compile(
    r"(?<=://)(?:\[[0-9a-f:.]+\]|[\w.@-]+)(?::\d{1,5})?|"
    r"\b(?:\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?|(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]+:\d{1,5}|localhost:\d{1,5})\b",
    re.IGNORECASE,
)
_PERCENTILE = re.compile(r"p[0-9.]+")
_WORDS = frozenset(
    {one.value for kind in (Shape, Stage, Verdict, Method, Fate, Met, SweepState) for one in kind}
    | {RATE, THROUGHPUT, LATENCY, "accuracy", "rate", "concurrency", _EMBEDDED, "at_most", "at_least"}
)
"""Sentences keep them, whoever is called so: there they tell nobody anything."""
_SHORTEST = 3
"""A shorter name is renamed where it stands by itself, not in the middle of sentences, where it is a word like any other."""


def anonymized(capsule: Capsule, *, samples: bool) -> Capsule:
    """`samples` says that recorded inferences of users' own were among its blobs, and were left out."""
    sweep = capsule.sweep
    names = _names(capsule)
    return replace(
        capsule,
        sweep=replace(
            sweep,
            model=names.of(sweep.model),
            spec=_tree(sweep.spec, names),
            load=_tree(sweep.load, names),
            space=_tree(sweep.space, names),
            plan=_tree(sweep.plan, names),
            objectives=tuple(_objective(one, names) for one in sweep.objectives),
            started_by=names.of(sweep.started_by),
            environment=None if sweep.environment is None else names.of(sweep.environment),
            bench=sweep.bench if sweep.bench == _EMBEDDED else names.of(sweep.bench),
            message=_message(sweep.message, names),
            answer=None if sweep.answer is None else _tree(sweep.answer, names),
        ),
        trials=tuple(_trial(one, names) for one in capsule.trials),
        measurements=tuple(_measurement(one, names) for one in capsule.measurements),
        fingerprints={name: _fingerprint(one, names) for name, one in capsule.fingerprints.items()},
        dropped=(*DROPPED, *((SAMPLES_LEFT_OUT,) if samples else ())),
    )


class _Names:
    """What each name became."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._kinds: dict[str, dict[str, str]] = {}
        self._pattern: re.Pattern[str] | None = None

    def give(self, name: str, other: str, *, said: bool = True) -> None:
        """The first that a name is given stays. What no sentence names, unless it is `said`, may be a word of one by chance: a
        stakeholder called product."""
        if name:
            other = self._given.setdefault(name, other)
            if said and len(name) >= _SHORTEST and name not in _WORDS and _PERCENTILE.fullmatch(name) is None:
                self.say(name, other)

    def say(self, words: str, other: str) -> None:
        """What sentences have for it."""
        self._said[words] = other
        self._pattern = None

    def of(self, name: str) -> str:
        return self._given.get(name, name)

    def numbered(self, kind: str, name: str) -> str:
        """`kind-1`, `kind-2`, … in the order in which they come."""
        known = self._kinds.setdefault(kind, {})
        return known.setdefault(name, f"{kind}-{len(known) + 1}")

    def within(self, text: str) -> str:
        """Names as whole words, paths and addresses of a text that people read."""
        if self._pattern is None:
            words = sorted(map(re.escape, self._said), key=len, reverse=True)
            self._pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])") if words else re.compile(r"(?!)")
        text = self._pattern.sub(lambda match: self._said[match[0]], text)
        text = _PATH.sub(lambda match: "/" + self.numbered("path", match[0]), text)
        return _ADDRESS.sub(
            lambda match: match[0] if match[0] in self._said.values() else self.numbered("address", match[0]), text
        )


def _names(capsule: Capsule) -> _Names:
    """All that is known to be one, before anything is renamed."""
    sweep, names = capsule.sweep, _Names()
    names.give(sweep.model, "model-1")
    names.give(sweep.environment or "", "environment-1")
    names.give(sweep.started_by, "principal-1")
    cancelled = _CANCELLED.fullmatch(sweep.message)
    if cancelled:
        names.give(cancelled[1], "principal-2", said=False)
    for number, objective in enumerate(sweep.objectives, 1):
        names.give(str(objective.get("name", "")), f"objective-{number}")
        names.give(str(objective.get("stakeholder", "")), f"stakeholder-{number}", said=False)
    if sweep.bench != _EMBEDDED:
        place = sweep.bench.rpartition("/")[2]  # a scheduler has other schemes when it is spoken to
        host = place.rpartition(":")[0]
        for spelled in (sweep.bench, place, host, host.strip("[]")):
            names.give(spelled, "bench-1")
            names.give(spelled.lower(), "bench-1")
    steps = [one.order.step for one in capsule.measurements if one.order.step.shape is Shape.TRACE]
    traces = dict.fromkeys([str(sweep.load.get(Shape.TRACE.value, "")), *(step.text for step in steps)])
    for number, trace in enumerate(filter(None, traces), 1):
        names.give(trace, f"trace-{number}")
        names.say(f"{Shape.TRACE.value} {trace}", f"{Shape.TRACE.value} {names.of(trace)}")  # however short it is
    return names


def _message(message: str, names: _Names) -> str:
    cancelled = _CANCELLED.fullmatch(message)
    return f"cancelled by {names.of(cancelled[1])}" if cancelled else names.within(message)


def _tree(tree: Mapping[str, Json], names: _Names) -> JsonObject:
    """Of what has sentences, configs and names in it, at any depth. Keys are words of ours, names of tries, or places of the config.
    What holds a space or a slash is taken for a sentence."""

    def walk(value: Json, key: str) -> Json:
        if key == "bases" and isinstance(value, Mapping):
            return {number: _config(one, names) if isinstance(one, dict) else one for number, one in value.items()}
        if key == "values":
            return _settings({key: value}, names)[key]
        if isinstance(value, Mapping):
            return value if key == "beside" else {name: walk(one, name) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one, key) for one in value]
        if not isinstance(value, str):
            return value
        if key in _NAMED:
            return names.of(value)
        return names.within(value) if " " in value or "/" in value else value

    return {name: walk(value, name) for name, value in tree.items()}


def _config(config: JsonObject, names: _Names) -> JsonObject:
    """The model's name, those of instance groups, and texts that are paths. Tensors keep theirs."""
    found = _settings(config, names)
    if "name" in found:
        found["name"] = names.of(str(found["name"]))
    groups = found.get("instance_group")
    if isinstance(groups, list):
        found["instance_group"] = [
            {**group, "name": names.numbered("group", str(group["name"]))} if "name" in group else group
            for group in groups
        ]
    return found


def _settings(tree: JsonObject, names: _Names) -> JsonObject:
    """Of a config, or of values for one: what is no path may be what the backend goes by."""

    def walk(value: Json) -> Json:
        if isinstance(value, Mapping):
            return {name: walk(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one) for one in value]
        return names.within(value) if isinstance(value, str) and value.startswith("/") else value

    return {name: walk(value) for name, value in tree.items()}


def _objective(objective: JsonObject, names: _Names) -> JsonObject:
    return {
        **objective,
        **{key: names.of(str(objective[key])) for key in ("model", "name", "stakeholder") if key in objective},
    }


def _trial(trial: Trial, names: _Names) -> Trial:
    return replace(
        trial,
        config=None if trial.config is None else _config(trial.config, names),
        parameters=_settings(trial.parameters, names),
        refused=tuple(names.within(one) for one in trial.refused),
        failure=names.within(trial.failure),
        log="",
        fates=tuple(_tree(one, names) for one in trial.fates),
    )


def _measurement(one: Measurement, names: _Names) -> Measurement:
    step = one.order.step
    if step.shape is Shape.TRACE:
        step = Step(step.shape, names.of(step.text), step.process)
    return replace(
        one,
        order=replace(one.order, step=step),
        reasons=tuple(reason if reason == OVERTIME else names.within(reason) for reason in one.reasons),
        failure=names.within(one.failure),
    )


def _fingerprint(one: Fingerprint, names: _Names) -> Fingerprint:
    image = one.serving.image
    return replace(one, serving=replace(one.serving, image=None if image is None else names.numbered("image", image)))
