# Config paths are read and written in one notation.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.config_paths import Append, Field, Index, Key, Step, meet, parse_path, path_text
from controlplane.errors import ConfigPathInvalid


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("max_batch_size", (Field("max_batch_size"),)),
        (
            "dynamic_batching.max_queue_delay_microseconds",
            (Field("dynamic_batching"), Field("max_queue_delay_microseconds")),
        ),
        ("instance_group[0].count", (Field("instance_group"), Index(0), Field("count"))),
        ("instance_group[+].kind", (Field("instance_group"), Append(), Field("kind"))),
        ('parameters["session.x"].string_value', (Field("parameters"), Key("session.x"), Field("string_value"))),
        ('parameters["a\\"]b"].string_value', (Field("parameters"), Key('a"]b'), Field("string_value"))),
        ('input["é"].dims[1]', (Field("input"), Key("é"), Field("dims"), Index(1))),
    ],
)
def test_a_path_is_read_into_its_steps_and_written_back(text: str, steps: tuple[Step, ...]) -> None:
    assert parse_path(text) == steps
    assert path_text(steps) == text


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1),
        (".a", 1),
        ("[0]", 1),
        ("a..b", 2),
        ("a.", 2),
        ("a[", 2),
        ("a[-1]", 2),
        ("a[x]", 2),
        ("a[0]b", 5),
        ('a["\\q"]', 2),
        ("a b", 2),
        ("a[9999999]", 2),
        ("dynamic-batching", 8),
    ],
)
def test_a_broken_path_is_refused_with_the_character(text: str, position: int) -> None:
    with pytest.raises(ConfigPathInvalid) as caught:
        parse_path(text)
    assert caught.value.message == f"config path {text!r} cannot be read at character {position}"
    assert caught.value.details == {"path": text, "position": position}


def test_an_endless_path_is_refused_unread() -> None:
    with pytest.raises(ConfigPathInvalid, match="1001 characters is too long"):
        parse_path("a" * 1001)


_steps = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True).map(Field),
    st.integers(0, 999_999).map(Index),
    st.just(Append()),
    st.text(st.characters(codec="utf-8"), max_size=9).map(Key),
)


@given(first=st.just(Field("a")), rest=st.lists(_steps, max_size=6))
def test_every_path_reads_back_as_its_steps(first: Field, rest: list[Step]) -> None:
    steps = (first, *rest)
    assert parse_path(path_text(steps)) == steps


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ("dynamic_batching", "dynamic_batching.preserve_ordering", True),
        ('parameters["a"]', "parameters", True),
        ('parameters["a"].string_value', "parameters.a", True),
        ('instance_group["cpu"].count', "instance_group[0].count", True),
        ("instance_group[+].count", "instance_group[0].count", True),
        ("instance_group[1].count", "instance_group[0].count", False),
        ('input["x"].dims', 'input["y"].dims', False),
        ("max_batch_size", "name", False),
    ],
)
def test_paths_meet_where_one_leads_to_the_other_or_into_it(one: str, other: str, do: bool) -> None:
    assert meet(one, other) is meet(other, one) is do
