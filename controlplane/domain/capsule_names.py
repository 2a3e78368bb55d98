# A capsule without names: who, what and where are renamed, each everywhere to the same; contents keep their digests. Pure.
"""What is needed to measure again stays: configs, with the names of tensors and of files that the model's own bytes refer to,
numbers, digests. Digests that were taken of something with a name in it are those of before, which nobody can take again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.capsules import Capsule
from controlplane.domain.fingerprints import Fingerprint
from controlplane.domain.sweep_figures import LATENCY, RATE, THROUGHPUT
from controlplane.domain.sweep_racing import Fate
from controlplane.domain.sweep_rounds import Measurement, Stage, Step, Verdict
from controlplane.domain.sweep_search import Met
from controlplane.domain.sweep_spec import Method, Shape
from controlplane.domain.sweeps import SweepState, Trial

_EACH = "each everywhere the same"
DROPPED = (
    f"the names of the model, its environment, whoever started the sweep, objectives and stakeholders are others, {_EACH}",
    "the bench's address, paths, names of instance groups and of container images are others",
    "the logs of the server are left out",
    "configs keep the names of their tensors, and versions those of their files: the model's own bytes refer to them",
    "digests are those of before: of configs, candidates, the spec, fingerprints and rows none can be taken again",
)
SAMPLES_LEFT_OUT = (
    "recorded inferences of a user's own samples are left out: a replay takes them by digest from its store"
)
_PATH = re.compile(r"(?<![\w.:/-])(?:file:/)?/[\w.@+-]+(?:/[\w.@+-]*)+")
_ADDRESS = re.compile(
    r"\b(?:\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?|(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]+:\d{1,5}|localhost:\d{1,5})\b",
    re.IGNORECASE,
)
_PERCENTILE = re.compile(r"p[0-9.]+")
_WORDS = frozenset(
    {one.value for kind in (Shape, Stage, Verdict, Method, Fate, Met, SweepState) for one in kind}
    | {RATE, THROUGHPUT, LATENCY, "accuracy", "rate", "concurrency", "embedded", "at_most", "at_least"}
)
_SHORTEST = 3
"""A shorter name is renamed where it stands by itself, not in the middle of sentences, where it is a word like any other."""


def anonymized(capsule: Capsule, *, samples: bool) -> Capsule:
    """`samples` says that recorded inferences of users' own were among its blobs, and were left out."""
    names = _Names()
    sweep = capsule.sweep
    names.give(sweep.model, "model-1")
    if sweep.environment is not None:
        names.give(sweep.environment, "environment-1")
    names.give(sweep.started_by, "principal-1")
    for number, objective in enumerate(sweep.objectives, 1):
        names.give(str(objective.get("name", "")), f"objective-{number}")
        stakeholder = str(objective.get("stakeholder", ""))
        names.give(stakeholder, f"stakeholder-{number}", said=False)
    if sweep.bench != "embedded":
        names.give(sweep.bench, "bench-1")
    kept = _tree(sweep.load, names), _tree(sweep.space, names), _tree(sweep.plan, names)
    load, space, plan = kept
    return replace(
        capsule,
        sweep=replace(
            sweep,
            model=names.of(sweep.model),
            spec=_spec(sweep.spec, names),
            load=_load(load, names),
            space=space,
            plan=plan,
            objectives=tuple(_objective(one, names) for one in sweep.objectives),
            started_by=names.of(sweep.started_by),
            environment=None if sweep.environment is None else names.of(sweep.environment),
            bench=names.of(sweep.bench),
            message=names.within(sweep.message),
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
        self._said: set[str] = set()
        self._kinds: dict[str, dict[str, str]] = {}
        self._pattern: re.Pattern[str] | None = None

    def give(self, name: str, other: str, *, said: bool = True) -> None:
        """The first that a name is given stays. A word that the capsule itself is written in tells nobody anything. What no sentence
        names, unless it is `said`, may be a word of one by chance: a stakeholder called product."""
        if name and name not in _WORDS and _PERCENTILE.fullmatch(name) is None:
            self._given.setdefault(name, other)
            self._pattern = None
            if said:
                self._said.add(name)

    def of(self, name: str) -> str:
        return self._given.get(name, name)

    def numbered(self, kind: str, name: str) -> str:
        """`kind-1`, `kind-2`, … in the order in which they come."""
        known = self._kinds.setdefault(kind, {})
        return known.setdefault(name, f"{kind}-{len(known) + 1}")

    def within(self, text: str) -> str:
        """Names as whole words, paths and addresses of a text that people read."""
        if self._pattern is None:
            words = sorted((re.escape(name) for name in self._said if len(name) >= _SHORTEST), key=len, reverse=True)
            self._pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])") if words else re.compile(r"(?!)")
        text = self._pattern.sub(lambda match: self._given[match[0]], text)
        text = _PATH.sub(lambda match: "/" + self.numbered("path", match[0]), text)
        return _ADDRESS.sub(lambda match: self.numbered("address", match[0]), text)


def _tree(tree: Mapping[str, Json], names: _Names) -> JsonObject:
    """Of what has sentences and configs in it at any depth. What holds a space is taken for a sentence."""

    def walk(value: Json, key: str) -> Json:
        if isinstance(value, Mapping):
            if "max_batch_size" in value or "instance_group" in value or ("backend" in value and "input" in value):
                return _config(dict(value), names)
            return {names.of(name): walk(one, name) for name, one in value.items()}
        if isinstance(value, str):
            return names.within(value) if " " in value or "/" in value else names.of(value)
        if isinstance(value, list | tuple):
            return [walk(one, key) for one in value]
        return value

    return {names.of(name): walk(value, name) for name, value in tree.items()}


def _config(config: JsonObject, names: _Names) -> JsonObject:
    """The model's name, those of instance groups, and texts of parameters that are paths. Tensors keep theirs."""
    found = _mapped(config, lambda text: names.within(text) if text.startswith("/") else text)
    if "name" in found:
        found["name"] = names.of(str(found["name"]))
    groups = found.get("instance_group")
    if isinstance(groups, list):
        found["instance_group"] = [
            {**group, "name": names.numbered("group", str(group["name"]))} if "name" in group else group
            for group in groups
        ]
    return found


def _mapped(tree: JsonObject, change: Callable[[str], str]) -> JsonObject:
    def walk(value: Json) -> Json:
        if isinstance(value, Mapping):
            return {name: walk(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one) for one in value]
        return change(value) if isinstance(value, str) else value

    return {name: walk(value) for name, value in tree.items()}


def _spec(spec: JsonObject, names: _Names) -> JsonObject:
    found = _tree(spec, names)
    load = found.get("load")
    return {**found, "load": _load(dict(load), names)} if isinstance(load, Mapping) else found


def _load(load: JsonObject, names: _Names) -> JsonObject:
    """A trace is named by its file."""
    trace = load.get(Shape.TRACE.value)
    return load if trace is None else {**load, Shape.TRACE.value: names.numbered("trace", str(trace))}


def _objective(objective: JsonObject, names: _Names) -> JsonObject:
    return {
        **objective,
        **{key: names.of(str(objective[key])) for key in ("model", "name", "stakeholder") if key in objective},
    }


def _trial(trial: Trial, names: _Names) -> Trial:
    return replace(
        trial,
        config=None if trial.config is None else _config(trial.config, names),
        parameters=_mapped(trial.parameters, lambda text: names.within(text) if text.startswith("/") else text),
        refused=tuple(names.within(one) for one in trial.refused),
        failure=names.within(trial.failure),
        log="",
        fates=tuple(_tree(one, names) for one in trial.fates),
    )


def _measurement(one: Measurement, names: _Names) -> Measurement:
    step = one.order.step
    if step.shape is Shape.TRACE:
        step = Step(step.shape, names.numbered("trace", step.text), step.process)
    return replace(
        one,
        order=replace(one.order, step=step),
        reasons=tuple(names.within(reason) for reason in one.reasons),
        failure=names.within(one.failure),
    )


def _fingerprint(one: Fingerprint, names: _Names) -> Fingerprint:
    image = one.serving.image
    return replace(one, serving=replace(one.serving, image=None if image is None else names.numbered("image", image)))
