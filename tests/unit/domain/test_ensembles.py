# An ensemble and its members: what must be there, and that they do not change at the same time.
from __future__ import annotations

import pytest

from controlplane.domain.canonical import JsonObject
from controlplane.domain.ensembles import Neighbour, conflicts, members
from controlplane.domain.environments import NOTHING, RevisionContent, VersionRef

PIPE: JsonObject = {
    "platform": "ensemble",
    "ensemble_scheduling": {
        "step": [
            {"model_name": "a", "model_version": "-1"},
            {"model_name": "b", "model_version": "2"},
            {"model_name": "b", "model_version": "3"},
        ]
    },
}


def serving(*numbers: int, config: JsonObject | None = None) -> RevisionContent:
    return RevisionContent(
        tuple(VersionRef(n, f"sha256:{n}") for n in numbers), {"backend": "x"} if config is None else config
    )


ENSEMBLE = serving(1, config=PIPE)
A, B = Neighbour("a", serving(1)), Neighbour("b", serving(2, 3))


def said(model: str, desired: RevisionContent, neighbours: tuple[Neighbour, ...]) -> list[tuple[str, str]]:
    return [(clash.code, clash.message) for clash in conflicts(model, desired, neighbours)]


def test_members_are_named_with_the_versions_that_are_pinned() -> None:
    assert members(PIPE) == {"a": frozenset(), "b": frozenset({2, 3})}
    assert members({"backend": "x"}) == members(None) == {}


@pytest.mark.parametrize(
    ("neighbours", "found"),
    [
        ((A, B), []),
        ((A,), [("members", "its member 'b' is not deployed in this environment: deploy that first")]),
        ((A, Neighbour("b", serving(2))), [("members", "it names version 3 of its member 'b', which does not serve")]),
        (
            (Neighbour("a", NOTHING, 7, serving(1)), B),
            [
                ("members", "its member 'a' is not deployed in this environment: deploy that first"),
                ("active", "change 7 of its member 'a' is being applied"),
            ],
        ),
    ],
)
def test_an_ensemble_needs_its_members(neighbours: tuple[Neighbour, ...], found: list[tuple[str, str]]) -> None:
    assert said("pipe", ENSEMBLE, neighbours) == found


@pytest.mark.parametrize(
    ("desired", "found"),
    [
        (serving(2, 3, 4), []),
        (serving(3), [("members", "the ensemble 'pipe' names version 2 of it, which would not serve")]),
        (NOTHING, [("members", "the ensemble 'pipe' uses it: undeploy that first")]),
    ],
)
def test_a_member_stays_as_long_as_an_ensemble_uses_it(desired: RevisionContent, found: list[tuple[str, str]]) -> None:
    assert said("b", desired, (A, Neighbour("pipe", ENSEMBLE))) == found
    assert said("c", NOTHING, (A, Neighbour("pipe", ENSEMBLE))) == []


@pytest.mark.parametrize(("current", "goal"), [(ENSEMBLE, NOTHING), (NOTHING, ENSEMBLE)])
def test_a_member_waits_for_a_change_of_its_ensemble(current: RevisionContent, goal: RevisionContent) -> None:
    (first, *_) = said("b", serving(2, 3), (Neighbour("pipe", current, 9, goal),))
    assert first == ("active", "change 9 of the ensemble 'pipe', which uses it, is being applied")
