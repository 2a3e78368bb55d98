# What a command says beside the text of a spec: it fills in what the text leaves out, and contradicts no model.
from __future__ import annotations

import pytest

from controlplane.domain.sweep_spec import Search, SweepSpec
from controlplane.domain.sweep_text import spec_from_text
from controlplane.errors import NameInvalid, SweepInvalid


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        ("", "digits", SweepSpec("digits")),
        ("# nothing said\n", "digits:3,4", SweepSpec("digits", (3, 4))),
        ("defaults: false", "digits", SweepSpec("digits", defaults=False)),
        ("model: digits:3", "digits", SweepSpec("digits", (3,))),
        ("model: digits:3", "digits:3", SweepSpec("digits", (3,))),
        ("{model: digits, versions: [4, 3]}", "digits:3,4", SweepSpec("digits", (3, 4))),
        ("versions: [3]", "digits", SweepSpec("digits", (3,))),
        ("model: digits", "", SweepSpec("digits")),
    ],
)
def test_a_model_fills_in_the_spec(text: str, model: str, expected: SweepSpec) -> None:
    assert spec_from_text(text, model=model) == expected


def test_seed_and_seconds_go_before_those_of_the_spec() -> None:
    assert spec_from_text("search: {seed: 1, candidates: 9}", model="m", seed=0, seconds=60).search == Search(
        seed=0, seconds=60, candidates=9
    )
    assert spec_from_text("search:", model="m", seed=7).search == Search(seed=7)


@pytest.mark.parametrize(
    ("text", "model", "said"),
    [
        ("model: words", "digits", "the spec is of 'words', and 'digits' was asked for"),
        ("model: words:1", "digits:1", "the spec is of 'words', and 'digits' was asked for"),
        ("model: digits:3", "digits:4", "the spec is of version 3 of 'digits', and 4 was asked for"),
        (
            "{model: digits, versions: [1, 2]}",
            "digits:1",
            "the spec is of version 1, 2 of 'digits', and 1 was asked for",
        ),
        ("model: digits", "digits:x", "versions cannot be 'x'"),
        ("model: 3", "digits", "the spec names no model"),
        ("[model, digits]", "digits", "the spec is not an object"),
        ("search: 3", "digits", "search is not an object"),
        ("", "", "the spec is not an object"),
    ],
)
def test_what_contradicts_or_cannot_be_filled_in_is_refused(text: str, model: str, said: str) -> None:
    with pytest.raises(SweepInvalid) as caught:
        spec_from_text(text, model=model, seed=1)

    assert said in caught.value.message


def test_the_name_that_was_asked_for_is_checked_too() -> None:
    with pytest.raises(NameInvalid):
        spec_from_text("", model="../m")
