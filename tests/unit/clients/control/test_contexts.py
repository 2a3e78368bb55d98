# The file of contexts: readable by its owner only, whole after a crash, and safe for two processes at once.
from __future__ import annotations

import multiprocessing
import tomllib
from pathlib import Path

import pytest

from clients.control import contexts
from clients.control.contexts import Context
from clients.control.errors import ApiError


def test_what_is_written_is_read_back_whatever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "home" / "context.toml"
    odd = Context('http://a/"\\', "tok\ten\x7f€", "name+00+key", "line\nline")
    contexts.put(path, 'a context.with [odd] "name"', odd, use=True)
    assert contexts.find(path, None) == ('a context.with [odd] "name"', odd)
    assert path.stat().st_mode & 0o777 == 0o600
    tomllib.loads(path.read_text())


def test_a_token_is_not_in_the_repr() -> None:
    assert "secret" not in repr(Context("http://a", "secret"))


def test_the_first_context_is_used_until_another_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    contexts.put(path, "one", Context("http://a"))
    contexts.put(path, "two", Context("http://b"))
    assert contexts.find(path, None)[0] == "one"
    contexts.use(path, "two")
    assert contexts.find(path, None)[0] == "two"


def test_what_was_seen_is_kept_only_where_nobody_saw_more_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    contexts.put(path, "one", Context("http://a", "t"))
    contexts.remember(path, "one", audit_key="key", before="", checkpoint="5")
    contexts.remember(path, "one", audit_key="key", before="", checkpoint="4")
    contexts.remember(path, "gone", audit_key="key", before="", checkpoint="5")
    assert contexts.read(path).contexts == {"one": Context("http://a", "t", "key", "5")}


@pytest.mark.parametrize("text", ["current = ", "[contexts.a]\nnot_a_field = 1\napi = 'x'", "contexts = 3", "\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "context.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ApiError) as caught:
        contexts.read(path)
    assert (caught.value.code, caught.value.exit_code) == ("context.invalid", 2)
    assert str(path) in caught.value.message


def _put(path: Path, name: str) -> None:
    contexts.put(path, name, Context("http://a", name))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "context.toml"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_put, args=(path, f"c{number}")) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(contexts.read(path).contexts) == ["c0", "c1", "c2", "c3"]
