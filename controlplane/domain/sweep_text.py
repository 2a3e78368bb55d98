# A sweep's spec as text: YAML, or JSON, which is YAML too, without the traps of either.
from __future__ import annotations

import re
from typing import Any

import yaml

from controlplane.domain.canonical import Json
from controlplane.domain.sweep_spec import SweepSpec, spec_from_json, versions_of
from controlplane.errors import SweepInvalid

MOST_CHARACTERS = 256 * 1024
_DEEPEST = 20


class _Loader(yaml.SafeLoader):
    """Ranges such as 1:4:1 stay text: YAML 1.1 takes them for numbers to the base 60. Dates stay text, `no` and `on` too, and a
    name that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("null", r"null|~", "n~"),
    ("int", r"-?(0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", "-0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


def spec_from_text(text: str, *, model: str = "", seed: int | None = None, seconds: int | None = None) -> SweepSpec:
    """`model` is NAME or NAME:VERSION,…: it fills in what the text leaves out; `seed` and `seconds` go before the text's. Raises
    SweepInvalid, with line and column where the text cannot be read, and where both name a model or versions and not the same."""
    if len(text) > MOST_CHARACTERS:
        raise SweepInvalid(f"a spec of {len(text)} characters is too large", hint=f"at most {MOST_CHARACTERS} are read")
    try:
        _check_events(text)
        tree: Json = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise SweepInvalid(
            f"the spec cannot be read: {where}{error.problem}", hint="write it as YAML or JSON"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SweepInvalid(f"the spec cannot be read: {str(error)[:200]}", hint="write it as YAML or JSON") from None
    return spec_from_json(_completed({} if tree is None and model else tree, model, {"seed": seed, "seconds": seconds}))


def _completed(tree: Json, model: str, search: dict[str, int | None]) -> Json:
    """What is not of its form is left for who reads it to say so."""
    if not isinstance(tree, dict):
        return tree
    said, (name, _, versions) = tree.get("model"), model.partition(":")
    its_versions: Json = tree.get("versions") or (said.partition(":")[2] if isinstance(said, str) else "")
    if model and isinstance(said, str) and (its := said.partition(":")[0]) != name:
        raise SweepInvalid(
            f"the spec is of {its[:100]!r}, and {name[:100]!r} was asked for", hint="leave the model out of the spec"
        )
    if versions and its_versions and versions_of(versions) != (own := versions_of(its_versions)):
        raise SweepInvalid(
            f"the spec is of version {', '.join(map(str, own))} of {name[:100]!r}, and {versions[:100]} was asked for",
            hint="name versions in the spec or on the command line",
        )
    if model and (versions or said is None):
        tree = {key: value for key, value in tree.items() if not (versions and key == "versions")} | {"model": model}
    wanted = {key: value for key, value in search.items() if value is not None}
    there = tree.get("search")
    if wanted and (there is None or isinstance(there, dict)):
        tree = tree | {"search": (there or {}) | wanted}
    return tree


def _check_events(text: str) -> None:
    """No aliases, with which a few lines can stand for gigabytes, no tags, with which text becomes what its form does not say, and
    nothing so deep that reading it runs out of stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise SweepInvalid(
                f"the spec cannot be read: {_place(event)}aliases are not read here", hint="write it out"
            )
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise SweepInvalid(
                f"the spec cannot be read: {_place(event)}tags such as {event.tag[:60]} are not read here",
                hint="leave it out; quote what is text",
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise SweepInvalid(
                f"the spec cannot be read: {_place(event)}deeper than {_DEEPEST} levels", hint="flatten it"
            )


def _place(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}: " if event.start_mark else ""
