# Ensembles and their members: which must be there, and that they do not change at the same time.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.domain.canonical import JsonObject
from controlplane.domain.config_tree import message, messages, text
from controlplane.domain.environments import RevisionContent


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another model of the environment: what it serves, and the change that is being applied to it with its goal."""

    model: str
    current: RevisionContent
    active_change: int | None = None
    goal: RevisionContent | None = None


def members(config: JsonObject | None) -> dict[str, frozenset[int]]:
    """The models that an ensemble's steps name, each with the versions that they pin; empty for any other config."""
    found: dict[str, set[int]] = {}
    for step in messages(message((config or {}).get("ensemble_scheduling")).get("step")):
        number = int(text(step.get("model_version")) or -1)
        found.setdefault(text(step.get("model_name")), set()).update({number} if number > 0 else ())
    return {name: frozenset(numbers) for name, numbers in found.items()}


@dataclass(frozen=True, slots=True)
class Clash:
    """Why a model cannot become what is desired beside the model `other`: `code` is `members` or `active`, `message` says
    what would lift it. `breaks`: `other` is an ensemble that would lose what it needs."""

    code: str
    message: str
    other: str
    breaks: bool = False


def conflicts(model: str, desired: RevisionContent, neighbours: Sequence[Neighbour]) -> Iterator[Clash]:
    known = {neighbour.model: neighbour for neighbour in neighbours}
    for name, pinned in members(desired.config).items():
        member = known.get(name)
        if member is None or member.current.config is None:
            yield Clash("members", f"its member {name!r} is not deployed in this environment: deploy that first", name)
        elif missing := pinned - {*member.current.numbers}:
            yield Clash(
                "members", f"it names version {min(missing)} of its member {name!r}, which does not serve", name
            )
        if member is not None and member.active_change is not None:
            yield Clash("active", f"change {member.active_change} of its member {name!r} is being applied", name)
    for ensemble in neighbours:
        contents = [content for content in (ensemble.current, ensemble.goal) if content is not None]
        uses = [members(content.config)[model] for content in contents if model in members(content.config)]
        if not uses:
            continue
        if ensemble.active_change is not None:
            yield Clash(
                "active",
                f"change {ensemble.active_change} of the ensemble {ensemble.model!r}, which uses it, is being applied",
                ensemble.model,
            )
        if desired.config is None:
            yield Clash(
                "members", f"the ensemble {ensemble.model!r} uses it: undeploy that first", ensemble.model, breaks=True
            )
        elif missing := frozenset().union(*uses) - {*desired.numbers}:
            yield Clash(
                "members",
                f"the ensemble {ensemble.model!r} names version {min(missing)} of it, which would not serve",
                ensemble.model,
                breaks=True,
            )
